"""NAFNet as an estimator, with the state-dict names of its published layout.

A UNet of blocks without activation functions: halves of the channels multiply each other instead. The input is added
to what the network computes. Dropout, which no published restoration network uses, is left out.

With `unknown_channels` the network fills holes and gives colours: further channels say what is unknown, and its holes
are first filled from around them, so that the correction has something to correct.

Source: Chen et al., "Simple Baselines for Image Restoration" (arXiv 2204.04676).
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class NAFNetConfig:
    """Shape of the estimator. Every entry of `enc_blk_nums` halves the side, every one of `dec_blk_nums` doubles it."""

    # channels of the first level; each halving doubles them
    width: int
    # blocks at the smallest size
    middle_blk_num: int
    # blocks of each level on the way down, and on the way up
    enc_blk_nums: tuple[int, ...]
    dec_blk_nums: tuple[int, ...]
    # channels of a picture
    img_channel: int = 3
    # factor of a pixel-unshuffle around the network, which then works on img_channel * patch**2 channels;
    # 1 is the published layout
    patch: int = 1
    # channels behind those of the picture: the first is 1 in its holes, the second where its colours are unknown
    unknown_channels: int = 0

    def __post_init__(self) -> None:
        if not self.enc_blk_nums or len(self.enc_blk_nums) != len(self.dec_blk_nums):
            raise ValueError(
                "enc_blk_nums and dec_blk_nums must have one entry per level, "
                f"got {self.enc_blk_nums} and {self.dec_blk_nums}"
            )
        if min(self.width, self.img_channel, self.patch) < 1:
            raise ValueError(
                "width, img_channel and patch must be at least 1, "
                f"got {self.width}, {self.img_channel} and {self.patch}"
            )
        if self.unknown_channels not in (0, 1, 2):
            raise ValueError(f"unknown_channels must be 0, 1 or 2, got {self.unknown_channels}")
        if min(self.middle_blk_num, *self.enc_blk_nums, *self.dec_blk_nums) < 0:
            raise ValueError(
                "numbers of blocks can not be negative, "
                f"got {self.enc_blk_nums}, {self.middle_blk_num} and {self.dec_blk_nums}"
            )

    @property
    def multiple(self) -> int:
        """What the sides of a picture are padded to a multiple of."""
        return int(self.patch * 2 ** len(self.enc_blk_nums))


class NAFNet(nn.Module):
    """[B, 3 + unknown_channels, H, W] float32 in [0, 1] → [B, 3, H, W]: the picture and a correction, not clamped.

    A new network's correction is 0.
    """

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, width = config.img_channel * config.patch**2, config.width
        unknown = config.unknown_channels * config.patch**2
        self.intro = nn.Conv2d(channels + unknown, width, 3, padding=1)
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        self.ups, self.downs = nn.ModuleList(), nn.ModuleList()
        for blocks in config.enc_blk_nums:
            self.encoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(width) for _ in range(config.middle_blk_num)))
        for blocks in config.dec_blk_nums:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
        nn.init.zeros_(self.ending.weight)
        assert self.ending.bias is not None
        nn.init.zeros_(self.ending.bias)

    def forward(self, y: Tensor) -> Tensor:
        height, width = y.shape[2:]
        padded = pad_to(with_holes_filled(y, self.config), self.config.multiple)
        x = self.intro(F.pixel_unshuffle(padded, self.config.patch))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        correction = F.pixel_shuffle(self.ending(x), self.config.patch)
        return (padded[:, : self.config.img_channel] + correction)[:, :, :height, :width]


class NAFBlock(nn.Module):
    """Two residual branches: a depthwise convolution with channel attention, and a pixel-wise product of halves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        twice = 2 * channels
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, twice, 1)
        self.conv2 = nn.Conv2d(twice, twice, 3, padding=1, groups=twice)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, twice, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = gated(self.conv2(self.conv1(self.norm1(x))))
        h = self.conv3(h * self.sca(h))
        # the branches stay in the number type that autocast gives the convolutions
        x = x + h * self.beta.to(h.dtype)
        h = self.conv5(gated(self.conv4(self.norm2(x))))
        out: Tensor = x + h * self.gamma.to(h.dtype)
        return out


class LayerNorm2d(nn.Module):
    """A layer norm over the channels of each pixel; its statistics are float32 whatever the input's type."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        # On a GPU autocast would copy every activation to float32 for a norm that does not need it.
        has_autocast = torch.amp.is_autocast_available(x.device.type)
        with torch.autocast(x.device.type, enabled=False) if has_autocast else nullcontext():
            y = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, self.eps)
        return y.permute(0, 3, 1, 2)


def gated(x: Tensor) -> Tensor:
    """The product of the two halves of the channels."""
    one, other = x.chunk(2, dim=1)
    return one * other


def pad_to(y: Tensor, multiple: int) -> Tensor:
    """[B, C, H, W], below and at the right filled up with zeros to sides that are multiples."""
    height, width = y.shape[2:]
    missing = -height % multiple, -width % multiple
    return F.pad(y, (0, missing[1], 0, missing[0])) if any(missing) else y


def with_holes_filled(y: Tensor, config: NAFNetConfig) -> Tensor:
    """A network's input with the holes of its picture, if it may have any, filled from around them."""
    if not config.unknown_channels:
        return y
    picture, unknown = y[:, : config.img_channel], y[:, config.img_channel :]
    return torch.cat([fill_from_around(picture, unknown[:, :1]), unknown], 1)


def fill_from_around(picture: Tensor, hole: Tensor) -> Tensor:
    """[B, C, H, W] with the pixels where `hole`, [B, 1, H, W], is 1 taken from smaller and smaller versions of it.

    A smaller version is the mean of the known pixels of each block of four. Where nothing is known it stays 0.

    Source: the pull-push algorithm of Gortler et al., "The Lumigraph" (SIGGRAPH 1996), section 3.4.
    """
    # each pixel times its weight, and the weight: 1 where it is known
    weight = 1 - hole
    levels = [(picture * weight, weight)]
    while max(levels[-1][0].shape[2:]) > 1:
        levels.append(_pulled(*levels[-1]))
    filled = levels[-1][0]
    for weighted, weight in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=weighted.shape[2:], mode="bilinear", align_corners=False)
        filled = weighted + (1 - weight) * coarse
    return filled


def _pulled(weighted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The next smaller version; blocks at the edges of odd sides are smaller."""
    weighted, mean = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (weighted, weight))
    # one known pixel of the four is enough
    known = (4 * mean).clamp(max=1)
    return weighted / mean.clamp(min=1e-6) * known, known
