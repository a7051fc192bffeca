"""What an estimator is trained on that fills holes and gives colours: a face of which some is unknown.

The known part is degraded as for the blind estimator of portraits in half of the faces, and as it is in the others:
old prints are rarely clean beside their scratches.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.degradation_batch import degrade_batch, draw_portrait_degradations, to_grey
from pipeline.datasets.faces import to_picture, to_tensor
from pipeline.datasets.holes import Hole, draw_hole
from pipeline.training.face_batches import toned

# Shares of the faces: colours unknown, and of these with holes, too; holes that are scratches; degraded.
COLOURLESS, COLOURLESS_WITH_HOLES, SCRATCHED, DEGRADED = 0.35, 0.3, 0.5, 0.5


def hide_parts(face: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.uint8]]:
    """A clean face [S, S, 3] → the estimator's input [5, S, S] float32 in [0, 1], and its target [S, S, 3].

    The input's fourth channel is 1 in the holes, where its colours are 0; its fifth is 1 where only the luma is known.
    """
    side = len(face)
    colourless = rng.random() < COLOURLESS
    levels = 255 * to_tensor(face)[None]
    if not colourless:
        levels = toned(levels, rng)
    seen = levels
    if rng.random() < DEGRADED:
        how = draw_portrait_degradations(rng, 1, side)
        seen, levels = degrade_batch(levels, how, torch.Generator().manual_seed(int(rng.integers(1 << 62))))
    if colourless:
        seen = to_grey(seen)
    hole = torch.zeros(1, 1, side, side)
    if not colourless or rng.random() < COLOURLESS_WITH_HOLES:
        kind: Hole | None = "scratches" if rng.random() < SCRATCHED else None
        hole[0, 0] = torch.from_numpy(draw_hole(side, rng, kind))
    colours = torch.full_like(hole, float(colourless))
    return torch.cat([seen / 255 * (1 - hole), hole, colours], 1)[0], to_picture(levels[0] / 255)
