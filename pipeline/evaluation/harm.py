"""Who was harmed: faces delivered worse than they came, counted by level of damage, way and group of people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.evaluation.delivered import METRICS
from pipeline.evaluation.scores import Faces, Numbers, Score, mean

# How much worse a face must be delivered than it came to count as harmed. Rounding alone turns dlib's embedding by two
# degrees. What is delivered at FINE dB or above differs from the truth by less than anybody sees.
MOST_LOST = {"psnr": 0.3, "angle": 2.0, "lpips": 0.01}
FINE = 45.0
ANY = "any"
# Columns that are better when they are higher.
HIGHER = ("psnr", "ssim")
CLEAN = "clean"


def worse(came: Mapping[str, Numbers], out: Mapping[str, Numbers]) -> dict[str, Faces]:
    """[R] by each metric that was measured, True where a face was delivered worse than it came; ANY: by one of them.

    came, out: column → [R] of what was to be restored, and of what was delivered; nan is never worse.
    """
    found = {}
    for name, most in MOST_LOST.items():
        if name in came and name in out:
            found[name] = -gain(name, came[name], out[name]) > most
    if "psnr" in found:
        found["psnr"] &= out["psnr"] < FINE
    return found | {ANY: np.any(list(found.values()), axis=0)}


def gain(name: str, came: Numbers, out: Numbers) -> Numbers:
    """[R] by how much better what was delivered is, in the column's unit."""
    return out - came if name in HIGHER else came - out


@dataclass(frozen=True)
class Change:
    """Means of one metric over some faces."""

    came: float
    out: float
    # out - came, face by face
    difference: Score


@dataclass(frozen=True)
class Judged:
    """What a way made of a set: every number in the order of the set's sheet."""

    name: str
    # column → [R] of what came and of what was delivered
    came: Mapping[str, Numbers]
    out: Mapping[str, Numbers]
    # seconds and network calls a picture, parameters in all; what is known
    cost: Mapping[str, float]

    @cached_property
    def worse(self) -> dict[str, Faces]:
        """As the function `worse`."""
        return worse(self.came, self.out)

    @cached_property
    def untouched(self) -> Faces:
        """[R], True where what was delivered measures as what came: the face was left as it is, or not found."""
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
        """Share of these faces that were delivered worse than they came, by each metric and by ANY."""
        return {name: float(faces[rows].mean()) for name, faces in self.worse.items() if rows.any()}


@dataclass(frozen=True)
class Cuts:
    """How the rows of a set are put together."""

    # level → [R]
    levels: Mapping[str, Faces]
    # group → [R]; empty where nobody said
    groups: Mapping[str, Faces]
    # [R] photograph of each row
    numbers: Sequence[int]

    def photographs(self, rows: Faces) -> int:
        """How many photographs these rows are of."""
        return len(set(np.asarray(self.numbers)[rows].tolist()))

    def gain(self, judged: Judged, name: str, rows: Faces) -> Score | None:
        """Mean gain of a metric over the damaged levels of these rows; None where nothing is known.

        A photograph's levels are averaged first: they are no independent faces.
        """
        damaged = rows & ~self.levels.get(CLEAN, np.zeros_like(rows))
        values = gain(name, judged.came[name], judged.out[name])
        damaged = damaged & np.isfinite(values)
        if not damaged.any():
            return None
        _, place = np.unique(np.asarray(self.numbers)[damaged], return_inverse=True)
        return mean(np.bincount(place, values[damaged]) / np.bincount(place))


def cut(levels: Sequence[str], groups: Sequence[str | None], numbers: Sequence[int]) -> Cuts:
    """The rows by level and group, each in the order in which they come; groups by name."""
    level, group = np.array(levels), np.array([g or "" for g in groups])
    return Cuts(
        {name: level == name for name in dict.fromkeys(levels)},
        {name: group == name for name in sorted({g for g in groups if g})},
        numbers,
    )
