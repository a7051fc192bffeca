"""Prediction of the error of an estimate: a weighted sum of the logarithms of what is measured without the truth.

Fitted on some people and tested on others: each face is predicted by a model fitted without the people of its fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.harm import CLEAN
from pipeline.faces.error_features import FEATURES, GROUPS, OF_CROP, ErrorModel
from pipeline.reporting.palette import FAINT, INK, OCHRE, TEAL
from pipeline.reporting.plots import Figure

Numbers = NDArray[np.float64]
Faces = NDArray[np.bool_]

# Parts of the people, each tested by a model that was fitted to the others.
FOLDS = 5
# Resamplings of the people for an interval.
RESAMPLED = 1000
# Penalty on squared weights of measurements in standard deviations, for each face.
RIDGE = 1e-3
# Quantiles to which a measurement is clipped: its square would extrapolate far beyond them.
WITHIN = (0.005, 0.995)
# Ends the name of a measurement's square.
SQUARE = "²"
# People from which a model is fitted: fewer leave folds of too few.
LEAST_PEOPLE = 10
DELTA, CURVED, ALL, CROP = "δ", "δ, curved", "all", "all but scale and JPEG"
_BOTH = ("change", f"change{SQUARE}")
# Measurements of each model, by its name. The last has none of the file, which may have been enlarged or coded again.
SETS: Mapping[str, tuple[str, ...]] = {
    DELTA: ("change",),
    CURVED: _BOTH,
    **{name: (*_BOTH, *group) for name, group in GROUPS.items()},
    ALL: (*FEATURES, *(name + SQUARE for name in FEATURES)),
    CROP: (*OF_CROP, *(name + SQUARE for name in OF_CROP)),
}


@dataclass(frozen=True)
class ErrorSample:
    """A damaged face with the error of its estimate."""

    photograph: int
    # of the photograph, by its name
    person: str
    level: str
    # whether the picture is the damaged file itself, or was enlarged to the photograph's size and lost its tables
    stored: bool
    # mean |f(y) - x| over the face, levels
    error: float
    # logarithms, by name (faces/error_features.py)
    features: Mapping[str, float]
    # by the name of a treatment, where it was tried: the delivered picture's measurements
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def fit_damaged(samples: Sequence[ErrorSample], name: str) -> ErrorModel:
    """The model of a set, fitted to the damaged faces of these."""
    damaged = [sample for sample in samples if sample.level != CLEAN]
    return fit_model([s.features for s in damaged], np.log([s.error for s in damaged]), SETS[name])


def fit_model(features: Sequence[Mapping[str, float]], target: Numbers, names: Sequence[str]) -> ErrorModel:
    """By least squares with the penalty RIDGE. target: [F]; names: of SETS."""
    given = [name for name in names if not name.endswith(SQUARE)]
    found = np.array([[one[name] for name in given] for one in features], np.float64)
    least, most = np.quantile(found, WITHIN, axis=0)
    logs = np.clip(found, least, most)
    squared = [name + SQUARE in names for name in given]
    x = np.concatenate([logs, logs[:, squared] ** 2], axis=1)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # what is the same for all faces predicts nothing
    deviation[deviation < 1e-9] = np.inf
    scaled = (x - mean) / deviation
    normal = scaled.T @ scaled + RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(normal, scaled.T @ (target - target.mean())) / deviation
    of_squares = np.zeros(len(given))
    of_squares[squared] = weights[len(given) :]
    terms = np.stack([least, most, weights[: len(given)], of_squares], axis=1).tolist()
    offset = float(target.mean() - weights @ mean)
    return ErrorModel(offset, {n: (a, b, c, d) for n, (a, b, c, d) in zip(given, terms, strict=True)})


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval, by resampling people."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def is_above_zero(self) -> bool:
        """Whether all of it is."""
        return self.low > 0


def folds_of(people: Sequence[str]) -> NDArray[np.int64]:
    """[F] the fold of each face: all faces of a person are in one."""
    names, place = np.unique(np.array(people), return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return np.asarray(fold[place], np.int64)


def predict_held_out(
    features: Sequence[Mapping[str, float]],
    target: Numbers,
    people: Sequence[str],
    names: Sequence[str],
    fitted: Faces | None = None,
) -> Numbers:
    """[F] the target of each face as predicted by a model of the other folds' people.

    fitted: [F], the faces that models are fitted to; None: all.
    """
    folds, found = folds_of(people), np.empty(len(target))
    fitted = np.ones(len(target), bool) if fitted is None else fitted
    for fold in np.unique(folds):
        own = folds == fold
        others = fitted & ~own
        model = fit_model([features[i] for i in indices(others)], target[others], names)
        found[own] = [model(features[i]) for i in indices(own)]
    return found


def indices(faces: Faces) -> list[int]:
    """Of the faces of a mask."""
    return [int(i) for i in np.flatnonzero(faces)]


def resample(people: Sequence[str], measure: Callable[[NDArray[np.int64]], float]) -> Interval:
    """A measure of faces with its interval. measure: indices of faces, some of them repeated → its value."""
    names, place = np.unique(np.array(people), return_inverse=True)
    rng, faces = np.random.default_rng(0), np.arange(len(people))
    drawn = []
    for _ in range(RESAMPLED):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        drawn.append(measure(np.repeat(faces, times[place])))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Interval(measure(faces), float(low), float(high))


def explained(target: Numbers, predicted: Numbers) -> float:
    """Share of the target's variance that a prediction explains: 1 less squared error by variance."""
    return float(1 - np.square(target - predicted).sum() / np.square(target - target.mean()).sum())


def ordered(target: Numbers, predicted: Numbers) -> float:
    """The same for what is similar to begin with: squared correlation, negative where the correlation is."""
    if not (np.ptp(target) and np.ptp(predicted)):
        return 0.0
    found = float(np.corrcoef(target, predicted)[0, 1])
    return found * abs(found)


@dataclass(frozen=True)
class Predictions:
    """The errors of some faces, predicted from each of SETS by models of other people."""

    samples: Sequence[ErrorSample]
    # [F] logarithms of levels; by name of SETS
    target: Numbers
    predicted: Mapping[str, Numbers]

    @classmethod
    def of(cls, samples: Sequence[ErrorSample]) -> "Predictions":
        """Of the faces of one kind, stored or enlarged; models are fitted to damaged ones."""
        target = np.log([sample.error for sample in samples])
        features, people = [sample.features for sample in samples], [sample.person for sample in samples]
        fitted = np.array([sample.level != CLEAN for sample in samples])
        predicted = {
            name: predict_held_out(features, target, people, names, fitted) for name, names in SETS.items()
        }
        return cls(samples, target, predicted)

    @classmethod
    def carried(cls, fitted: Sequence[ErrorSample], samples: Sequence[ErrorSample]) -> "Predictions":
        """Of the faces of another collection than those that the models are fitted to."""
        models = {name: fit_damaged(fitted, name) for name in SETS}
        predicted = {name: np.array([model(s.features) for s in samples]) for name, model in models.items()}
        return cls(samples, np.log([sample.error for sample in samples]), predicted)

    @property
    def levels(self) -> list[str]:
        """Those of damaged faces: the error of one that is not damaged is δ."""
        return list(dict.fromkeys(s.level for s in self.samples if s.level != CLEAN))

    def at(self, *levels: str) -> NDArray[np.int64]:
        """Indices of the faces of these levels."""
        return np.flatnonzero([sample.level in levels for sample in self.samples])

    def share(self, name: str, levels: Sequence[str], beyond: str | None = None) -> Interval:
        """Variance of the logarithmic error that a set explains; within one level in its order.

        beyond: less what that set explains, of the same faces.
        """
        at = self.at(*levels)
        measure = ordered if len(levels) == 1 else explained

        def of(faces: NDArray[np.int64]) -> float:
            rows = at[faces]
            found = measure(self.target[rows], self.predicted[name][rows])
            return found - (measure(self.target[rows], self.predicted[beyond][rows]) if beyond else 0)

        return resample([self.samples[i].person for i in at], of)


def describe_predictions(found: Predictions) -> str:
    """Explained variance by set, of all damaged faces and within each level: a table in Markdown.

    A star marks what explains more than δ alone, curved, beyond its interval.
    """
    columns = {"all damaged": found.levels} | {level: [level] for level in found.levels}
    lines = [f"| measured | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in SETS:
        cells = []
        for levels in columns.values():
            better = name not in (DELTA, CURVED) and found.share(name, levels, beyond=CURVED).is_above_zero
            cells.append(f"{found.share(name, levels)}{' *' if better else ''}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_predictions(found: Predictions) -> bytes:
    """PNG: predicted against true error of the damaged faces, by δ alone and by all that is measured."""
    figure = Figure((11, 5), 1, 2)
    damaged = found.at(*found.levels)
    ends = np.exp([found.target[damaged].min(), found.target[damaged].max()])
    colours = dict(zip(found.levels, (FAINT, TEAL, OCHRE, INK), strict=False))
    for panel, name in zip(figure.panels, (DELTA, CROP), strict=True):
        share = found.share(name, found.levels)
        panel.title(f"{name}: explains {share}", "true error, levels", "predicted error, levels")
        panel.line(ends, ends, FAINT)
        for level in found.levels:
            faces = found.at(level)
            true, predicted = np.exp(found.target[faces]), np.exp(found.predicted[name][faces])
            panel.line(true, predicted, colours.get(level, INK), level, ".")
        panel.logarithmic("x")
        panel.logarithmic("y")
        panel.legend("lower right")
    return figure.png()
