"""Number types of the networks, and kernels that give the same bits in every run."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from pipeline.networks.unet import UNet


def fix_kernels(device: torch.device) -> None:
    """On a GPU, the same kernels every time, and float32 that is float32."""
    if device.type != "cpu":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def number_type(precision: str, on_cpu: bool) -> torch.dtype:
    """The number type that `--precision` means on this device.

    auto: on a GPU float16, which is as fast as bfloat16 and eight times as exact (docs/engine.md). On a CPU bfloat16
    where the hardware multiplies in it, with AMX (2.4 times as fast as float32) or AVX512_BF16 (1.7 times); without
    such units bfloat16 can be many times slower, and it is float32.
    """
    if precision == "auto":
        if not on_cpu:
            return torch.float16
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def multiplies_bfloat16() -> bool:
    """Whether this processor has units that multiply in bfloat16."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def in_precision(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The network, its matrix products and convolutions in `dtype`; in float32 where it says that it needs that."""
    if dtype == torch.float32 or getattr(network, "needs_float32", False):
        return network

    def call(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            y: Tensor = network(x)
        return y

    return call


def as_official(unet: UNet, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    """The UNet as the official program calls it: eager, in float32, or with the convolutions of its blocks in `dtype`.

    The timestep embedding, norms and the last layer stay in float32. The UNet is not changed.
    """
    if dtype == torch.float32:
        return unet
    half = deepcopy(unet)
    for blocks in (half.input_blocks, half.middle_block, half.output_blocks):
        for module in blocks.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.to(dtype)

    def call(x: Tensor, t: Tensor) -> Tensor:
        eps: Tensor = half(x.to(dtype), t)
        return eps

    return call
