"""What a network call costs at least on this machine: work counted by tools, ceilings measured.

The floor of a call is the larger of FLOPs over the matmul ceiling and bytes over the copy ceiling. Bytes are those of
eager kernels, each reading its inputs and writing its outputs once, attention's too; fused kernels can go below.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.presets import NetworkSpec, build
from pipeline.networks.unet import UNet

# Operations that only give a tensor another shape.
_VIEWS = (
    "view",
    "permute",
    "transpose",
    "slice",
    "split",
    "unbind",
    "select",
    "expand",
    "detach",
    "as_strided",
)


@dataclass(frozen=True)
class Ceilings:
    """The best this machine does, in FLOPs and bytes a second."""

    matmul: float
    copy: float


@dataclass(frozen=True)
class CallCost:
    """One call of the prior with one face: FLOPs (2 x MAC), and bytes that eager kernels move."""

    flops: float
    bytes: float

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds below which the call can not come."""
        return max(self.flops / ceilings.matmul, self.bytes / ceilings.copy)


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(func.__name__.startswith(name) for name in _VIEWS):
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return result


def count_call(prior: NetworkSpec, side: int, precision: torch.dtype) -> CallCost:
    """The cost of the prior's inference network, counted on shapes alone."""
    with torch.device("meta"):
        unet = build(prior)
        assert isinstance(unet, UNet)
        network = InferenceUNet(unet, [0], precision)
        inputs = torch.empty(1, 3, side, side), torch.empty(1, dtype=torch.int64)
    flops, traffic = FlopCounterMode(display=False), _Traffic()
    with torch.no_grad():
        with flops:
            network(*inputs)
        with traffic:
            network(*inputs)
    return CallCost(float(flops.get_total_flops()), float(traffic.bytes))


def measure_ceilings(device: str, precision: torch.dtype, seconds: float = 1.0) -> Ceilings:
    """Large matrix products and large copies, for about `seconds` each."""
    side, count = (2048, 2**26) if device == "cpu" else (8192, 2**30)
    a = torch.randn(side, side, device=device).to(precision)
    out = torch.empty_like(a)
    source = torch.ones(count // 4, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        products = rate(lambda: torch.mm(a, a, out=out), device, seconds)
        copies = rate(lambda: target.copy_(source), device, seconds)
    return Ceilings(matmul=2 * side**3 * products, copy=2 * source.nbytes * copies)


def rate(work: Callable[[], object], device: str, seconds: float) -> float:
    """How often a second `work` is done, over about `seconds`."""

    def settled() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    work()
    settled()
    began, done, spent = time.perf_counter(), 0, 0.0
    while not done or spent < seconds:
        work()
        settled()
        done, spent = done + 1, time.perf_counter() - began
    return done / spent
