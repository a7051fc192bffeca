"""What is done with a face, chosen by how far the estimator changes it.

δ = mean |f(y) - y| over the face predicts how damaged it is: an estimator that was trained on every degree of damage
leaves a sharp face alone. A preset's own table says what helps at which δ; `jobs.calibrate` fits it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.schedule import Chain

Kind = Literal["left", "estimator", "chain"]
# What is tried with a face, in this order, until a result passes the gates (faces/gates.py): the treatment that was
# asked for; a chain held more, by half the σ; one entered at half the N, too; the estimator alone.
Rung = Literal["asked", "held", "lower_n", "estimator"]


@dataclass(frozen=True)
class Treatment:
    """The face is left as it was, gets the estimator's picture, or the chain's."""

    kind: Kind = "chain"
    chain: Chain | None = None
    # width (standard deviation, pixels of the crop) of the Gaussian whose low frequencies each step is held to, those
    # of the estimate; 0 holds nothing
    hold: float = 0.0
    # randomness of its chain; None: that of the face's job
    eta: float | None = None

    def __post_init__(self) -> None:
        if (self.kind == "chain") != (self.chain is not None):
            raise ValueError(f"a chain belongs to the kind 'chain' alone, got {self.kind!r} and {self.chain}")

    @property
    def steps(self) -> int:
        """Network calls of its chain; 0 without one."""
        return len(self.chain.indices) if self.chain is not None else 0


ESTIMATOR = Treatment("estimator")


@dataclass(frozen=True)
class Treatments:
    """A treatment for every δ: that of the last row whose bound is not above it."""

    # least δ of each row, in levels of 0..255, and its treatment; rising from 0
    rows: tuple[tuple[float, Treatment], ...]

    def __post_init__(self) -> None:
        bounds = [least for least, _ in self.rows]
        if not bounds or bounds[0] != 0 or any(a >= b for a, b in pairwise(bounds)):
            raise ValueError(f"bounds that rise from 0 were wanted, got {bounds}")

    def __call__(self, delta: float) -> Treatment:
        """What is done with a face of this δ. Equal faces get equal treatments, whatever shares their batch."""
        return [what for least, what in self.rows if least <= delta or least == 0][-1]

    def leaving_below(self, least: float) -> "Treatments":
        """The same, but that faces of a δ below `least`, above 0, are left as they are."""
        above = [row for row in self.rows if row[0] > least]
        return Treatments(((0.0, Treatment("left")), (least, self(least)), *above))


def estimated_change(
    crop: NDArray[np.uint8], estimated: NDArray[np.float32], inside: NDArray[np.bool_] | None = None
) -> float:
    """δ in levels of 0..255, rounded to a thousandth.

    crop: [S, S, 3]; estimated: [3, S, S] in [0, 1]; inside: [S, S], True where the crop shows the picture and not what
    is mirrored beyond its border; None means everywhere.
    """
    change = np.abs(estimated.transpose(1, 2, 0).astype(np.float64) * 255 - crop).mean(axis=2)
    if inside is not None and inside.any():
        change = change[inside]
    return round(float(change.mean()), 3)
