"""What is done about a call that raises: out of memory is recognised, and of a batch only the face at fault fails."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

# What messages of exhausted memory contain.
NO_MEMORY = (
    "out of memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What messages of an error contain that every later call of the process repeats.
LOST = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ECC error",
    "CUDA error: unknown error",
)

G = TypeVar("G")
T = TypeVar("T")


def isolate_failures(
    batch: Sequence[G], work: Callable[[Sequence[G]], Sequence[T]]
) -> Iterator[tuple[G, T | Exception]]:
    """Each item of the batch with its result; where `work` raises, each is tried alone and gets its own error.

    Out of memory and a lost device are no item's fault and are raised.
    """
    try:
        yield from zip(batch, work(batch), strict=True)
    except Exception as error:
        if out_of_memory(error) or device_lost(error):
            raise
        if len(batch) == 1:
            yield batch[0], error
            return
        for item in batch:
            yield from isolate_failures([item], work)


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had no memory left for a call.

    Libraries below PyTorch report it as errors of other types: cuBLAS, cuDNN, and the driver at a capture.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in NO_MEMORY)


def device_lost(error: BaseException) -> bool:
    """Whether no further call of this process can succeed on its device: such an error of CUDA stays for good."""
    if out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)


def release_memory(device: torch.device) -> None:
    """Return cached blocks to the device, so that a smaller attempt finds them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
