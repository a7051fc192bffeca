"""What is done about a call that raises: out of memory is recognised, and of a batch only the face at fault fails."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

G = TypeVar("G")
T = TypeVar("T")


def isolate_failures(
    batch: Sequence[G], work: Callable[[Sequence[G]], Sequence[T]]
) -> Iterator[tuple[G, T | Exception]]:
    """Each item of the batch with its result; where `work` raises, each is tried alone and gets its own error.

    Out of memory is no item's fault and is raised.
    """
    try:
        yield from zip(batch, work(batch), strict=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        if len(batch) == 1:
            yield batch[0], error
            return
        for item in batch:
            yield from isolate_failures([item], work)


def out_of_memory(error: Exception) -> bool:
    """Whether the device or the host had no memory left for a call."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def release_memory(device: torch.device) -> None:
    """Return cached blocks to the device, so that a smaller attempt finds them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
