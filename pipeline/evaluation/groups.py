"""Scores, gain, harm and gate decisions by groups of people, with 95 % intervals.

The photographs are the sampling units: the values of one at several levels are averaged first. Means have Student's t
interval over the photographs, shares Wilson's (1927) with the photographs as draws, which does not collapse where no
face or every face is counted.

A group's gain is below half of that of all where d = g - m / 2 is negative beyond its interval. The group is a part of
all, so that its variance is that of the linearised difference, the sum over all photographs i of

    ([i in group] (x_i - g) / n_g - (x_i - m) / (2 n))²
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from pipeline.evaluation.decisions import DECISIONS
from pipeline.evaluation.delivered import METRICS
from pipeline.evaluation.harm import ANY, Cuts, VariantResult, gain
from pipeline.evaluation.labels import Labels
from pipeline.evaluation.scores import Faces, Numbers, Score, Z

# A group of fewer photographs is marked: an interval of its shares spans up to 35 percentage points.
FEW = 30
# Metrics whose gain is compared between a group and all.
COMPARED = ("psnr", "lpips")
ALL = "all"
UNITS = {"psnr": " dB", "angle": "°", "lpips": "", "ssim": ""}
PLACES = {"psnr": 2, "angle": 1, "lpips": 3, "ssim": 3}

Table = list[dict[str, str]]


@dataclass(frozen=True)
class Share:
    """A share of faces with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.0%} ({100 * self.low:.0f} to {100 * self.high:.0f})"

    def numbers(self) -> dict[str, float]:
        """For programs."""
        return {"share": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Groups:
    """The rows of a set by the labels of their photographs, and what variants made of them."""

    # column → label of each row
    labels: Labels
    # gains count at its damaged levels
    cuts: Cuts
    variants: Sequence[VariantResult]
    # variant → each row's decision, of those with gates
    decisions: Mapping[str, Sequence[str]]

    @property
    def tables(self) -> list[Table]:
        """For every column and variant its scores, gain and harm, and what the gates decided."""
        found = []
        for column in self.labels:
            for variant in self.variants:
                found.append(self._score_table(variant, column))
                if variant.name in self.decisions:
                    found.append(self._decision_table(variant, column))
        return found

    @property
    def sentences(self) -> list[str]:
        """Groups whose gain is below half of that of all, and what the tables' words mean."""
        if not self.labels:
            return []
        few = (
            f"Groups of fewer than {FEW} photographs are marked few. Intervals are of 95 % with the photographs as "
            "draws, and are not widened for the number of groups."
        )
        return [*self._shortfalls(), few]

    def values(self, variant: VariantResult) -> dict[str, dict[str, Any]]:
        """Column → label → what was measured of a variant, for programs."""
        return {
            column: {label: self._summary(variant, rows) for label, rows in self._groups(column).items()}
            for column in self.labels
        }

    def metrics(self) -> dict[str, float]:
        """VARIANT/by COLUMN/LABEL/name → its value, for MLflow."""
        found: dict[str, float] = {}
        for variant in self.variants:
            for column in self.labels:
                for label, rows in self._groups(column).items():
                    place = f"{variant.name}/by {column}/{label}"
                    found[f"{place}/photographs"] = self.cuts.photographs(rows)
                    for name, score in self._gains(variant, rows).items():
                        found[f"{place}/gain {METRICS[name]}"] = score.value
                        found[f"{place}/gain {METRICS[name]} interval"] = score.half
                    shares = self._harm(variant, rows) | self._decided(variant, rows)
                    for name, share in shares.items():
                        found |= {f"{place}/{name} {end}": v for end, v in share.numbers().items()}
        return found

    def _groups(self, column: str) -> dict[str, Faces]:
        """The rows of each label, sorted, and of all photographs."""
        labels = np.array([label or "" for label in self.labels[column]])
        named = {name: labels == name for name in sorted(set(labels.tolist()) - {""}, key=by_number)}
        return named | {ALL: np.ones(len(labels), np.bool_)}

    def _of_photographs(self, values: Numbers, rows: Faces) -> dict[int, float]:
        """Photograph → mean of its finite values in these rows."""
        known = rows & np.isfinite(values)
        numbers, place = np.unique(np.asarray(self.cuts.numbers)[known], return_inverse=True)
        means = np.bincount(place, values[known], len(numbers)) / np.bincount(place, minlength=len(numbers))
        return dict(zip(numbers.tolist(), means.tolist(), strict=True))

    def _mean(self, values: Numbers, rows: Faces) -> Score | None:
        found = np.array(list(self._of_photographs(values, rows).values()))
        return mean_over(found) if len(found) else None

    def _share(self, counted: Faces, rows: Faces) -> Share:
        found = self._of_photographs(counted.astype(np.float64), rows)
        return wilson(float(np.mean(list(found.values()))), len(found))

    def _gains(self, variant: VariantResult, rows: Faces) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for name in (n for n in METRICS if n in variant.came and n in variant.out):
            values = gain(name, variant.came[name], variant.out[name])
            score = self._mean(values, rows & self.cuts.damaged)
            found |= {name: score} if score else {}
        return found

    def _harm(self, variant: VariantResult, rows: Faces) -> dict[str, Share]:
        return {f"harm {METRICS.get(n, n)}": self._share(faces, rows) for n, faces in variant.worse.items()}

    def _decided(self, variant: VariantResult, rows: Faces) -> dict[str, Share]:
        """Decision → its share of the faces, of those that occur in any group."""
        decided = np.array(self.decisions.get(variant.name, ()))
        there = [name for name in DECISIONS if name in set(decided.tolist())]
        return {name: self._share(decided == name, rows) for name in there}

    def _summary(self, variant: VariantResult, rows: Faces) -> dict[str, Any]:
        damaged = rows & self.cuts.damaged
        scores = {}
        for name, score in self._gains(variant, rows).items():
            ends = {
                "in": self._mean(variant.came[name], damaged),
                "out": self._mean(variant.out[name], damaged),
            }
            scores[METRICS[name]] = {
                "gain": numbers(score),
                **{end: numbers(mean) for end, mean in ends.items() if mean},
            }
        photographs = self.cuts.photographs(rows)
        return {
            "photographs": photographs,
            "few": photographs < FEW,
            "scores": scores,
            "harm": {n.removeprefix("harm "): s.numbers() for n, s in self._harm(variant, rows).items()},
            "levels": {
                level: self._share(variant.worse[ANY], rows & here).numbers()
                for level, here in self.cuts.levels.items()
                if (rows & here).any()
            },
            "decisions": {name: share.numbers() for name, share in self._decided(variant, rows).items()},
        }

    def _counted(self, rows: Faces) -> str:
        count = self.cuts.photographs(rows)
        return f"{count} (few)" if count < FEW else str(count)

    def _score_table(self, variant: VariantResult, column: str) -> Table:
        table = []
        for label, rows in self._groups(column).items():
            row = {f"{variant.name}, by {column}": label, "n": self._counted(rows)}
            for name, score in self._gains(variant, rows).items():
                came, out = (
                    self._mean(v[name], rows & self.cuts.damaged) for v in (variant.came, variant.out)
                )
                places = PLACES[name]
                ends = [f"{s.value:.{places}f}" for s in (came, out) if s]
                row[f"{METRICS[name]} in → out (gain)"] = (
                    f"{' → '.join(ends)}{UNITS[name]} ({signed(score, places)})"
                )
            row |= {n.replace("harm", "worse by"): str(s) for n, s in self._harm(variant, rows).items()}
            if len(self.cuts.levels) > 1:
                shares = (self._level_harm(variant, rows & here) for here in self.cuts.levels.values())
                row[f"worse by any: {' / '.join(self.cuts.levels)}"] = " / ".join(shares)
            table.append(row)
        return table

    def _level_harm(self, variant: VariantResult, rows: Faces) -> str:
        return f"{variant.worse[ANY][rows].mean():.0%}" if rows.any() else "-"

    def _decision_table(self, variant: VariantResult, column: str) -> Table:
        return [
            {f"{variant.name}, decisions by {column}": label, "n": self._counted(rows)}
            | {name: str(share) for name, share in self._decided(variant, rows).items()}
            for label, rows in self._groups(column).items()
        ]

    def _shortfalls(self) -> Iterator[str]:
        """A sentence for every group whose gain is below half of that of all, beyond the interval."""
        for variant in self.variants:
            for column in self.labels:
                groups = self._groups(column)
                for name in (n for n in COMPARED if n in variant.came and n in variant.out):
                    values = gain(name, variant.came[name], variant.out[name])
                    every = self._of_photographs(values, groups[ALL] & self.cuts.damaged)
                    for label, rows in groups.items():
                        inside = self._of_photographs(values, rows & self.cuts.damaged)
                        if is_below_half(every, inside):
                            gains = [np.mean(list(found.values())) for found in (inside, every)]
                            ours, theirs = (f"{g:+.{PLACES[name]}f}{UNITS[name]}" for g in gains)
                            yield (
                                f"{variant.name}: the gain in {METRICS[name]} of {column} {label}, {ours} over "
                                f"{len(inside)} photographs, is below half of that of all, {theirs}, beyond the 95 % "
                                "interval."
                            )


def by_number(label: str) -> tuple[int, str]:
    """Orders ranges by the number that they begin with, 3-9 before 10-19, and other labels by name."""
    digits = re.match(r"\d+", label)
    return int(digits[0]) if digits else -1, label


def is_below_half(every: Mapping[int, float], inside: Mapping[int, float]) -> bool:
    """Whether a group's mean gain is below half of that of all photographs beyond the 95 % interval.

    every, inside: gain of each photograph, and of those in the group. False where that of all is no gain.
    """
    if len(inside) < 2 or len(inside) == len(every):
        return False
    x = np.array(list(every.values()))
    in_group = np.isin(np.array(list(every)), list(inside))
    overall, group = mean_over(x), x[in_group].mean()
    if overall.value <= overall.half:
        return False
    parts = np.where(in_group, (x - group) / in_group.sum(), 0) - (x - overall.value) / (2 * len(x))
    error = math.sqrt(float(np.square(parts).sum()) * len(inside) / (len(inside) - 1))
    return bool(group - overall.value / 2 + student(len(inside)) * error < 0)


def student(count: int) -> float:
    """The 97.5 % quantile of Student's t for the mean of `count` values."""
    return float(stdtrit(count - 1, 0.975))


def mean_over(values: Numbers) -> Score:
    """The mean of finite values with the half width of Student's t interval; nan for one value."""
    count = len(values)
    half = student(count) * values.std(ddof=1) / math.sqrt(count) if count > 1 else float("nan")
    return Score(float(values.mean()), float(half), count)


def wilson(value: float, count: int) -> Share:
    """Wilson's 95 % interval of a share over `count` draws."""
    centre = (value + Z * Z / (2 * count)) / (1 + Z * Z / count)
    reach = Z * math.sqrt(value * (1 - value) / count + (Z / (2 * count)) ** 2) / (1 + Z * Z / count)
    return Share(value, max(centre - reach, 0.0), min(centre + reach, 1.0))


def numbers(score: Score) -> dict[str, float | None]:
    """For programs; the interval of a single photograph is None."""
    return {"value": score.value, "interval": score.half if math.isfinite(score.half) else None}


def signed(score: Score, places: int) -> str:
    """A difference with its sign and interval."""
    half = f" ± {score.half:.{places}f}" if math.isfinite(score.half) else ""
    return f"{score.value:+.{places}f}{half}"
