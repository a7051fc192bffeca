"""A small network that finds the scratches of old prints: pictures → how likely each pixel is damaged.

A U-Net (Ronneberger et al., arXiv 1505.04597) on a pixel-unshuffle of 2, with residual blocks. The norms of its
training are folded into its convolutions: what it finds at a place depends on the surroundings alone, however large the
picture is. Weights of our own (tools/train_scratches.py).
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.networks.checkpoint import load_strict, read_state
from pipeline.networks.tiling import mirrored

# Channels of the levels; the first is at half the picture's size, each further one at half the size of the one before.
WIDTHS = (24, 40, 64, 96)
# What the sides of a picture have to be multiples of.
MULTIPLE = 2 ** len(WIDTHS)


class Block(nn.Module):
    """Two convolutions of 3x3, added to the input."""

    def __init__(self, channels: int, norm: bool = False) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, 3, norm)
        self.second = _convolution(channels, channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class ScratchNet(nn.Module):
    """[B, 3, H, W] float32 RGB in [0, 1] → [B, 1, H, W] logits of damage; H and W are multiples of 16.

    norm: with the batch norms that training needs, and `folded` takes away.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        pairs = list(pairwise(WIDTHS))
        self.enter = _convolution(12, WIDTHS[0], 3, norm)
        self.encoder = nn.ModuleList(Block(width, norm) for width in WIDTHS[:-1])
        self.down = nn.ModuleList(_convolution(fine, coarse, 2, norm) for fine, coarse in pairs)
        self.middle = nn.Sequential(Block(WIDTHS[-1], norm), Block(WIDTHS[-1], norm))
        self.up = nn.ModuleList(_convolution(coarse, fine, 1, norm) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(Block(width, norm) for width in WIDTHS[:-1])
        self.leave = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        x = F.relu(self.enter(F.pixel_unshuffle(picture * 2 - 1, 2)))
        skipped = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skipped.append(x)
            x = F.relu(down(x))
        x = self.middle(x)
        for skip, up, block in zip(skipped[::-1], list(self.up)[::-1], list(self.decoder)[::-1], strict=True):
            x = block(F.relu(skip + F.interpolate(up(x), scale_factor=2.0, mode="nearest")))
        logits: Tensor = F.pixel_shuffle(self.leave(x), 2)
        return logits


def _convolution(channels_in: int, channels: int, size: int, norm: bool) -> nn.Sequential:
    """A convolution that keeps the size, but one of 2x2, which halves it."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels, size, 2 if size == 2 else 1, 1 if size == 3 else 0)
    ]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(channels, momentum=0.03)] if norm else []))


def folded(trained: nn.Module) -> dict[str, Tensor]:
    """The state of a ScratchNet without norms that computes what the trained one does in evaluation."""
    state: dict[str, Tensor] = {}
    for name, module in trained.named_modules():
        if isinstance(module, nn.Sequential) and isinstance(norm := module[-1], nn.BatchNorm2d):
            convolution = module[0]
            assert isinstance(convolution, nn.Conv2d)
            fused = fuse_conv_bn_eval(convolution, norm)
            state |= {f"{name}.0.{key}": value for key, value in fused.state_dict().items()}
        elif isinstance(module, nn.Conv2d) and f"{name}.weight" not in state:
            state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    return state


def load_scratch_net(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """The network of a weights file as a function of pictures: [H, W, 3] uint8 RGB → [H, W] uint8, 255 for certainty.

    It computes in float32 on the CPU, on whole pictures: some 170 bytes of memory a pixel. Raises CheckpointError for
    another network's file.
    """
    network = ScratchNet()
    load_strict(network, read_state(path), f"{path} as a network that finds scratches")
    network.eval().to(memory_format=torch.channels_last)

    def find(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        rows, columns = (mirrored(0, -(-n // MULTIPLE) * MULTIPLE, n) for n in (height, width))
        pixels = torch.from_numpy(picture[np.ix_(rows, columns)]).permute(2, 0, 1)[None]
        with torch.inference_mode():
            likelihood: Tensor = network(pixels.float() / 255).sigmoid()[0, 0, :height, :width]
            return (likelihood * 255).round().to(torch.uint8).numpy()

    return find
