"""Fit of the treatment table of a preset: the best treatment as a function of δ.

δ is how much the estimator changes a face (pipeline/diffusion/treatment.py). Per bin of δ, the treatment with the
lowest LPIPS is chosen whose loss of fidelity and harm stay within bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from pipeline.evaluation.harm import ANY, FINE, worse
from pipeline.evaluation.realworld import LEVELS, Damage, Level, draw_damage

Numbers = NDArray[np.float64]

# The levels of the real-world grid, the clean one replaced by almost no damage, to interpolate between.
_STEPS = [
    Level(blur=0.0, shrink=1.0, noise=0.0, quality=98.0),
    *(v for v in LEVELS.values() if v is not None),
]
# Share of the faces that are not damaged at all.
UNTOUCHED = 0.1
# Significance level of the test whether a share exceeds its bound.
SIGNIFICANT = 0.05
# LPIPS that a network call must gain to be worth its time.
WORTH_OF_CALL = 0.0005


@dataclass(frozen=True)
class Candidate:
    """One treatment of a face."""

    # left, estimator or chain; a key of stored rows and of [[treatment]]
    way: str
    start_step: int = 0
    calls: int = 0
    hold: float = 0.0
    # randomness; None: the preset's
    eta: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """The chain given as `N:CALLS:SIGMA` or `N:CALLS:SIGMA:ETA`. Raises ValueError."""
        start_step, calls, hold, *eta = text.split(":")
        return cls("chain", int(start_step), int(calls), float(hold), *map(float, eta))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Candidate":
        """That of a row of a preset's [[treatment]] table."""
        values = {name: value for name, value in row.items() if name != "above"}
        return cls(**({"way": "chain"} | values))

    @property
    def rank(self) -> int:
        """Strength of the treatment: it never decreases with δ."""
        return {"left": -2, "estimator": -1}.get(self.way, self.start_step)

    @property
    def name(self) -> str:
        """Its name in tables."""
        if self.way != "chain":
            return self.way
        eta = "" if self.eta is None else f", η {self.eta:g}"
        return f"N {self.start_step}, {self.calls} calls, σ {self.hold:g}{eta}"

    def row(self, above: float) -> dict[str, Any]:
        """Its row of a preset's [[treatment]] table."""
        if self.way != "chain":
            return {"above": above, "way": self.way}
        row = {"above": above, "start_step": self.start_step, "calls": self.calls, "hold": self.hold}
        return row if self.eta is None else row | {"eta": self.eta}


LEFT, ESTIMATOR = Candidate("left"), Candidate("estimator")


@dataclass(frozen=True)
class Bounds:
    """Limits of what a treatment may cost the faces of a bin of δ."""

    # mean PSNR below the estimator's, dB
    psnr_loss: float = 0.5
    # mean identity angle above the estimator's, degrees
    angle_loss: float = 0.3
    # share of faces delivered worse than the input: in LPIPS, and in any of PSNR, angle, LPIPS (harm.py)
    harm_lpips: float = 0.05
    harm: float = 0.1
    # the share in any metric where mean LPIPS improves by less than `slight`, without a significance test
    harm_slight: float = 0.02
    slight: float = 0.02


@dataclass(frozen=True)
class Bin:
    """Faces of similar δ, and their chosen treatment."""

    least: float
    most: float
    faces: int
    chosen: Candidate
    # of every candidate: mean LPIPS, PSNR, angle, and harm, by column
    stats: Mapping[Candidate, Mapping[str, float]]


def draw(rng: np.random.Generator) -> Damage | None:
    """Damage of a degree drawn uniformly between none and heavy; None: no damage."""
    if rng.random() < UNTOUCHED:
        return None
    low, share = divmod(rng.uniform(0, len(_STEPS) - 1), 1)
    a, b = _STEPS[int(low)], _STEPS[min(int(low) + 1, len(_STEPS) - 1)]
    names = ("blur", "shrink", "noise", "quality")
    mixed = {n: float((1 - share) * getattr(a, n) + share * getattr(b, n)) for n in names}
    return draw_damage(Level(**mixed), rng)


def bins_of(delta: Numbers, each: int) -> list[NDArray[np.bool_]]:
    """[F] masks of about `each` faces, by ascending δ."""
    rank = delta.argsort(kind="stable").argsort()
    count = max(len(delta) // each, 1)
    return [rank * count // len(delta) == i for i in range(count)]


def summarise(
    came: Mapping[str, Numbers], out: Mapping[str, Numbers], faces: NDArray[np.bool_]
) -> dict[str, float]:
    """Means over some delivered faces, and harm. came, out: column → [F] of input and output.

    psnr_seen: PSNR with each face capped at FINE.
    """
    summary = {name: float(np.nanmean(values[faces])) for name, values in out.items()}
    summary["psnr_seen"] = float(np.minimum(out["psnr"][faces], FINE).mean())
    summary |= {f"harm_{n}": float(w[faces].mean()) for n, w in worse(came, out).items()}
    return summary | {"faces": float(faces.sum())}


def allowed(candidate: Candidate, stats: Mapping[Candidate, Mapping[str, float]], bounds: Bounds) -> bool:
    """Whether a treatment stays within the bounds in a bin."""
    if candidate == LEFT:
        return True
    mine, alone, came = stats[candidate], stats[ESTIMATOR], stats[LEFT]
    harmed = mine[f"harm_{ANY}"]
    gains_little = came["lpips"] - mine["lpips"] < bounds.slight
    return (
        mine["psnr_seen"] >= alone["psnr_seen"] - bounds.psnr_loss
        and mine["angle"] <= alone["angle"] + bounds.angle_loss
        and not _above(mine["harm_lpips"], bounds.harm_lpips, mine["faces"])
        and not (harmed > bounds.harm_slight if gains_little else _above(harmed, bounds.harm, mine["faces"]))
        and mine["psnr_seen"] >= came["psnr_seen"]
        and mine["angle"] <= came["angle"] + bounds.angle_loss
    )


def _above(share: float, bound: float, faces: float) -> bool:
    """Whether a share of `faces` exceeds a bound significantly (one-sided binomial test)."""
    return bool(binom.sf(round(share * faces) - 1, round(faces), bound) < SIGNIFICANT)


def choose(
    delta: Numbers, measured: Mapping[Candidate, Mapping[str, Numbers]], each: int, bounds: Bounds
) -> list[Bin]:
    """The bins with the treatments of minimum total LPIPS whose rank never decreases with δ (dynamic programming).

    measured: candidate → column → [F]; includes LEFT.
    """
    came = measured[LEFT]
    masks = bins_of(delta, each)
    stats = [{c: summarise(came, out, faces) for c, out in measured.items()} for faces in masks]
    ranked = sorted(measured, key=lambda c: c.rank)
    # per bin and its candidate: minimum cost up to this bin, and the candidate of the previous bin
    best: list[dict[Candidate, tuple[float, Candidate | None]]] = []
    for in_bin in stats:
        here: dict[Candidate, tuple[float, Candidate | None]] = {}
        for candidate in ranked:
            if not allowed(candidate, in_bin, bounds):
                continue
            cost = in_bin[candidate]["lpips"] + WORTH_OF_CALL * candidate.calls
            before = (
                [(best[-1][b][0], b) for b in best[-1] if b.rank <= candidate.rank] if best else [(0.0, None)]
            )
            if before:
                least, predecessor = min(before, key=lambda pair: pair[0])
                here[candidate] = (least + cost, predecessor)
        best.append(here)
    chosen: list[Candidate] = []
    following: Candidate | None = min(best[-1], key=lambda c: best[-1][c][0])
    for here in reversed(best):
        assert following is not None
        chosen.append(following)
        following = here[following][1]
    return [
        Bin(float(delta[m].min()), float(delta[m].max()), int(m.sum()), c, t)
        for m, c, t in zip(masks, reversed(chosen), stats, strict=True)
    ]


def table(bins: Sequence[Bin]) -> list[dict[str, Any]]:
    """The rows of a preset's [[treatment]]; bounds are midway between adjacent bins."""
    rows = [bins[0].chosen.row(0)]
    for before, here in pairwise(bins):
        if here.chosen != before.chosen:
            rows.append(here.chosen.row(round((before.most + here.least) / 2, 2)))
    return rows
