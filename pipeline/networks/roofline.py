"""What a network call costs at least on this machine: work counted by tools, ceilings measured.

Counted are operations as eager PyTorch runs them, one kernel each that reads its inputs and writes its outputs once. An
operation takes at least the larger of its FLOPs over the matmul ceiling and its bytes over the copy ceiling, and a call
the sum over its operations. Fused kernels move fewer bytes and can go below.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.presets import NetworkSpec, build
from pipeline.networks.unet import UNet

# Classes of operations by their names in ATen; every other operation is elementwise.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "convolution": ("convolution",),
    "matmul and attention": (
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "_softmax",
        "_safe_softmax",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    ),
    "normalisation": ("native_group_norm", "native_layer_norm"),
    "elementwise": (),
    "copies": (
        "_to_copy",
        "copy_",
        "clone",
        "cat",
        "index",
        "embedding",
        "pixel_shuffle",
        "pixel_unshuffle",
        "upsample_nearest2d",
    ),
}
_CLASS_OF = {operation: kind for kind, operations in CLASSES.items() for operation in operations}


@dataclass(frozen=True)
class Ceilings:
    """The best this machine does, in FLOPs and bytes a second."""

    matmul: float
    copy: float


@dataclass(frozen=True)
class Operation:
    """One operation: its class, FLOPs (2 x MAC), and the bytes that it reads and writes."""

    kind: str
    flops: float
    bytes: float

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds that it takes at least."""
        return max(self.flops / ceilings.matmul, self.bytes / ceilings.copy)


@dataclass(frozen=True)
class CallCost:
    """One call of a network, by its operations."""

    operations: tuple[Operation, ...]

    @property
    def flops(self) -> float:
        return sum(one.flops for one in self.operations)

    @property
    def bytes(self) -> float:
        return sum(one.bytes for one in self.operations)

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds that eager kernels take at least, one after the other."""
        return sum(one.floor(ceilings) for one in self.operations)

    def fused_floor(self, ceilings: Ceilings) -> float:
        """Seconds where the arithmetic of some operations overlaps with the movement of others, as in fused kernels."""
        return max(self.flops / ceilings.matmul, self.bytes / ceilings.copy)

    def shares(self, ceilings: Ceilings) -> dict[str, float]:
        """Share of `floor` by class of operations."""
        seconds = dict.fromkeys(CLASSES, 0.0)
        for one in self.operations:
            seconds[one.kind] += one.floor(ceilings)
        total = self.floor(ceilings)
        return {kind: spent / total for kind, spent in seconds.items()}


class _Operations(TorchDispatchMode):
    """Collects the operations that run, but for those that only give a tensor another shape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not (func.is_view or name == "_unsafe_view"):
            count = flop_registry.get(func.overloadpacket)
            flops = float(count(*args, **kwargs, out_val=result)) if count else 0.0
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            moved = float(sum(t.numel() * t.element_size() for t in tensors))
            self.found.append(Operation(_CLASS_OF.get(name, "elementwise"), flops, moved))
        return result


def count(network: Callable[..., object], *inputs: Tensor) -> CallCost:
    """The cost of one call; on the meta device nothing is computed."""
    operations = _Operations()
    with torch.no_grad(), operations:
        network(*inputs)
    return CallCost(tuple(operations.found))


def count_call(prior: NetworkSpec, side: int, precision: torch.dtype, faces: int = 1) -> CallCost:
    """The cost of one call of the prior's inference network, counted on shapes alone."""
    with torch.device("meta"):
        unet = build(prior)
        assert isinstance(unet, UNet)
        network = InferenceUNet(unet, [0], precision)
        inputs = torch.empty(faces, 3, side, side), torch.empty(faces, dtype=torch.int64)
    return count(network, *inputs)


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
