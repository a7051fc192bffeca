"""Scores of real faces without ground truth, as the NTIRE challenge on real-world face restoration gives them.

Source: the reports of 2025 (arXiv 2504.14600) and 2026 (arXiv 2604.10532). A set's score is a sum of terms of the means
of five metrics without reference, and of FID to FFHQ; a set of restorations is refused where too many faces no longer
look like their inputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.evaluation.scores import RESAMPLES, Faces, Numbers, Score, Z, mean
from pipeline.metrics.distribution import FeatureStatistics

FID = "fid"
# Metric → its term of the score, of its mean.
TERMS: Mapping[str, Callable[[float], float]] = {
    "clipiqa": lambda value: value,
    "maniqa": lambda value: value,
    "musiq": lambda value: value / 100,
    "niqe": lambda value: max(0.0, (10 - value) / 10),
    "qalign": lambda value: value / 5,
    FID: lambda value: max(0.0, (100 - value) / 100),
}
# Metric → its name for people.
NAMES: Mapping[str, str] = {
    "clipiqa": "CLIPIQA", "maniqa": "MANIQA", "musiq": "MUSIQ", "niqe": "NIQE", "qalign": "Q-Align", FID: "FID",
    "arniqa": "ARNIQA",
}  # fmt: skip
# A set of restorations with more faces than this below their thresholds fails.
MOST_CHANGED = 10
# Lowest cosine of AdaFace's embeddings of input and restoration, by the beginning of a test set's name.
COSINES: Mapping[str, float] = {"wider": 0.3, "webphoto": 0.3, "lfw": 0.6, "celebchild": 0.6, "celeba": 0.5}
# That of faces of no set of the challenge: its lowest.
OTHER_COSINE = min(COSINES.values())


@dataclass(frozen=True)
class IdentityRule:
    """Which embedding compares an input with its restoration, and the lowest cosine by test set."""

    network: str
    cosines: Mapping[str, float]
    other: float
    # whether it is the challenge's own rule
    is_official: bool

    def threshold(self, path: str) -> float:
        """The lowest cosine for a picture, from the name of the test set in its path."""
        return self.cosines.get(test_set_of(path) or "", self.other)


ADAFACE = IdentityRule("AdaFace", COSINES, OTHER_COSINE, is_official=True)
# By dlib's embedding, for which the challenge has no thresholds: 23 degrees for the sets of mild damage, 28 elsewhere
# (docs/evaluation.md says how they were chosen).
_MILD, _HEAVY = (math.cos(math.radians(degrees)) for degrees in (23, 28))
DLIB = IdentityRule("dlib", dict.fromkeys(("lfw", "celebchild", "celeba"), _MILD), _HEAVY, is_official=False)


def test_set_of(path: str) -> str | None:
    """The test set of COSINES that a picture's path names, in its last part that names one; None without any."""
    for part in reversed(path.split("/")):
        name = "".join(c for c in part.lower() if c.isalnum())
        found = next((known for known in COSINES if name.startswith(known)), None)
        if found:
            return found
    return None


@dataclass(frozen=True)
class Total:
    """The sum of the terms that were measured."""

    # its half width takes the faces' metrics and FID as independent
    score: Score
    # terms that are missing; the score of the challenge has all
    without: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it is the challenge's score."""
        return not self.without

    def __str__(self) -> str:
        text = f"{self.score.value:.3f} ± {self.score.half:.3f}"
        return (
            text if self.is_whole else f"partial, without {', '.join(NAMES[n] for n in self.without)}: {text}"
        )


@dataclass(frozen=True)
class ChallengeRow:
    """One row of the table: what was measured of each face, in the order of the set's sheet."""

    name: str
    # metric without reference → [F], nan where a face has no value
    values: Mapping[str, Numbers]
    # to the reference
    fid: Score | None
    # [F] cosine of the embeddings of input and this picture; None of the inputs themselves
    cosines: Numbers | None
    # [F] the lowest allowed
    thresholds: Numbers
    # known costs: parameters, network calls and seconds per face
    cost: Mapping[str, float]

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Mean of every metric, and FID, where a face has a value."""
        found = {name: mean(v) for name, v in self.values.items() if np.isfinite(v).any()}
        return found | ({FID: self.fid} if self.fid else {})

    @cached_property
    def total(self) -> Total | None:
        """The score; None where no term was measured."""
        scores = {name: self.scores[name] for name in TERMS if name in self.scores}
        if not scores:
            return None
        halves = [self._half_of_faces([n for n in scores if n != FID])]
        halves += [_half_of_term(FID, scores[FID])] if FID in scores else []
        value = sum(TERMS[name](score.value) for name, score in scores.items())
        score = Score(value, math.hypot(*halves), min(score.faces for score in scores.values()))
        return Total(score, tuple(name for name in TERMS if name not in scores))

    def _half_of_faces(self, names: Sequence[str]) -> float:
        """Half width of the sum of the terms that are means over faces; they depend on each other face by face."""
        clipped = {n for n in names if TERMS[n](self.scores[n].value) == 0}
        terms = [[TERMS[n](v) for v in self.values[n]] for n in names if n not in clipped]
        return mean(np.sum(terms, axis=0)).half if terms else 0.0

    @property
    def changed(self) -> Faces:
        """[F], True where the face no longer looks like its input; a face without an embedding does."""
        if self.cosines is None:
            return np.zeros(len(self.thresholds), np.bool_)
        return np.asarray(self.cosines < self.thresholds)

    @property
    def is_refused(self) -> bool:
        """Whether too many faces changed for the challenge."""
        return int(self.changed.sum()) > MOST_CHANGED


def _half_of_term(name: str, score: Score) -> float:
    """Half width of a term that falls linearly, 0 where it is at its bound."""
    ends = [TERMS[name](score.value + step) for step in (-score.half, score.half)]
    return abs(ends[1] - ends[0]) / 2


def cosine_rows(ours: Numbers, theirs: Numbers) -> Numbers:
    """[F] cosines of the rows of two [F, D]; nan for a row of length 0 or without values."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = np.sum(ours * theirs, axis=1)
    cosines: Numbers = np.divide(products, lengths, out=np.full(len(ours), np.nan), where=lengths > 0)
    return cosines


def fid_to(features: Numbers, reference: FeatureStatistics) -> Score:
    """FID of features, [F, D], to the statistics of a reference, with a bootstrap interval over the faces.

    The half width is that of the resampled distances around their own mean: resampling is biased upwards.
    """
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(features), size=len(features)) for _ in range(RESAMPLES)]
    spread = np.std([distance_to(features[d], reference) for d in draws], ddof=1)
    return Score(distance_to(features, reference), float(Z * spread), len(features))


def distance_to(features: Numbers, reference: FeatureStatistics) -> float:
    """The Fréchet distance of features, [F, D] with F > 1, to statistics.

    The eigenvalues of Σ1 Σ2 are those of A Σ2 Aᵀ, with A the centred features over sqrt(F - 1): a matrix of F x F,
    which is small for few faces; R of A's QR decomposition does for many.
    """
    gap = features.mean(axis=0) - reference.mean
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    spread = np.square(centred).sum() + np.trace(reference.covariance)
    if len(centred) > centred.shape[1]:
        centred = np.asarray(np.linalg.qr(centred, mode="r"))
    values = np.linalg.eigvalsh(centred @ reference.covariance @ centred.T)
    return float(gap @ gap + spread - 2 * np.sqrt(values.clip(0)).sum())
