"""Which calls of a network change no bit of any face: fewer faces and more threads on a CPU, any slot on a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CallShapes:
    """Which network calls give a face the same bits as a full batch in one thread does."""

    # batches of fewer faces
    partial: bool = False
    # threads that may share a call
    threads: int = 1


def find_call_shapes(call: Callable[[int], Tensor], batch: int, threads: int) -> CallShapes:
    """The call shapes that agree bit for bit with a call of `batch` faces in one thread, on this CPU.

    call: n → the network's output for the first n of the same random faces, [n, ...]. A kernel is chosen by shapes and
    threads, never by values: a call shape that agrees on random faces always does. Restores the calling thread's number
    of threads.
    """
    power_of_two = 1 << (threads.bit_length() - 1)

    def agree(counts: Sequence[int], threads: int) -> bool:
        torch.set_num_threads(threads)
        return all(torch.equal(call(n), full[:n]) for n in counts)

    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            full = call(batch)
            partial = agree(range(1, batch), 1)
            counts = range(1, batch + 1) if partial else [batch]
            shared = power_of_two > 1 and agree(counts, power_of_two)
            return CallShapes(partial, power_of_two if shared else 1)
    finally:
        torch.set_num_threads(before)


def slots_agree(call: Callable[[Tensor], Tensor], batch: int, shape: Sequence[int]) -> bool:
    """Whether a face has the same bits in every slot of a call of `batch` faces, beside whatever others.

    call: [batch, *shape] float32 → the network's output, a row per face. A library may choose a kernel that divides the
    sum of one face otherwise than that of the next; it chooses by shapes, so that one test of a shape settles it.
    """
    faces = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first = call(faces)[0]
        everywhere = call(faces[:1].expand(batch, *shape).contiguous())
        return bool(torch.equal(everywhere, first.expand_as(everywhere)))
