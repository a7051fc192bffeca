"""Masks for training and testing inpainting: boxes, irregular strokes, expansions and halves, and scratches.

Source: the kinds of DifFace's inpainting benchmark (arXiv 2212.06512, section 4.4); strokes in the manner of LaMa
(arXiv 2109.07161, section 3.3). Scratches: scratches.py. Sizes are fractions of the face's side.
"""

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.scratches import draw_scratches

Hole = Literal["box", "irregular", "expand", "half", "scratches"]
# The kinds of the published benchmark.
HOLES: tuple[Hole, ...] = ("box", "irregular", "expand", "half")
KINDS: tuple[Hole, ...] = get_args(Hole)


def draw_hole(side: int, rng: np.random.Generator, kind: Hole | None = None) -> NDArray[np.bool_]:
    """[S, S], True in the hole. kind: drawn uniformly from HOLES where none is given."""
    kind = kind or HOLES[int(rng.integers(len(HOLES)))]
    hole = np.zeros((side, side), np.uint8)
    if kind == "box":
        high, wide = (round(side * rng.uniform(0.2, 0.5)) for _ in range(2))
        top, left = int(rng.integers(side - high + 1)), int(rng.integers(side - wide + 1))
        hole[top : top + high, left : left + wide] = 1
    elif kind == "irregular":
        for _ in range(int(rng.integers(1, 6))):
            _stroke(hole, rng)
    elif kind == "scratches":
        return draw_scratches(side, rng)
    elif kind == "expand":
        # only a central box is known, everything around it is the hole
        hole[:] = 1
        high, wide = (round(side * rng.uniform(0.5, 0.75)) for _ in range(2))
        top, left = (side - high) // 2, (side - wide) // 2
        hole[top : top + high, left : left + wide] = 0
    else:
        edge = int(rng.integers(4))
        np.rot90(hole, edge)[: side // 2] = 1
    return hole.astype(bool)


def _stroke(hole: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """A thick bent line."""
    side = len(hole)
    place, angle = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi)
    width = max(round(side * rng.uniform(0.04, 0.12)), 1)
    for _ in range(int(rng.integers(2, 7))):
        angle += rng.uniform(-1.2, 1.2)
        end = place + side * rng.uniform(0.1, 0.3) * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(int(v) for v in np.rint(p)) for p in (place, end)]
        cv2.line(hole, ends[0], ends[1], 1, width)
        place = end
