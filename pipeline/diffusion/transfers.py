"""Host to device and back: without waiting for the device, through pinned memory where it is a GPU."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.difface import from_signed


class Readback:
    """The pictures of a finished face on their way to the host.

    estimated: [3, S, S] float32 in [0, 1]; x: [3, S, S] float32, the end of the chain in [-1, 1].
    """

    def __init__(self, estimated: Tensor, x: Tensor) -> None:
        finite = torch.isfinite(x).all()
        pictures = torch.stack([to_bytes(estimated), to_bytes(from_signed(x))])
        self._arrival: torch.cuda.Event | None = None
        if x.is_cuda:
            self._finite, self._pictures = _to_pinned(finite), _to_pinned(pictures)
            self._arrival = torch.cuda.Event()
            self._arrival.record()
        else:
            self._finite, self._pictures = finite, pictures

    def arrived(self) -> bool:
        """Whether `pictures` returns without waiting."""
        return self._arrival is None or self._arrival.query()

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """(estimated, restored), [S, S, 3] uint8 RGB each; None when the chain is not finite. Waits for them."""
        if self._arrival is not None:
            self._arrival.synchronize()
        if not bool(self._finite):
            return None
        estimated, restored = self._pictures.numpy()
        return estimated, restored


class StepInputs:
    """Host copies of a step's inputs on the device, pinned on a GPU.

    Two taken in turn let the host run at most two steps ahead.
    """

    def __init__(self, *on_device: Tensor) -> None:
        self._on_device = on_device
        on_gpu = on_device[0].is_cuda
        self._on_host = [tensor.cpu().pin_memory() if on_gpu else tensor.clone() for tensor in on_device]
        self._sent = torch.cuda.Event() if on_gpu else None

    def send(self, slots: list[int], *values: Tensor, whole: Tensor) -> None:
        """Rows of each tensor for these slots, the other slots keep what they have; the last tensor as a whole."""
        if self._sent is not None:
            self._sent.synchronize()
        for host, rows in zip(self._on_host[:-1], values, strict=True):
            host[slots] = rows
        self._on_host[-1].copy_(whole)
        for host, device in zip(self._on_host, self._on_device, strict=True):
            device.copy_(host, non_blocking=True)
        if self._sent is not None:
            self._sent.record()


def to_bytes(image: Tensor) -> Tensor:
    """[3, S, S] float32 in [0, 1] → [S, S, 3] uint8, rounded."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for the device."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)


def _to_pinned(value: Tensor) -> Tensor:
    """A copy in pinned host memory, complete when the stream reaches it."""
    return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
