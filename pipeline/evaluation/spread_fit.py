"""Fit of a preset's [spread]: how far the samples of a face may differ before it is more the model's than the person's.

Held against the truth, the angle between embeddings of delivered and true face says how far the person was missed. The
bound is the identity spread at which every second face is further from its truth than two photographs of one person
are from each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pipeline.reporting.palette import FAINT, OCHRE, TEAL
from pipeline.reporting.plots import Figure

Numbers = NDArray[np.float64]

# Degrees between embeddings of two photographs of one person (faces/identity.py).
ONE_PERSON = 17.0
# Resamplings of the photographs for an interval.
RESAMPLED = 1000
# Below so many faces a correlation says nothing, and no bound is fitted.
LEAST_FACES = 24


@dataclass(frozen=True)
class Sampled:
    """A face by several chains, of which one is delivered."""

    photograph: int
    delta: float
    # levels, and degrees (faces/spread.py)
    spread: float
    spread_identity: float
    # from the delivered to the true face, degrees, and dB
    angle: float
    psnr: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation with its 95 % interval, by resampling whole photographs."""

    value: float
    low: float
    high: float
    faces: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, {self.faces} faces)"


def correlation(x: Numbers, y: Numbers, photographs: Sequence[int]) -> Correlation | None:
    """Of two measurements of the same faces, [F]; None for too few faces, or values that are all equal."""
    if len(x) < LEAST_FACES or not (np.ptp(x) and np.ptp(y)):
        return None
    rng = np.random.default_rng(0)
    places = [np.flatnonzero(np.asarray(photographs) == number) for number in sorted(set(photographs))]
    drawn = []
    for _ in range(RESAMPLED):
        faces = np.concatenate([places[i] for i in rng.integers(0, len(places), len(places))])
        if np.ptp(x[faces]) and np.ptp(y[faces]):
            drawn.append(_spearman(x[faces], y[faces]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Correlation(_spearman(x, y), float(low), float(high), len(x))


def _spearman(x: Numbers, y: Numbers) -> float:
    return float(spearmanr(x, y).statistic)


def fit_spread(faces: Sequence[Sampled]) -> float | None:
    """The bound, degrees: where a logistic curve of the share of missed faces over the identity spread passes a half.

    None where faces of more spread are not further from the truth, beyond chance, or no bound lies among them.
    """
    spread, missed = _column(faces, "spread_identity"), _column(faces, "angle") > ONE_PERSON
    found = correlation(spread, _column(faces, "angle"), [face.photograph for face in faces])
    if found is None or found.low <= 0 or not 0 < missed.sum() < len(missed):
        return None
    slope, offset = _logistic(spread, missed)
    if slope <= 0 or not spread.min() < (bound := -offset / slope) < spread.max():
        return None
    return round(bound, 1)


def _logistic(x: Numbers, y: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the logistic curve that is most likely, by Newton's method; the slope is kept finite."""
    a = np.stack([x - x.mean(), np.ones_like(x)], axis=1)
    w = np.zeros(2)
    # a weak prior, without which curves of separable faces are steps
    prior = np.diag([1e-3, 1e-6])
    for _ in range(50):
        p = 1 / (1 + np.exp(-(a @ w)))
        step = np.linalg.solve((a.T * (p * (1 - p))) @ a + prior, a.T @ (y - p) - prior @ w)
        w += step
        if np.abs(step).max() < 1e-9:
            break
    return float(w[0]), float(w[1] - w[0] * x.mean())


def describe_spread(faces: Sequence[Sampled], bound: float | None) -> str:
    """What the spread says of the error, in all and by damage, and what the bound marks: lines of Markdown."""
    order = np.argsort(_column(faces, "delta"), kind="stable")
    parts = {"all": order} | {
        f"δ third {i}": part for i, part in enumerate(np.array_split(order, 3), start=1)
    }
    lines = [
        "| faces | identity spread and angle to the truth | deviation and angle | deviation and loss of PSNR |",
        "|---|---|---|---|",
    ]
    pairs = (("spread_identity", "angle"), ("spread", "angle"), ("spread", "psnr"))
    for name, part in parts.items():
        some = [faces[i] for i in part]
        cells = []
        for measure, error in pairs:
            against = _column(some, error) * (-1 if error == "psnr" else 1)
            found = correlation(_column(some, measure), against, [face.photograph for face in some])
            cells.append("too few faces" if found is None else str(found))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if bound is None:
        said = (
            f"no bound: {len(faces)} faces do not show that those of more spread are further from the truth"
        )
    else:
        shares = {name: f"{share:.0%}" for name, share in missed_shares(faces, bound).items()}
        missed = f"{shares['above']} of these lie further than {ONE_PERSON:g} degrees from the truth"
        said = (
            f"above {bound:g} degrees {shares['marked']} of the faces are marked as invented: {missed}, and "
        )
        said += f"{shares['below']} of the others"
    return "\n".join([*lines, "", said]) + "\n"


def missed_shares(faces: Sequence[Sampled], bound: float) -> Mapping[str, float]:
    """Share of the faces that a bound marks; of those `above` and `below` it the shares that miss the person."""
    above = _column(faces, "spread_identity") > bound
    missed = _column(faces, "angle") > ONE_PERSON
    parts = {"above": missed[above], "below": missed[~above]}
    return {"marked": float(above.mean())} | {n: float(m.mean()) if len(m) else 0.0 for n, m in parts.items()}


def draw_spread(faces: Sequence[Sampled], bound: float | None) -> bytes:
    """PNG: angle to the truth by identity spread and by deviation, with the bound."""
    figure = Figure((11, 4.2), 1, 2)
    axes = {
        "spread_identity": "largest angle between samples, degrees",
        "spread": "deviation of the samples, levels",
    }
    angle = _column(faces, "angle")
    for panel, (name, label) in zip(figure.panels, axes.items(), strict=True):
        panel.title("angle from the delivered to the true face, degrees", x=label)
        panel.line(_column(faces, name), angle, TEAL, "a face", "o")
        panel.reference("y", ONE_PERSON, FAINT, "-", "two photographs of one person")
        if name == "spread_identity" and bound is not None:
            panel.reference("x", bound, OCHRE, "--", "invented from here on")
        panel.legend("lower right")
    return figure.png()


def _column(faces: Sequence[Sampled], name: str) -> Numbers:
    return np.array([getattr(face, name) for face in faces], np.float64)
