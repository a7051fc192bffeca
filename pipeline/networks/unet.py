"""The noise-prediction UNet of improved DDPM, with the state-dict names of the published checkpoints.

Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672); the
configuration that DifFace trained is in `presets.py`.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a UNet. `num_res_blocks` has one entry per entry of `channel_mult`."""

    # side of the square image, pixels; where there is a patch, that of the image divided by it
    image_size: int
    # channels of the first level; every other level is a multiple of it
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    # sides, counted from image_size, at which self-attention is applied
    attention_resolutions: tuple[int, ...]
    num_head_channels: int = 64
    in_channels: int = 3
    # 3 predicts noise only; 6 predicts noise and a variance that DDIM does not use
    out_channels: int = 6
    dropout: float = 0.0
    # factor of a pixel-unshuffle around the network, which then works on patch**2 times the channels at a patch-th of
    # the side; 1 is the published layout
    patch: int = 1

    def __post_init__(self) -> None:
        if len(self.num_res_blocks) != len(self.channel_mult):
            raise ValueError(
                f"num_res_blocks must have one entry per level: wanted {len(self.channel_mult)} "
                f"(channel_mult={self.channel_mult}), got {self.num_res_blocks}"
            )
        if self.model_channels % 32:
            raise ValueError(
                f"model_channels must be a multiple of the 32 groups of the norms, got {self.model_channels}"
            )
        if self.patch < 1:
            raise ValueError(f"patch must be at least 1, got {self.patch}")
        for width in self._attention_widths():
            if width % self.num_head_channels:
                raise ValueError(
                    "num_head_channels must divide every width that has attention, "
                    f"got {self.num_head_channels} and a width of {width}"
                )
        if self.image_size % 2 ** (len(self.channel_mult) - 1):
            raise ValueError(
                f"image_size must halve evenly {len(self.channel_mult) - 1} times, got {self.image_size}"
            )

    def _attention_widths(self) -> list[int]:
        widths = [m * self.model_channels for m in self.channel_mult]
        inner = [w for i, w in enumerate(widths) if self.image_size >> i in self.attention_resolutions]
        return [*inner, widths[-1]]  # the middle block always attends


class UNet(nn.Module):
    """ε(x, t): noise prediction of a diffusion model."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        ch = config.model_channels
        emb = 4 * ch
        self.time_embed = nn.Sequential(nn.Linear(ch, emb), nn.SiLU(), nn.Linear(emb, emb))

        def level(in_ch: int, out_ch: int, side: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResBlock(in_ch, emb, out_ch, config.dropout)]
            if side in config.attention_resolutions:
                layers.append(AttentionBlock(out_ch, config.num_head_channels))
            return layers

        side, area = config.image_size, config.patch**2
        width = ch * config.channel_mult[0]
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(config.in_channels * area, width, 3, padding=1))])
        skips = [width]
        last = len(config.channel_mult) - 1
        for i, (mult, blocks) in enumerate(zip(config.channel_mult, config.num_res_blocks, strict=True)):
            for _ in range(blocks):
                self.input_blocks.append(Block(*level(width, ch * mult, side)))
                width = ch * mult
                skips.append(width)
            if i != last:
                self.input_blocks.append(Block(Downsample(width)))
                skips.append(width)
                side //= 2

        self.middle_block = Block(
            ResBlock(width, emb, width, config.dropout),
            AttentionBlock(width, config.num_head_channels),
            ResBlock(width, emb, width, config.dropout),
        )

        self.output_blocks = nn.ModuleList()
        for i in reversed(range(last + 1)):
            for j in range(config.num_res_blocks[i] + 1):
                layers = level(width + skips.pop(), ch * config.channel_mult[i], side)
                width = ch * config.channel_mult[i]
                if i and j == config.num_res_blocks[i]:
                    layers.append(Upsample(width))
                    side *= 2
                self.output_blocks.append(Block(*layers))

        self.out = nn.Sequential(
            GroupNorm32(width), nn.SiLU(), zeroed(nn.Conv2d(width, config.out_channels * area, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] float32 in [-1, 1] plus noise; t: [B] int64 original step numbers (0..T-1).

        Returns [B, out_channels, H, W], float32 outside autocast; the first three channels are ε.
        """
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels))
        skips = []
        h = F.pixel_unshuffle(x, self.config.patch)
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        # under autocast h is 16 bit here; the output's norm takes float32, as in the official half-precision mode
        return F.pixel_shuffle(self.out(h.float()), self.config.patch)


class Block(nn.Sequential):
    """A sequence whose residual blocks also receive the timestep embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]  # takes one input more
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    """Two convolutions with a scale-shift conditioned second norm (FiLM) and a skip."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x)
        scale, shift = self.emb_layers(emb).to(h.dtype)[:, :, None, None].chunk(2, dim=1)
        norm, *rest = self.out_layers
        h = norm(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        out: Tensor = self.skip_connection(x) + h
        return out


class AttentionBlock(nn.Module):
    """Self-attention over pixels; qkv in the legacy order (heads outermost, then q, k, v)."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, *spatial = x.shape
        flat = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(flat)).reshape(b, self.heads, 3, c // self.heads, -1)
        q, k, v = qkv.transpose(-1, -2).unbind(2)  # [B, heads, pixels, head_channels]
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, -1)
        out: Tensor = flat + self.proj_out(h)
        return out.reshape(b, c, *spatial)


class Downsample(nn.Module):
    """Halves both sides with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.op(x)
        return y


class Upsample(nn.Module):
    """Doubles both sides by nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y


class GroupNorm32(nn.GroupNorm):
    """32 groups, statistics in float32 whatever the input's type."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)
        return y.to(x.dtype)


def timestep_embedding(t: Tensor, dim: int, max_period: int = 10_000) -> Tensor:
    """[B] step numbers → [B, dim] float32 sinusoids, cosines first."""
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * freqs[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zeroed(module: M) -> M:
    """The same module with parameters at 0, so that a residual branch starts as the identity."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module
