"""AdaFace's face embedding, with which restoration challenges compare the person before and after.

Source: Kim, Jain and Liu, "AdaFace: Quality Adaptive Margin for Face Recognition" (CVPR 2022). The layers have the
names of the published files (`adaface_ir50_ms1mv2.ckpt`, MIT).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import load_strict

# Side of the aligned face, pixels, and length of its embedding.
SIDE, LENGTH = 112, 512
# Channels and number of the residual blocks; the first block of each row halves the picture.
IR_50 = ((64, 3), (128, 4), (256, 14), (512, 3))
# What the published files put in front of the network's names; the others are of the training's last layer.
PREFIX = "model."


class Block(nn.Module):
    """Two convolutions beside the input, or beside its projection where the number of channels changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if channels_in != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y


class AdaFace(nn.Module):
    """[B, 3, 112, 112] float32 BGR in [-1, 1] → [B, 512], of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        before, blocks = 64, []
        for channels, count in IR_50:
            for i in range(count):
                blocks.append(Block(before, channels, 1 if i else 2))
                before = channels
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(before * 7 * 7, LENGTH),
            nn.BatchNorm1d(LENGTH, affine=False),
        )

    def forward(self, faces: Tensor) -> Tensor:
        return nn.functional.normalize(self.output_layer(self.body(self.input_layer(faces))), eps=0)


def load_adaface(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """The network of a weights file as a function of one aligned face: [112, 112, 3] uint8 RGB → [512].

    It computes in float32 on the CPU. Raises CheckpointError for another network's file.
    """
    state = {
        name.removeprefix(PREFIX): value
        for name, value in read_archive(path).items()
        if name.startswith(PREFIX)
    }
    with torch.device("meta"):
        network = AdaFace()
    load_strict(network, state, f"{path} as AdaFace IR-50", assign=True)
    network.eval()

    def embed(face: NDArray[np.uint8]) -> NDArray[np.float64]:
        bgr = torch.from_numpy(np.ascontiguousarray(face[..., ::-1].transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            found: NDArray[np.float64] = network(bgr / 127.5 - 1)[0].numpy().astype(np.float64)
        return found

    return embed
