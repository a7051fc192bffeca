"""FID and KID of sets of faces, and of any part of them, from the inner products of their features.

Of N faces with D features, N below some thousands, the products are computed once; a part of the faces then takes an
eigenproblem of its own size, whatever D. Row i of both sets is the same face.

FID: Heusel et al. 2017; of few faces it is biased upwards, by an amount that depends on their number and on the set.
KID: Binkowski et al. 2018, the unbiased squared MMD with the kernel (x·y / D + 1)³; products of a face with itself, and
with its own counterpart in the other set, are left out, so that it is unbiased for pairs too (Gretton et al. 2012,
Eq. 4). It may be negative.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.distribution import FeatureStatistics

Products = NDArray[np.float64]
Indices = NDArray[np.int64]


class SetDistance(Protocol):
    """The distances of a set of faces, or of a part of it, from something."""

    def __call__(self, part: Indices | None = None) -> Mapping[str, float]:
        """FID, and KID where it is known, by name. part: numbers of at least two faces; None: all."""


class PairedDistance:
    """FID and KID of two sets of the same faces, [N, D] each, N > 1."""

    def __init__(self, ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> None:
        x, y = ours.astype(np.float64), theirs.astype(np.float64)
        self._dimensions = x.shape[1]
        self._xx, self._yy, self._xy = x @ x.T, y @ y.T, x @ y.T

    def __call__(self, part: Indices | None = None) -> dict[str, float]:
        xx, yy, xy = (_part(products, part) for products in (self._xx, self._yy, self._xy))
        gap = xx.mean() + yy.mean() - 2 * xy.mean()
        shared = _centred(xy) / (len(xy) - 1)
        # the eigenvalues of Σ1 Σ2 are the squared singular values of the centred products
        overlap = np.sqrt(np.linalg.eigvalsh(shared @ shared.T).clip(0)).sum()
        fid = gap + _spread(xx) + _spread(yy) - 2 * overlap
        return {"fid": float(fid), "kid": self._kid(xx, yy, xy)}

    def _kid(self, *products: Products) -> float:
        """Mean kernel over pairs of different faces."""
        xx, yy, xy = (_off_diagonal_mean((p / self._dimensions + 1) ** 3) for p in products)
        return xx + yy - 2 * xy


class ReferenceDistance:
    """FID of a set of faces, [N, D], N > 1, from the Gaussian of another set."""

    def __init__(self, ours: NDArray[np.floating], reference: FeatureStatistics) -> None:
        x = ours.astype(np.float64)
        self._xx, self._scaled = x @ x.T, x @ reference.covariance @ x.T
        self._along = x @ reference.mean
        self._length, self._spread = float(reference.mean @ reference.mean), np.trace(reference.covariance)

    def __call__(self, part: Indices | None = None) -> dict[str, float]:
        xx, scaled = _part(self._xx, part), _part(self._scaled, part)
        along = self._along if part is None else self._along[part]
        gap = xx.mean() - 2 * along.mean() + self._length
        overlap = np.sqrt(np.linalg.eigvalsh(_centred(scaled) / (len(xx) - 1)).clip(0)).sum()
        return {"fid": float(gap + _spread(xx) + self._spread - 2 * overlap)}


def _part(products: Products, part: Indices | None) -> Products:
    return products if part is None else products[np.ix_(part, part)]


def _centred(products: Products) -> Products:
    """The products of vectors less their means."""
    rows, columns = products.mean(axis=1, keepdims=True), products.mean(axis=0, keepdims=True)
    centred: Products = products - rows - columns + products.mean()
    return centred


def _spread(products: Products) -> float:
    """The trace of the covariance."""
    count = len(products)
    return float((np.trace(products) - count * products.mean()) / (count - 1))


def _off_diagonal_mean(values: Products) -> float:
    count = len(values)
    return float((values.sum() - np.trace(values)) / (count * (count - 1)))
