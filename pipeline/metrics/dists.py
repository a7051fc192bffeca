"""Fidelity to the truth: DISTS, which compares structure and forgives another texture of the same kind.

Source: Ding, Ma, Wang and Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity" (TPAMI
2022). The authors' weights of the features are in `presets/weights/dists.safetensors` (MIT).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.io.weights import resolve
from pipeline.metrics.inputs import IMAGENET
from pipeline.networks.checkpoint import load_strict, read_state

WEIGHTS_FILE = "dists.safetensors"
# Channels of the convolutions of VGG-16's five stages, and their places in torchvision's list of layers.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FIRST_LAYERS = (0, 5, 10, 17, 24)
# Channels that are compared: of the picture and behind each stage.
CHANNELS = (3, *(stage[-1] for stage in STAGES))
# keeps the quotients defined
SMALL = 1e-6


class Dists:
    """[B, 3, H, W] float32 in [0, 1] of both → [B] distances in 0 (same) to 1; not resized.

    backbone: torchvision's VGG-16, or its feature layers alone. Raises CheckpointError for another file.
    """

    def __init__(self, backbone: Path, device: str = "cpu") -> None:
        features = {
            name.removeprefix("features."): value
            for name, value in read_state(backbone).items()
            if not name.startswith("classifier.")
        }
        self._stages = stages()
        load_strict(self._stages, features, f"{backbone} as VGG-16's features")
        self._stages.to(device)
        weights = read_state(resolve(WEIGHTS_FILE).path)
        total = weights["alpha"].sum() + weights["beta"].sum()
        self._texture = (weights["alpha"] / total).to(device)
        self._structure = (weights["beta"] / total).to(device)

    @torch.inference_mode()
    def __call__(self, restored: Tensor, truth: Tensor) -> Tensor:
        similarities = [
            similarity(a, b) for a, b in zip(self._maps(restored), self._maps(truth), strict=True)
        ]
        texture, structure = (torch.cat([s[i] for s in similarities], dim=1) for i in (0, 1))
        return 1 - texture @ self._texture - structure @ self._structure

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        """The pictures themselves, and what is behind each stage."""
        found, x = [pictures], IMAGENET(pictures)
        for i, (first, stage) in enumerate(zip(FIRST_LAYERS, STAGES, strict=True)):
            x = smaller(x) if i else x
            for layer in range(first, first + 2 * len(stage), 2):
                x = F.relu(self._stages[str(layer)](x))
            found.append(x)
        return found


def stages() -> nn.ModuleDict:
    """VGG-16's convolutions under torchvision's names."""
    layers, before = nn.ModuleDict(), 3
    for first, stage in zip(FIRST_LAYERS, STAGES, strict=True):
        for i, channels in enumerate(stage):
            layers[str(first + 2 * i)] = nn.Conv2d(before, channels, 3, padding=1)
            before = channels
    return layers


def smaller(x: Tensor) -> Tensor:
    """Root mean square in a Hann window of 3 x 3 at every second pixel, in place of VGG's largest value."""
    window = torch.tensor([0.25, 0.5, 0.25], device=x.device)
    kernel = (window[:, None] * window)[None, None].repeat(x.shape[1], 1, 1, 1)
    squares = F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1])
    return (squares + 1e-12).sqrt()


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """[B, C] each: of the means, Eq. (5), and of the variations, Eq. (6), of the channels of two maps."""
    mean_a, mean_b = a.mean(dim=(2, 3)), b.mean(dim=(2, 3))
    variance_a, variance_b = a.var(dim=(2, 3), correction=0), b.var(dim=(2, 3), correction=0)
    covariance = (a * b).mean(dim=(2, 3)) - mean_a * mean_b
    texture = (2 * mean_a * mean_b + SMALL) / (mean_a.square() + mean_b.square() + SMALL)
    return texture, (2 * covariance + SMALL) / (variance_a + variance_b + SMALL)
