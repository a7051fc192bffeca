"""The blocks of an inference UNet in bfloat16 for the maps of a large picture on a CPU, by oneDNN's own operations.

- Maps are channels_last, which oneDNN convolves as they lie, and weights are kept in the order it wants for the side
  of their map: no call copies either to another layout.
- A nearest-neighbour doubling and the 3x3 convolution behind it are one transposed convolution of 4x4: 4 products for
  each pixel and pair of channels instead of 9.
- A skip connection is not concatenated: norms take their moments over both tensors, and a convolution of two tensors is
  the sum of one of each.
- A norm's affine and SiLU are one pass, a 1x1 convolution of each channel by itself. Its moments are sums of short
  strips in a fixed order: they depend on neither threads nor batch. PyTorch's channels_last norm does.

docs/engine.md has what each brings. These are the operations that PyTorch's compiler puts into what it makes for a CPU;
their names begin with an underscore.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.unet import AttentionBlock, Downsample, ResBlock, UNet, Upsample

ops = torch.ops.mkldnn

# Pixels of a strip, and numbers that a thread adds up at a time: what stays in its cache as float32.
STRIP, CHUNK = 512, 2**17


class PackedConv(nn.Module):
    """A convolution of a trained layer's weights; 1-d kernels become 1x1 ones.

    side: of the map it takes, pixels; maps of other sides are taken too, but slowly. parts: channels of each tensor,
    where it takes several. outputs: only so many channels are computed.
    """

    def __init__(
        self, layer: nn.Module, side: int, parts: Sequence[int] | None = None, outputs: int | None = None
    ) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv1d | nn.Conv2d)
        weight = (layer.weight if layer.weight.ndim == 4 else layer.weight[..., None])[:outputs]
        self.stride, self.padding = [layer.stride[0]] * 2, [int(layer.padding[0])] * 2
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias[:outputs]
        self.bias: Tensor
        self.register_buffer("bias", bias.float())
        self.weights = [
            ops._reorder_convolution_weight(
                part.contiguous(), self.padding, self.stride, [1, 1], 1, [1, part.shape[1], side, side]
            )
            for part in weight.to(torch.bfloat16).split(list(parts or [weight.shape[1]]), dim=1)
        ]

    def forward(self, *sources: Tensor) -> Tensor:
        """The convolution of the concatenation of the sources, each [B, channels, H, W]."""
        first, *further = sources
        y: Tensor = ops._convolution_pointwise(
            first, self.weights[0], self.bias, self.padding, self.stride, [1, 1], 1, "none", [], ""
        )
        for x, weight in zip(further, self.weights[1:], strict=True):
            self._add(y, x, weight, None)
        return y

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y, to which the convolution of x was added in place."""
        # oneDNN's sum takes the bias in the maps' number type only
        self._add(y, x, self.weights[0], self.bias.bfloat16())
        return y

    def _add(self, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        ops._convolution_pointwise_.binary(
            y, x, weight, bias, self.padding, self.stride, [1, 1], 1, "add", 1.0, None, [], None
        )


class PackedNorm(nn.Module):
    """A group norm, and a SiLU where one follows. Moments, and what they make of the affine, are float32 or better."""

    def __init__(self, norm: nn.Module, silu: bool) -> None:
        super().__init__()
        assert isinstance(norm, nn.GroupNorm)
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        self.weight: Tensor
        self.shift: Tensor
        self.register_buffer("weight", norm.weight.float()[None])
        self.register_buffer("shift", norm.bias.float()[None])

    def forward(self, x: Tensor) -> Tensor:
        (y,) = self.of_parts([x], self.weight, self.shift)
        return y

    def of_parts(self, sources: Sequence[Tensor], factor: Tensor, offset: Tensor) -> list[Tensor]:
        """The norm of the concatenation of the sources, in the same parts.

        factor, offset: [B or 1, channels] float32, the affine.
        """
        mean, square = torch.cat([moments(x) for x in sources], dim=2).unflatten(2, (self.groups, -1)).mean(3)
        deviation = (square - mean * mean).clamp_(min=0).add_(self.eps).sqrt_()
        size = factor.shape[1] // self.groups
        mean, deviation = (m.float().repeat_interleave(size, dim=1) for m in (mean, deviation))
        factor = (factor / deviation).bfloat16()
        offset = offset - factor.float() * mean
        widths = [x.shape[1] for x in sources]
        parts = zip(sources, factor.split(widths, 1), offset.split(widths, 1), strict=True)
        return [self._affine(*part) for part in parts]

    def _affine(self, x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
        """SiLU(x · factor + offset); the factor is rounded to bfloat16, the offset made for what it then is."""
        activation = "swish" if self.silu else "none"
        faces = [
            ops._convolution_pointwise(
                face, f[:, None, None, None], o, [0, 0], [1, 1], [1, 1], len(f), activation, [], ""
            )
            for face, f, o in zip(x.split(1), factor, offset, strict=True)
        ]
        return _together(faces)


class PackedResidual(nn.Module):
    """A ResBlock whose second norm, scale and shift are one affine, looked up. emb: [steps, channels]."""

    def __init__(self, block: ResBlock, emb: Tensor, side: int, parts: Sequence[int]) -> None:
        super().__init__()
        norm_in, _, conv_in = block.in_layers
        norm_out, _, _, conv_out = block.out_layers
        assert isinstance(norm_out, nn.GroupNorm)
        scale, shift = block.emb_layers(emb).chunk(2, dim=1)
        self.factor: Tensor
        self.offset: Tensor
        self.register_buffer("factor", norm_out.weight * (1 + scale))
        self.register_buffer("offset", norm_out.bias * (1 + scale) + shift)
        self.norm_in, self.norm_out = PackedNorm(norm_in, silu=True), PackedNorm(norm_out, silu=True)
        self.conv_in, self.conv_out = PackedConv(conv_in, side, parts), PackedConv(conv_out, side)
        skip = block.skip_connection
        self.skip = None if isinstance(skip, nn.Identity) else PackedConv(skip, side, parts)

    def forward(self, x: Tensor, rows: Tensor, skip: Tensor | None = None) -> Tensor:
        """rows: [B], of the tables. skip: further channels of x, of the skip connection."""
        sources = [x] if skip is None else [x, skip]
        h = self.conv_in(*self.norm_in.of_parts(sources, self.norm_in.weight, self.norm_in.shift))
        (h,) = self.norm_out.of_parts([h], self.factor[rows], self.offset[rows])
        if self.skip is None:
            out: Tensor = self.conv_out(h).add_(x)
            return out
        return self.conv_out.add_to(self.skip(*sources), h)


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Attention over the pixels, heads outermost: [B, 3 C, H, W], the projections → [B, C, H, W]."""
    b, channels, height, width = qkv.shape
    c = channels // 3
    parts = qkv.permute(0, 2, 3, 1).reshape(b, height * width, heads, 3, c // heads).permute(3, 0, 2, 1, 4)
    q, k, v = parts.contiguous()
    h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return h.reshape(b, height, width, c).permute(0, 3, 1, 2)


class PackedAttention(nn.Module):
    """An AttentionBlock over the pixels, its projections as 1x1 convolutions."""

    def __init__(self, block: AttentionBlock, side: int) -> None:
        super().__init__()
        self.heads, self.norm = block.heads, PackedNorm(block.norm, silu=False)
        self.qkv, self.proj = PackedConv(block.qkv, side), PackedConv(block.proj_out, side)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(attend(self.qkv(self.norm(x)), self.heads)).add_(x)
        return out


class PackedDoubled(nn.Module):
    """An Upsample: [B, C, H, W] → [B, C, 2 H, 2 W]."""

    def __init__(self, layer: Upsample, side: int) -> None:
        super().__init__()
        assert layer.conv.bias is not None
        self.bias: Tensor
        self.register_buffer("bias", layer.conv.bias.float())
        kernel = doubling_kernel(layer.conv.weight).to(torch.bfloat16).contiguous()
        shape = [1, len(kernel), side, side]
        self.weight = ops._reorder_convolution_transpose_weight(
            kernel, [1, 1], [0, 0], [2, 2], [1, 1], 1, shape
        )

    def forward(self, x: Tensor) -> Tensor:
        # one face at a time: in a call of several, the order of oneDNN's sums depends on threads
        return _together(
            [
                ops._convolution_transpose_pointwise(
                    face, self.weight, self.bias, [1, 1], [0, 0], [2, 2], [1, 1], 1, "none", [], ""
                )
                for face in x.split(1)
            ]
        )


def packed_blocks(unet: UNet, emb: Tensor) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
    """The blocks on the way down, in the middle and on the way up, each a list of layers."""
    side, width = unet.config.image_size, 0

    def layers(block: nn.Module) -> Iterator[nn.Module]:
        nonlocal side, width
        for layer in block.children():
            if isinstance(layer, ResBlock):
                _, _, conv = layer.in_layers
                assert isinstance(conv, nn.Conv2d)
                skip = conv.in_channels - width
                yield PackedResidual(layer, emb, side, [width, skip] if skip else [width])
                width = conv.out_channels
            elif isinstance(layer, AttentionBlock):
                yield PackedAttention(layer, side)
            elif isinstance(layer, Upsample):
                yield PackedDoubled(layer, side)
                side *= 2
            elif isinstance(layer, Downsample):
                yield PackedConv(layer.op, side)
                side //= 2
            else:
                assert isinstance(layer, nn.Conv2d)
                yield PackedConv(layer, side)
                width = layer.out_channels

    def packed(blocks: nn.Module) -> nn.ModuleList:
        return nn.ModuleList(nn.ModuleList(layers(block)) for block in blocks.children())

    return packed(unet.input_blocks), packed(nn.ModuleList([unet.middle_block])), packed(unet.output_blocks)


def doubling_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] of the convolution behind a doubling → [in, out, 4, 4] of the transposed convolution of both.

    Its stride is 2 and its padding 1. The doubling itself is the transposed convolution of 2x2 ones, and the kernel of
    both is the convolution of their kernels.
    """
    flipped = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    corners = [flipped[:, :, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).sum(0).transpose(0, 1)


def moments(x: Tensor) -> Tensor:
    """Mean and mean square of every channel: [B, C, H, W] channels_last → [2, B, C] float64.

    Two strips at least are added up at a time: with a single one, PyTorch may share its channels among threads, which
    changes the order of the sums.
    """
    b, c, height, width = x.shape
    pixels = math.gcd(height * width, 2 * STRIP) // 2 or 1
    strips = x.permute(0, 2, 3, 1).reshape(-1, pixels, c)
    together = max(CHUNK * torch.get_num_threads() // (pixels * c), 2)
    count = max(len(strips) // together, 1)
    sums = torch.empty(2, len(strips), c)
    for part, total, square in zip(
        strips.tensor_split(count), sums[0].tensor_split(count), sums[1].tensor_split(count), strict=True
    ):
        values = part.float()
        torch.sum(values, 1, out=total)
        torch.sum(values.square_(), 1, out=square)
    return sums.view(2, b, -1, c).sum(2, dtype=torch.float64) / (height * width)


def _together(faces: list[Tensor]) -> Tensor:
    """Tensors of one face each as one of all; a lone one is not copied."""
    return faces[0] if len(faces) == 1 else torch.cat(faces)
