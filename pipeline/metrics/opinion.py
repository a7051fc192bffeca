"""No-reference image quality from networks that were trained on people's opinions: MUSIQ and MANIQA, on KonIQ-10k."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.metrics.inputs import SIGNED, as_batch
from pipeline.networks.maniqa import SIDE, load_maniqa
from pipeline.networks.musiq import load_musiq

# Rows and columns of MANIQA's squares, and the steps that the rest of a side is divided into.
ROWS, COLUMNS, STEPS = 4, 5, 4
# Squares of one network call.
BATCH = 5


class MusiqScore:
    """[H, W, 3] uint8 RGB of any size → 0 (bad) to 100 (good). Raises CheckpointError for another network's file."""

    def __init__(self, file: Path, device: str = "cpu") -> None:
        self._network, self._device = load_musiq(file).to(device), device

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> float:
        return float(self._network(SIGNED(as_batch(picture, self._device))))


class ManiqaScore:
    """[H, W, 3] uint8 RGB → 0 (bad) to about 1 (good): the mean over 20 squares of 224 pixels.

    A picture whose shorter side is not longer than that is enlarged to 225 first. The authors draw the squares' places
    at random; here they lie on a grid, as in challenges. Raises CheckpointError for another network's file.
    """

    def __init__(self, file: Path, device: str = "cpu") -> None:
        self._network, self._device = load_maniqa(file).to(device), device

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> float:
        pixels = SIGNED(as_batch(picture, self._device))
        if (short := min(pixels.shape[2:])) <= SIDE:
            pixels = F.interpolate(pixels, scale_factor=(SIDE + 1) / short, mode="bilinear")
        places = corners(*pixels.shape[2:])
        scores: dict[tuple[int, int], float] = {}
        for start in range(0, len(places), BATCH):
            # in a small picture several squares are the same
            part = list(
                dict.fromkeys(place for place in places[start : start + BATCH] if place not in scores)
            )
            if part:
                squares = torch.cat([pixels[:, :, y : y + SIDE, x : x + SIDE] for y, x in part])
                scores |= dict(zip(part, self._network(squares).tolist(), strict=True))
        return float(np.mean([scores[place] for place in places]))


def corners(height: int, width: int) -> list[tuple[int, int]]:
    """The upper left corners (y, x) of the squares in a picture of this size."""
    down, right = (height - SIDE) // STEPS, (width - SIDE) // STEPS
    return [(row * down, column * right) for row in range(ROWS) for column in range(COLUMNS)]
