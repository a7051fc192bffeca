"""Paired differences with intervals, from sums that add.

Faces of one picture are not independent, so that pictures are the clusters. Over n faces in G pictures, of which
picture g has n_g with differences that sum to S_g, the mean difference d̄ has the leave-one-picture-out jackknife
variance

    var(d̄) = (G - 1) / G · Σ_g (d̄_(-g) - d̄)²,    d̄_(-g) - d̄ = -(S_g - n_g d̄) / (n - n_g)

and the interval takes Student's t with G - 1 degrees of freedom (CV3 of MacKinnon, Nielsen & Webb 2023, which is
reliable even where one picture has most of the faces). With one face in each picture this is the paired t interval.
Grouped by n_g, the squares expand into sums over pictures, so that parts of an archive add.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pipeline.metrics.directions import Better

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

# by shard: faces n; pictures G; Σa, Σb; faces whose value increased, and decreased
SUMS = ("faces", "images", "a", "b", "rose", "fell")
# by the number of faces in a picture: pictures; Σ_g S_g, Σ_g S_g²
SPREADS = ("images", "s", "ss")
LEVEL = 0.95
SAME = "the same"


class PairedSums:
    """Sums over pairs of one measurement; parts are added one by one."""

    def __init__(self, shards: int) -> None:
        self.by_shard: Numbers = np.zeros((shards, len(SUMS)))
        # [largest number of faces in a picture + 1, SPREADS]
        self.spread: Numbers = np.zeros((0, len(SPREADS)))

    def add(self, a: Numbers, b: Numbers, image: Indices, shard: Indices) -> None:
        """Add faces with values a and b, [N] each; pairs without two finite values are skipped.

        image: number of each face's picture; all faces of a picture must be in one call. shard: number of its shard.
        """
        known = np.isfinite(a) & np.isfinite(b)
        a, b, shard = a[known], b[known], shard[known]
        _, first, mine = np.unique(image[known], return_index=True, return_inverse=True)
        change = b - a
        s, n = np.bincount(mine, change, len(first)), np.bincount(mine, minlength=len(first))
        pictures, shards = shard[first], len(self.by_shard)
        columns = [np.bincount(shard, minlength=shards), np.bincount(pictures, minlength=shards)]
        columns += [np.bincount(shard, v, shards) for v in (a, b, change > 0, change < 0)]
        self.by_shard = self.by_shard + np.stack(columns, axis=1)
        spread = np.stack([np.bincount(n), np.bincount(n, s), np.bincount(n, s * s)], axis=1)
        self.spread = np.pad(self.spread, ((0, max(len(spread) - len(self.spread), 0)), (0, 0)))
        self.spread[: len(spread)] += spread

    def paired(self) -> "Paired | None":
        """Over all shards; None where there is no pair."""
        return _paired(self.by_shard.sum(axis=0), self.spread)

    def of_shard(self, number: int) -> "Paired | None":
        """Over one shard, without an interval."""
        return _paired(self.by_shard[number], None)


@dataclass(frozen=True)
class Paired:
    """The statistics of one measurement of the same faces in two runs. `difference` is B - A."""

    faces: int
    images: int
    a: float
    b: float
    difference: float
    # bounds of its confidence interval; None for a single picture
    low: float | None
    high: float | None
    # shares of the faces whose value is higher, and lower, in B
    rose: float
    fell: float

    def better(self, direction: Better) -> float | None:
        """Share of the faces that are better in B; None where neither direction is better."""
        return {"up": self.rose, "down": self.fell}.get(direction)

    def verdict(self, direction: Better) -> str:
        """The conclusion from the interval, in two or three words."""
        if not self.rose and not self.fell:
            return SAME
        if self.low is None or self.high is None:
            return "one picture only"
        return conclusion(self.low, self.high, direction)


def conclusion(low: float, high: float, direction: Better) -> str:
    """The conclusion from the interval of a difference B - A, in two or three words."""
    if low <= 0 <= high:
        return "no difference shown"
    if direction == "neither":
        return "B higher" if low > 0 else "B lower"
    return "B better" if (low > 0) == (direction == "up") else "A better"


def _paired(sums: Numbers, spread: Numbers | None) -> Paired | None:
    """sums: [SUMS]; spread: as of `PairedSums`."""
    n, images, a, b, rose, fell = (float(v) for v in sums)
    if not n:
        return None
    mean = (b - a) / n
    low = high = None
    if spread is not None and images > 1:
        reach = float(stdtrit(images - 1, 0.5 + LEVEL / 2)) * math.sqrt(_variance(n, images, mean, spread))
        low, high = mean - reach, mean + reach
    return Paired(int(n), int(images), a / n, b / n, mean, low, high, rose / n, fell / n)


def _variance(n: float, images: float, mean: float, spread: Numbers) -> float:
    """Jackknife variance of the mean, see the module's docstring."""
    pictures, s, ss = spread.T
    size = np.arange(len(spread))
    # rounding may make it negative
    squares = np.maximum(ss - 2 * mean * size * s + mean**2 * size**2 * pictures, 0)
    left = np.maximum(n - size, 1)  # 0 only where one picture has all faces, and no interval
    return float((images - 1) / images * (squares / left**2).sum())
