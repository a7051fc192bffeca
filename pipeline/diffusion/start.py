"""A face's own N: the more degraded the face, the later (larger) the step its chain is entered at.

The error e that the estimator leaves reaches the chain as KL = κ_N/2 ‖e‖² (Eq. 13): the better the estimate, the
less noise it takes to bring the same divergence about. So N is chosen where κ_N ê² is what it is for a typical face
at the preset's N. ê is foretold from the crop and its estimate alone; the preset holds the fitted weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.schedule import Chain, Schedule, StartRule, chain_from, contraction

OCTAVES = 3


def error_signs(crop: NDArray[np.uint8], estimated: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What foretells the estimator's error, [2 + 2 * OCTAVES] float64, the first being 1.

    crop, estimated: [S, S, 3] uint8. How far the estimator moved the face, and the contrast of both in each of their
    finest octaves; all as logarithms.
    """
    moved = np.sqrt(np.mean((crop.astype(np.float64) - estimated) ** 2))
    contrasts = [c for face in (crop, estimated) for c in _octaves(face)]
    return np.concatenate([[1.0], np.log([moved + 0.1, *contrasts])])


def _octaves(face: NDArray[np.uint8]) -> list[float]:
    grey = face.mean(axis=2, dtype=np.float64)
    contrasts = []
    for _ in range(OCTAVES):
        half = len(grey) // 2
        coarse = grey[: 2 * half, : 2 * half].reshape(half, 2, half, 2).mean(axis=(1, 3))
        detail = grey[: 2 * half, : 2 * half] - coarse.repeat(2, axis=0).repeat(2, axis=1)
        contrasts.append(float(detail.std()) + 0.1)
        grey = coarse
    return contrasts


@dataclass(frozen=True)
class StartChoice:
    """Chooses a face's chain. Equal faces get equal chains, whatever their neighbours."""

    schedule: Schedule
    rule: StartRule
    calls: int | None
    # least and largest N
    bounds: tuple[int, int]
    # κ_N ê² of every choice; ê in units of 1/255
    contracted: float
    # of error_signs, which give log ê
    weights: tuple[float, ...]

    def __call__(self, crop: NDArray[np.uint8], estimated: NDArray[np.uint8]) -> Chain:
        error = float(np.exp(error_signs(crop, estimated) @ np.array(self.weights)))
        steps, kappa = self.schedule.t, np.log(contraction(self.schedule.ab))
        near = np.abs(kappa - np.log(self.contracted / error**2))
        near[(steps < self.bounds[0]) | (steps > self.bounds[1])] = np.inf
        return chain_from(self.schedule, int(steps[near.argmin()]), self.rule, self.calls)


def fit_weights(signs: Sequence[NDArray[np.float64]], errors: Sequence[float]) -> tuple[float, ...]:
    """Weights by least squares on log error. errors: root mean squares in units of 1/255."""
    weights, *_ = np.linalg.lstsq(np.stack(signs), np.log(errors), rcond=None)
    return tuple(round(float(w), 4) for w in weights)
