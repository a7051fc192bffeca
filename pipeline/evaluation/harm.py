"""Harm: faces delivered worse than the input, by level of damage and variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.evaluation.delivered import METRICS
from pipeline.evaluation.scores import Faces, Numbers, Score, mean

# A face counts as harmed if it is worse than the input by more than this. Rounding alone rotates dlib's embedding by
# two degrees. A difference from the truth of FINE dB or more is invisible.
MOST_LOST = {"psnr": 0.3, "angle": 2.0, "lpips": 0.01}
FINE = 45.0
ANY = "any"
# Columns where higher is better.
HIGHER = ("psnr", "ssim")
CLEAN = "clean"


def worse(came: Mapping[str, Numbers], out: Mapping[str, Numbers]) -> dict[str, Faces]:
    """Measured metric → [R], True where a face was delivered worse than the input; ANY: by at least one metric.

    came, out: column → [R] of the input, and of the delivered pictures; nan is never worse.
    """
    found = {}
    for name, most in MOST_LOST.items():
        if name in came and name in out:
            found[name] = -gain(name, came[name], out[name]) > most
    if "psnr" in found:
        found["psnr"] &= out["psnr"] < FINE
    return found | {ANY: np.any(list(found.values()), axis=0)}


def gain(name: str, came: Numbers, out: Numbers) -> Numbers:
    """[R] improvement of the delivered pictures, in the column's unit."""
    return out - came if name in HIGHER else came - out


@dataclass(frozen=True)
class Change:
    """Means of one metric over some faces."""

    came: float
    out: float
    # out - came, face by face
    difference: Score


@dataclass(frozen=True)
class VariantResult:
    """The measurements of one variant, in the order of the set's sheet."""

    name: str
    # column → [R] of the input and of the delivered pictures
    came: Mapping[str, Numbers]
    out: Mapping[str, Numbers]
    # known costs: seconds and network calls per picture, total parameters
    cost: Mapping[str, float]
    # the variant that differs by having no gates, where there is one
    ungated: str | None = None

    @cached_property
    def worse(self) -> dict[str, Faces]:
        """The result of the function `worse`."""
        return worse(self.came, self.out)

    @cached_property
    def untouched(self) -> Faces:
        """[R], True where input and output have equal measurements: the face was not restored, or not detected."""
        shared = [n for n in ("psnr", "ssim", "lpips") if n in self.came and n in self.out]
        same: Faces = np.all([self.came[n] == self.out[n] for n in shared], axis=0)
        return same

    def changes(self, rows: Faces) -> dict[str, Change]:
        """Every metric over these faces, by its column."""
        found = {}
        for name in (n for n in METRICS if n in self.came and n in self.out):
            came, out = self.came[name][rows], self.out[name][rows]
            both = np.isfinite(came) & np.isfinite(out)
            if both.any():
                difference = mean((out - came)[both])
                found[name] = Change(float(came[both].mean()), float(out[both].mean()), difference)
        return found

    def harm(self, rows: Faces) -> dict[str, float]:
        """Share of these faces that were delivered worse than the input, by metric and by ANY."""
        return {name: float(faces[rows].mean()) for name, faces in self.worse.items() if rows.any()}


@dataclass(frozen=True)
class Cuts:
    """Groupings of the rows of a set."""

    # level → [R]
    levels: Mapping[str, Faces]
    # [R] photograph of each row
    numbers: Sequence[int]

    def photographs(self, rows: Faces) -> int:
        """How many photographs these rows are of."""
        return len(set(np.asarray(self.numbers)[rows].tolist()))

    @property
    def damaged(self) -> Faces:
        """[R], True at the levels with damage."""
        every = np.ones(len(self.numbers), np.bool_)
        return every & ~self.levels.get(CLEAN, np.zeros_like(every))


def cut(levels: Sequence[str], numbers: Sequence[int]) -> Cuts:
    """The rows by level, in order of appearance."""
    level = np.array(levels)
    return Cuts({name: level == name for name in dict.fromkeys(levels)}, numbers)
