"""The inference network of a trained UNet: the same function of (x, t), arranged for speed.

- What the timestep alone decides (sinusoids, embedding, every block's scale and shift) is computed once for each
  step of the schedule and looked up.
- Only ε is computed; the published checkpoints also predict a variance, which no sampler here uses.
- The scale and shift that follow the second norm of a block are folded into its affine.
- On a CPU, convolutions go to oneDNN directly. torch.nn.functional.conv2d chooses between kernels by batch size and
  number of threads, and those round differently; oneDNN's own results were found to depend on neither.
- On a GPU everything is channels_last. Not on a CPU, where its group norm is less exact and depends on threads.
- On a CPU that multiplies in bfloat16, networks of large maps take that number type in a form of their own
  (`packed_unet.py`).
- Its norms come in two forms. "eager" is PyTorch's operations, and the reference. "triton" (`triton_norms.py`) takes
  norm, affine and SiLU in two passes, reads a skip connection in place, where the eager form concatenates, and adds the
  biases of a block's convolutions with its norm and its residual.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.packed_unet import PackedConv, PackedNorm, PackedResidual, attend, packed_blocks
from pipeline.networks.precision import multiplies_bfloat16
from pipeline.networks.unet import (
    AttentionBlock,
    Downsample,
    ResBlock,
    UNet,
    Upsample,
    timestep_embedding,
)

Norms = Literal["eager", "triton"]

# Least side of the first level's maps for `packed_unet.py`; smaller ones gain little, or lose with several threads.
PACKED_SIDE = 256


class InferenceUNet(nn.Module):
    """ε(x, t) of a UNet at the timesteps it was made for.

    steps: those timesteps, original step numbers. precision: number type of weights and activations; norms' statistics,
    the input and the result are float32. norms: see above; Triton's need a CUDA device or its interpreter, and raise
    ValueError elsewhere. The UNet is not changed and not kept.
    """

    def __init__(
        self,
        unet: UNet,
        steps: Sequence[int],
        precision: torch.dtype = torch.float32,
        norms: Norms = "eager",
    ) -> None:
        super().__init__()
        device = next(unet.parameters()).device
        if norms == "triton":
            _register_triton_norms(device)
        self.precision = precision
        self.patch = unet.config.patch
        packed = (
            norms == "eager"
            and device.type == "cpu"
            and precision == torch.bfloat16
            and multiplies_bfloat16()
            and unet.config.image_size >= PACKED_SIDE
        )
        by_channel = device.type == "cuda" or norms == "triton" or packed
        self.layout = torch.channels_last if by_channel else torch.contiguous_format
        self.row_of: Tensor
        row_of = torch.zeros(max(steps) + 1, dtype=torch.int64, device=device)
        row_of[list(steps)] = torch.arange(len(steps), device=device)
        self.register_buffer("row_of", row_of)
        with torch.no_grad():
            sinusoids = timestep_embedding(torch.tensor(steps, device=device), unet.config.model_channels)
            emb = unet.time_embed(sinusoids)

            def converted(blocks: nn.Module) -> nn.ModuleList:
                return nn.ModuleList(
                    nn.ModuleList(
                        _inference_layer(layer, emb, precision, norms) for layer in block.children()
                    )
                    for block in blocks.children()
                )

            norm, _, last = unet.out
            # a pixel-shuffle makes each channel of p² neighbouring ones: ε's are the first
            outputs = 3 * self.patch**2
            self.norm: Norm | PackedNorm
            self.last: Conv | PackedConv
            if packed:
                self.down, self.middle, self.up = packed_blocks(unet, emb)
                self.norm = PackedNorm(norm, silu=True)
                self.last = PackedConv(last, unet.config.image_size, outputs=outputs)
            else:
                self.down, self.up = converted(unet.input_blocks), converted(unet.output_blocks)
                self.middle = converted(nn.ModuleList([unet.middle_block]))
                self.norm = _norm(norm, precision, norms, silu=True)
                self.last = Conv(last, precision, outputs=outputs)
        self.to(memory_format=self.layout)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: [B, 3, H, W] float32; t: [B] int64, among its timesteps. Returns ε, [B, 3, H, W] float32."""
        rows = self.row_of[t]
        h = F.pixel_unshuffle(x, self.patch).to(self.precision, memory_format=self.layout)
        skips = []
        for block in self.down:
            h = _through(block, h, rows)
            skips.append(h)
        for block in self.middle:
            h = _through(block, h, rows)
        for block in self.up:
            h = _through(block, h, rows, skips.pop())
        eps = F.pixel_shuffle(self.last(self.norm(h)), self.patch)
        return eps.to(torch.float32, memory_format=torch.contiguous_format)


class Conv(nn.Module):
    """A convolution of a trained layer's weights; 1-d kernels become 1x1 ones.

    On a CPU that does not convolve in the number type the weights are rounded to it all the same, and float32 computes.
    outputs: only so many channels are computed. scale: [channels, 1, 1], what they are multiplied by.
    """

    def __init__(
        self,
        layer: nn.Module,
        precision: torch.dtype,
        outputs: int | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv1d | nn.Conv2d)
        weight = layer.weight if layer.weight.ndim == 4 else layer.weight[..., None]
        bias = layer.bias if layer.bias is not None else weight.new_zeros(len(weight))
        if scale is not None:
            weight, bias = weight * scale[:, None], bias * scale.flatten()
        self.direct = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        self.inner = torch.float32 if self.direct and not _onednn_takes(precision) else precision
        self.weight = nn.Parameter(weight[:outputs].to(precision).to(self.inner, copy=True))
        self.bias = nn.Parameter(bias[:outputs].to(precision).to(self.inner, copy=True))
        self.stride, self.padding = [layer.stride[0]] * 2, [int(layer.padding[0])] * 2
        self.groups = layer.groups

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.bias)

    def without_bias(self, x: Tensor) -> Tensor:
        """The convolution alone, for a caller that adds the bias with something else."""
        return self._convolve(x, self.weight, None)

    def of_part(self, x: Tensor, first: int) -> Tensor:
        """The convolution alone, of the input's channels from `first` on; the parts of an input add up to its own."""
        return self._convolve(x, self.weight[:, first : first + x.shape[1]], None)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.direct:
            y: Tensor = torch.mkldnn_convolution(
                x.to(self.inner), weight, bias, self.padding, self.stride, [1, 1], self.groups
            )
            return y.to(x.dtype)
        return F.conv2d(x, weight, bias, self.stride, self.padding, groups=self.groups)


class Norm(nn.Module):
    """A group norm, and a SiLU where one follows; statistics in float32 whatever the number type."""

    def __init__(self, norm: nn.Module, precision: torch.dtype, silu: bool = False) -> None:
        super().__init__()
        assert isinstance(norm, nn.GroupNorm)
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        self.weight = nn.Parameter(norm.weight.to(precision, copy=True))
        self.bias = nn.Parameter(norm.bias.to(precision, copy=True))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """skip: further channels."""
        h = F.group_norm(_joined(x, skip), self.groups, self.weight, self.bias, self.eps)
        return F.silu(h, inplace=True) if self.silu else h


class TritonNorm(Norm):
    """A Norm by Triton kernels, which read a skip connection where it is."""

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        y: Tensor = torch.ops.difface.group_norm(
            x, skip, self.weight, self.bias, None, None, self.groups, self.eps, self.silu
        )
        return y


class Residual(nn.Module):
    """A ResBlock whose second norm, scale and shift are one looked-up product and sum."""

    def __init__(self, block: ResBlock, emb: Tensor, precision: torch.dtype, norms: Norms) -> None:
        super().__init__()
        scale, shift = block.emb_layers(emb).chunk(2, dim=1)
        norm_in, _, conv_in = block.in_layers
        norm_out, _, _, conv_out = block.out_layers
        assert isinstance(norm_out, nn.GroupNorm)
        self.factor: Tensor
        self.offset: Tensor
        self.register_buffer("factor", (norm_out.weight * (1 + scale)).to(precision)[:, :, None, None])
        self.register_buffer("offset", (norm_out.bias * (1 + scale) + shift).to(precision)[:, :, None, None])
        self.groups, self.eps = norm_out.num_groups, norm_out.eps
        self.norm_in = _norm(norm_in, precision, norms, silu=True)
        self.conv_in = Conv(conv_in, precision)
        self.conv_out = Conv(conv_out, precision)
        skip = block.skip_connection
        self.skip = skip if isinstance(skip, nn.Identity) else Conv(skip, precision)

    def forward(self, x: Tensor, rows: Tensor, skip: Tensor | None = None) -> Tensor:
        """rows: [B], of the tables. skip: further channels of x, of the skip connection."""
        x = _joined(x, skip)
        h = self.conv_in(self.norm_in(x))
        h = F.group_norm(h, self.groups, eps=self.eps)
        h = torch.addcmul(self.offset[rows], h, self.factor[rows])
        h = self.conv_out(F.silu(h, inplace=True))
        out: Tensor = h.add_(self.skip(x))
        return out


class TritonResidual(Residual):
    """A Residual by Triton kernels.

    Its convolutions leave their biases to them: that of the first is added in the second norm, the others' sum with the
    residual. The 1x1 convolution of two sources is the sum of one of each.
    """

    def __init__(self, block: ResBlock, emb: Tensor, precision: torch.dtype) -> None:
        super().__init__(block, emb, precision, "triton")
        self.bias: Tensor
        skip_bias = self.skip.bias.float() if isinstance(self.skip, Conv) else 0
        self.register_buffer("bias", self.conv_out.bias.float() + skip_bias)

    def forward(self, x: Tensor, rows: Tensor, skip: Tensor | None = None) -> Tensor:
        h = self.conv_in.without_bias(self.norm_in(x, skip))
        h = torch.ops.difface.group_norm(
            h,
            None,
            self.factor[:, :, 0, 0],
            self.offset[:, :, 0, 0],
            rows,
            self.conv_in.bias,
            self.groups,
            self.eps,
            True,
        )
        h = self.conv_out.without_bias(h)
        parts = self._skipped(x, skip)
        out: Tensor = torch.ops.difface.add_biased(
            h, parts[0], parts[1] if len(parts) > 1 else None, self.bias
        )
        return out

    def _skipped(self, x: Tensor, skip: Tensor | None) -> list[Tensor]:
        """What is added to the convolutions' result, but for biases: one tensor, or one of each source."""
        if not isinstance(self.skip, Conv):
            return [_joined(x, skip)]
        if skip is None:
            return [self.skip.without_bias(x)]
        return [self.skip.of_part(x, 0), self.skip.of_part(skip, x.shape[1])]


class Attention(nn.Module):
    """An AttentionBlock over the pixels, its projections as 1x1 convolutions."""

    def __init__(self, block: AttentionBlock, precision: torch.dtype, norms: Norms) -> None:
        super().__init__()
        self.heads, self.norm = block.heads, _norm(block.norm, precision, norms, silu=False)
        self.qkv, self.proj = Conv(block.qkv, precision), Conv(block.proj_out, precision)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.proj(attend(self.qkv(self.norm(x)), self.heads))
        return out


class Doubled(nn.Module):
    """An Upsample: [B, C, H, W] → [B, C, 2 H, 2 W]."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y


def _onednn_takes(precision: torch.dtype) -> bool:
    """Whether this processor's oneDNN convolves in the number type."""
    if precision == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return precision == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _register_triton_norms(device: torch.device) -> None:
    """Make torch.ops.difface. Raises ValueError where its kernels do not run."""
    try:
        from pipeline.networks import triton_norms
    except ImportError as error:
        raise ValueError(f'norms="triton" needs the package triton ({error}); take "eager"') from error
    if device.type != "cuda" and not triton_norms.INTERPRETED:
        raise ValueError(
            f'norms="triton" needs a CUDA device or TRITON_INTERPRET=1, got {device}; take "eager"'
        )


def _norm(norm: nn.Module, precision: torch.dtype, norms: Norms, silu: bool) -> Norm:
    return (TritonNorm if norms == "triton" else Norm)(norm, precision, silu)


def _joined(x: Tensor, skip: Tensor | None) -> Tensor:
    """[B, C1, H, W] and [B, C2, H, W] or None → [B, C1 + C2, H, W]."""
    return x if skip is None else torch.cat([x, skip], dim=1)


def _inference_layer(layer: nn.Module, emb: Tensor, precision: torch.dtype, norms: Norms) -> nn.Module:
    """One layer of the UNet, arranged for inference. emb: [steps, channels] timestep embeddings."""
    if isinstance(layer, ResBlock):
        if norms == "triton":
            return TritonResidual(layer, emb, precision)
        return Residual(layer, emb, precision, norms)
    if isinstance(layer, AttentionBlock):
        return Attention(layer, precision, norms)
    if isinstance(layer, Upsample):
        return Doubled(Conv(layer.conv, precision))
    return Conv(layer.op if isinstance(layer, Downsample) else layer, precision)


def _through(block: nn.Module, h: Tensor, rows: Tensor, skip: Tensor | None = None) -> Tensor:
    """A block's layers in turn; its first, which then is a Residual, also takes the skip connection."""
    for layer in block.children():
        h, skip = (layer(h, rows, skip) if isinstance(layer, Residual | PackedResidual) else layer(h)), None
    return h
