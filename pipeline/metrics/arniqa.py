"""No-reference image quality: ARNIQA, trained to recognise distortions, with the regression to KonIQ-10k's opinions.

Source: Agnolucci et al., "ARNIQA: Learning Distortion Manifold for Image Quality Assessment" (WACV 2024).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.metrics.inputs import IMAGENET, as_batch
from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import load_strict

# Range of the opinions that the regression was trained on.
WORST, BEST = 1, 100


class Arniqa:
    """[H, W, 3] uint8 RGB → about 0 (bad) to 1 (good); nan for sides below 64 pixels. The picture is not resized.

    encoder, regression: the published `ARNIQA.pth` and `regressor_koniq10k.pth`. Raises CheckpointError for others.
    """

    def __init__(self, encoder: Path, regression: Path, device: str = "cpu") -> None:
        from torchvision.models import resnet50

        state = {
            name.removeprefix("model."): value
            for name, value in read_archive(encoder).items()
            if not name.startswith("projector")
        }
        self._encoder = nn.Sequential(*list(resnet50(weights=None).children())[:-1])
        load_strict(self._encoder, state, f"{encoder} as ARNIQA's encoder")
        self._regression = nn.Linear(2 * 2048, 1)
        found = {
            n.replace("weights", "weight").replace("biases", "bias"): v
            for n, v in read_archive(regression).items()
        }
        found = {
            name: value.reshape(1, -1) if name == "weight" else value.reshape(1)
            for name, value in found.items()
        }
        load_strict(self._regression, found, f"{regression} as ARNIQA's regression")
        self._device = device
        self._encoder.eval().to(device)
        self._regression.to(device)

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> float:
        height, width = picture.shape[:2]
        if min(height, width) < 64:
            return float("nan")
        whole = as_batch(picture, self._device)
        half = F.interpolate(whole, (height // 2, width // 2), mode="bilinear", antialias=True)
        score = self._regression(torch.cat([self._features(whole), self._features(half)], dim=1))
        return float((score - WORST) / (BEST - WORST))

    def _features(self, pictures: Tensor) -> Tensor:
        """[B, 2048] of length 1."""
        return F.normalize(self._encoder(IMAGENET(pictures)).flatten(1), dim=1)
