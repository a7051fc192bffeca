"""MediaPipe's face mesh as a PyTorch network: 468 points of the face in a picture.

Blocks of a depthwise and a pointwise convolution with a residual, as in Kartynnik et al., "Real-time Facial Surface
Geometry from Monocular Video on Mobile GPUs" (2019). The weights are those of MediaPipe's face_landmark.tflite (Google,
Apache-2.0), converted by tools/convert_face_mesh.py; the depths of the points, and the branch that scores whether there
is a face, are left out.
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

# Side of the input, pixels, and number of the points.
SIDE, POINTS = 192, 468
# Channels of the stages, each at half the size of the one before; the first is at half the input's.
STAGES = (16, 32, 64, 128, 128, 128)
# blocks of a stage that keep the size, and channels of the last block
KEEPING, LAST = 2, 32


class Block(nn.Module):
    """A depthwise and a pointwise convolution beside the input, which is pooled where the block halves the picture."""

    def __init__(self, channels_in: int, channels: int, is_half: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, 2 if is_half else 1, groups=channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels, 1)
        self.activation = nn.PReLU(channels)
        self._is_half = is_half

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C', H', W']; channels that the input lacks count as 0."""
        y: Tensor = self.pointwise(self.depthwise(_padded(x, self._is_half)))
        beside = F.max_pool2d(x, 2) if self._is_half else x
        if missing := y.shape[1] - beside.shape[1]:
            beside = F.pad(beside, (0, 0, 0, 0, 0, missing))
        activated: Tensor = self.activation(y + beside)
        return activated


class FaceMesh(nn.Module):
    """[B, 3, 192, 192] RGB, 0..1 → [B, 468, 2] x and y, in pixels of the input from the upper left corner on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, STAGES[0], 3, 2)
        self.activation = nn.PReLU(STAGES[0])
        blocks = [Block(STAGES[0], STAGES[0]) for _ in range(KEEPING)]
        for before, channels in pairwise(STAGES):
            blocks += [Block(before, channels, is_half=True)]
            blocks += [Block(channels, channels) for _ in range(KEEPING)]
        self.blocks = nn.Sequential(*blocks)
        self.narrow = nn.Conv2d(STAGES[-1], LAST, 1)
        self.narrow_activation = nn.PReLU(LAST)
        self.last_block = Block(LAST, LAST)
        self.points = nn.Conv2d(LAST, 2 * POINTS, 3)

    def forward(self, faces: Tensor) -> Tensor:
        x = self.blocks(self.activation(self.first(_padded(faces, True))))
        x = self.last_block(self.narrow_activation(self.narrow(x)))
        points: Tensor = self.points(x).reshape(len(faces), POINTS, 2)
        return points


def _padded(x: Tensor, is_half: bool) -> Tensor:
    """As TensorFlow's padding SAME does it for a kernel of 3; a halved picture has an even side."""
    return F.pad(x, (0, 1, 0, 1) if is_half else (1, 1, 1, 1))


def load_mesh(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """The network of a weights file as a function of faces: [B, 192, 192, 3] uint8 RGB → [B, 468, 2] pixels.

    It computes in float32 on the CPU. Raises CheckpointError for another network's file.
    """
    network = FaceMesh()
    load_strict(network, read_state(path), f"{path} as a face mesh")
    network.eval()

    def points(faces: NDArray[np.uint8]) -> NDArray[np.float64]:
        pixels = torch.from_numpy(np.ascontiguousarray(faces.transpose(0, 3, 1, 2)))
        with torch.inference_mode():
            found: NDArray[np.float64] = network(pixels.float() / 255).numpy().astype(np.float64)
        return found

    return points
