"""Uses of a prediction of a face's error: choosing the treatment by it, and predicting harm.

Tables of treatments are fitted to some people by each of several rules, and tested on other people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipeline.evaluation.calibration import LEFT, Bounds, Candidate, choose
from pipeline.evaluation.error_fit import (
    CROP,
    ErrorSample,
    Interval,
    Predictions,
    folds_of,
    predict_held_out,
    resample,
)
from pipeline.evaluation.gate_fit import chosen
from pipeline.evaluation.harm import ANY, worse
from pipeline.faces.error_features import FEATURES

Numbers = NDArray[np.float64]

METRICS = ("psnr", "angle", "lpips")
# The rule that ships, the same fitted anew, and what it is compared with.
SHIPPED, DELTA, PREDICTED, TRUE = "preset's table, by δ", "δ", "predicted error", "true error"


@dataclass(frozen=True)
class Choices:
    """The treatment of each face by some rules, and what was measured of every treatment."""

    samples: Sequence[ErrorSample]
    # candidate → column → [F]
    measured: Mapping[Candidate, Mapping[str, Numbers]]
    # rule → the candidate of each face
    chosen: Mapping[str, Sequence[Candidate]]

    @property
    def people(self) -> list[str]:
        """Of each face."""
        return [sample.person for sample in self.samples]

    def delivered(self, rule: str) -> dict[str, Numbers]:
        """Column → [F] of what a rule delivers."""
        return {
            name: np.array([self.measured[c][name][i] for i, c in enumerate(self.chosen[rule])])
            for name in METRICS
        }

    def harmed(self, rule: str, by: str) -> Numbers:
        """[F] 1 where a rule delivers a face worse than it came, by a metric or ANY."""
        return worse(self.measured[LEFT], self.delivered(rule))[by].astype(np.float64)


def choose_treatments(
    found: Predictions, rows: Sequence[Mapping[str, object]], each: int, bounds: Bounds
) -> Choices:
    """The faces of which treatments were measured, each treated by tables fitted to other people.

    found: predictions of faces that were enlarged. rows: the preset's [[treatment]]. each: faces of one bin.
    """
    tried = [i for i, sample in enumerate(found.samples) if sample.measured]
    samples = [found.samples[i] for i in tried]
    table = [(float(str(row["above"])), Candidate.of_row(row)) for row in rows]
    candidates = [LEFT, *dict.fromkeys(c for _, c in table if c != LEFT)]
    measured = {
        c: {m: np.array([s.measured[c.name].get(m, np.nan) for s in samples]) for m in METRICS}
        for c in candidates
    }
    delta = np.exp([sample.features["change"] for sample in samples])
    scores = {
        DELTA: delta,
        PREDICTED: np.exp(found.predicted[CROP][tried]),
        TRUE: np.array([sample.error for sample in samples]),
    }
    folds = folds_of([sample.person for sample in samples])
    choices: dict[str, list[Candidate]] = {
        SHIPPED: [[c for above, c in table if above <= d or above == 0][-1] for d in delta]
    }
    for rule, score in scores.items():
        made: dict[int, Candidate] = {}
        for fold in np.unique(folds):
            others = folds != fold
            known = {c: {m: v[others] for m, v in columns.items()} for c, columns in measured.items()}
            bins = choose(score[others], known, each, bounds)
            made |= {int(i): chosen(score[i], bins) for i in np.flatnonzero(~others)}
        choices[rule] = [made[i] for i in range(len(samples))]
    return Choices(samples, measured, choices)


def describe_choices(found: Choices) -> str:
    """What each rule delivers at each level, and by how much it differs from δ: a table in Markdown."""
    lines = [
        "| level | rule | left | PSNR | angle | LPIPS | worse: angle, any "
        "| LPIPS less that of δ | worse in any less that of δ, % |",
        "|---" * 9 + "|",
    ]
    levels = np.array([sample.level for sample in found.samples])
    for level in [*dict.fromkeys(levels), ""]:
        at = np.flatnonzero(levels == level) if level else np.arange(len(levels))
        people = [found.people[i] for i in at]
        for rule, made in found.chosen.items():
            out = {name: values[at] for name, values in found.delivered(rule).items()}
            angle, any_ = (found.harmed(rule, by)[at] for by in ("angle", ANY))
            left = np.mean([made[int(i)] == LEFT for i in at])
            more = out["lpips"] - found.delivered(DELTA)["lpips"][at]
            harm = any_ - found.harmed(DELTA, ANY)[at]
            lines.append(
                f"| {level or 'all'} | {rule} | {left:.0%} | {out['psnr'].mean():.2f} | {out['angle'].mean():.2f} "
                f"| {out['lpips'].mean():.4f} | {angle.mean():.1%}, {any_.mean():.1%} "
                f"| {_difference(more, people, 4)} | {_difference(100 * harm, people, 1)} |"
            )
    return "\n".join(lines) + "\n"


def _difference(values: Numbers, people: Sequence[str], digits: int) -> str:
    """A mean with its interval; nothing where all values are 0."""
    if not values.any():
        return "0"
    found = resample(people, lambda faces: float(values[faces].mean()))
    return f"{found.value:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def separation(harmed: NDArray[np.bool_], score: Numbers) -> float:
    """Area under the curve: how often a harmed face has the higher score than one that is not; 0.5 is chance."""
    number = int(harmed.sum())
    if not 0 < number < len(harmed):
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[harmed].sum() - number * (number + 1) / 2) / (number * (len(harmed) - number)))


def describe_harm(found: Choices, predictions: Predictions, levels: Sequence[str]) -> str:
    """Whether faces whose angle to the true face the preset's table enlarges are predicted: a table in Markdown.

    Of restored faces, by each measurement, by the predicted error, and by a prediction of the angle itself.
    """
    made = found.chosen[SHIPPED]
    at = np.array([i for i, c in enumerate(made) if c != LEFT and found.samples[i].level in levels], np.int64)
    if not len(at):
        return "no face of these levels is restored\n"
    samples, people = [found.samples[i] for i in at], [found.people[i] for i in at]
    harmed = found.harmed(SHIPPED, "angle")[at] > 0
    count = (
        f"{int(harmed.sum())} of {len(at)} restored faces of {' and '.join(levels)} damage lie more than 2 degrees "
        "further from the true face than they came"
    )
    if harmed.all() or not harmed.any():
        return f"{count}\n"
    turned = (found.delivered(SHIPPED)["angle"] - found.measured[LEFT]["angle"])[at]
    place = {id(sample): i for i, sample in enumerate(predictions.samples)}
    error = predictions.predicted[CROP][[place[id(sample)] for sample in samples]]
    features = [sample.features for sample in samples]
    scores = {name: np.array([one[name] for one in features]) for name in FEATURES}
    scores |= {"predicted error": error, "true error": np.log([sample.error for sample in samples])}
    scores["predicted growth of the angle"] = predict_held_out(features, turned, people, FEATURES)
    lines = [
        f"{count}:",
        "",
        "| predicted by | area under the curve |",
        "|---|---|",
    ]
    for name, score in scores.items():
        lines.append(f"| {name} | {_area(harmed, score, people)} |")
    return "\n".join(lines) + "\n"


def _area(harmed: NDArray[np.bool_], score: Numbers, people: Sequence[str]) -> Interval:
    return resample(people, lambda faces: separation(harmed[faces], score[faces]))
