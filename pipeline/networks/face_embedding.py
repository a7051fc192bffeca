"""The face embedding of dlib as a PyTorch network: faces of one person lie close together.

A residual network of 29 convolutions (dlib_face_recognition_resnet_model_v1, Davis King, CC0), whose scales of channels
are folded into its convolutions (tools/convert_face_embedding.py). It gives dlib's own numbers up to rounding, in a
fifth of the time on a CPU.
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

# Side of the aligned face, pixels, and length of its embedding.
SIDE, LENGTH = 150, 128
# Mean colour of the training faces; values are divided by SPAN.
MEAN, SPAN = (122.782, 117.001, 104.298), 256.0
# Channels of the residual blocks; one with more channels than the block before it halves the picture, and so does the
# last: see `halves`.
CHANNELS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)


def halves() -> list[bool]:
    """Which of the blocks halve the picture."""
    wider = [b > a for a, b in pairwise((CHANNELS[0], *CHANNELS))]
    return [*wider[:-1], True]


class Block(nn.Module):
    """Two convolutions beside the input, which is averaged where the block halves the picture."""

    def __init__(self, channels_in: int, channels: int, is_half: bool) -> None:
        super().__init__()
        stride, padding = (2, 0) if is_half else (1, 1)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self._is_half = is_half

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C', H', W']; what one of the two sums lacks of the other's size counts as 0."""
        y = self.conv2(F.relu(self.conv1(x)))
        beside = F.avg_pool2d(x, 2) if self._is_half else x
        size = [max(a, b) for a, b in zip(y.shape[1:], beside.shape[1:], strict=True)]
        return F.relu(_padded(y, size) + _padded(beside, size))


class FaceEmbedding(nn.Module):
    """[B, 3, 150, 150] RGB, 0..255 → [B, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS[0], 7, 2)
        widths = pairwise((CHANNELS[0], *CHANNELS))
        self.blocks = nn.Sequential(*(Block(a, b, h) for (a, b), h in zip(widths, halves(), strict=True)))
        self.last = nn.Linear(CHANNELS[-1], LENGTH, bias=False)

    def forward(self, faces: Tensor) -> Tensor:
        mean = torch.tensor(MEAN, device=faces.device)[:, None, None]
        x = F.relu(self.first((faces.float() - mean) / SPAN))
        x = self.blocks(F.max_pool2d(x, 3, 2))
        embedding: Tensor = self.last(x.mean(dim=(2, 3)))
        return embedding


def _padded(x: Tensor, size: list[int]) -> Tensor:
    """[B, C, H, W] with zeros behind its channels, rows and columns, up to this size."""
    channels, height, width = (wanted - has for wanted, has in zip(size, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels)) if channels or height or width else x


def load_embedding(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """The network of a weights file as a function of one aligned face: [150, 150, 3] uint8 RGB → [128].

    It computes in float32 on the CPU. Raises CheckpointError for another network's file.
    """
    network = FaceEmbedding()
    load_strict(network, read_state(path), f"{path} as a face embedding")
    network.eval()

    def embed(face: NDArray[np.uint8]) -> NDArray[np.float64]:
        pixels = torch.from_numpy(np.ascontiguousarray(face.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            found: NDArray[np.float64] = network(pixels)[0].numpy().astype(np.float64)
        return found

    return embed
