"""Pictures as the networks of metrics take them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Colours:
    """Mean and deviation of each channel of RGB in [0, 1], to which a network's input is normalised."""

    mean: Triple
    deviation: Triple

    def __call__(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] float32 in [0, 1] → the same shape, normalised."""
        mean, deviation = (
            torch.tensor(v, device=pictures.device)[:, None, None] for v in (self.mean, self.deviation)
        )
        return (pictures - mean) / deviation


IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# to [-1, 1]
SIGNED = Colours((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def as_batch(picture: NDArray[np.uint8], device: torch.device | str) -> Tensor:
    """[H, W, 3] uint8 → [1, 3, H, W] float32 in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return pixels[None].to(device).float() / 255
