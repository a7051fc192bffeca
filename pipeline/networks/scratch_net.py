"""A small network that finds the scratches of old prints: pictures → how surely each pixel is damaged.

A U-Net (Ronneberger et al., arXiv 1505.04597) on a pixel-unshuffle of 2, with residual blocks and without norms: its
answer for a pixel depends on the surroundings alone, so that a picture can be looked at in tiles. Weights of our own
(tools/train_scratches.py).
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.networks.checkpoint import load_strict, read_state
from pipeline.networks.tiling import by_tiles

# Channels of the levels; the first is at half the picture's size, each further one at half the size of the one before.
WIDTHS = (24, 40, 64, 96)
# What the sides of a picture have to be multiples of.
MULTIPLE = 2 ** len(WIDTHS)
# Side of a tile and margin around it, pixels of the picture; together a multiple of MULTIPLE.
TILE, MARGIN = 384, 64


class Block(nn.Module):
    """Two convolutions of 3x3, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        y: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return y


class ScratchNet(nn.Module):
    """[B, 3, H, W] float32 RGB in [0, 1] → [B, 1, H, W] logits of damage; H and W are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(pairwise(WIDTHS))
        self.enter = nn.Conv2d(12, WIDTHS[0], 3, padding=1)
        self.encoder = nn.ModuleList(Block(width) for width in WIDTHS[:-1])
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.middle = nn.Sequential(Block(WIDTHS[-1]), Block(WIDTHS[-1]))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(Block(width) for width in WIDTHS[:-1])
        self.leave = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.enter(F.pixel_unshuffle(picture * 2 - 1, 2))
        skipped = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skipped.append(x)
            x = down(x)
        x = self.middle(x)
        for skip, up, block in zip(skipped[::-1], list(self.up)[::-1], list(self.decoder)[::-1], strict=True):
            x = block(skip + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        logits: Tensor = F.pixel_shuffle(self.leave(F.relu(x)), 2)
        return logits


def load_scratch_net(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """The network of a weights file as a function of pictures: [H, W, 3] uint8 RGB → [H, W] uint8, 255 for certainty.

    It computes in float32 on the CPU, a tile at a time. Raises CheckpointError for another network's file.
    """
    network = ScratchNet()
    load_strict(network, read_state(path), f"{path} as a network that finds scratches")
    network.eval().to(memory_format=torch.channels_last)

    def ask(tile: Tensor) -> Tensor:
        damaged: Tensor = network(tile.contiguous(memory_format=torch.channels_last)).sigmoid()
        return damaged.expand(-1, 3, -1, -1)

    def find(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return np.ascontiguousarray(by_tiles(ask, picture, 1, TILE, MARGIN)[..., 0])

    return find
