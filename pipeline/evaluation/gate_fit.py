"""Fit of a preset's gates: how far restored faces of known truth move from the ones that came, by δ.

A gate allows what the treatments of the preset's table do to all but a few faces: `normal` refuses about one in a
hundred, `strict` one in twenty. The identity never allows as much as there is between two persons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.calibration import Bin, Candidate, bins_of
from pipeline.faces.identity import angle
from pipeline.reporting.palette import FAINT, OCHRE, TEAL
from pipeline.reporting.plots import Figure

Numbers = NDArray[np.float64]

# Standard deviations above the mean of similar faces that a level allows.
ALLOWED = {"normal": 3.0, "strict": 1.65}
# Share of pairs of two persons whose angle the identity's bound may reach.
TWO_PERSONS = {"normal": 0.05, "strict": 0.01}
# Shares of the largest shift of a landmark, of the largest change of colour and of the smallest gain that it allows.
LANDMARKS = {"normal": 1.2, "strict": 0.7}
COLOUR, GAIN = {"normal": 1.3, "strict": 0.7}, {"normal": 0.5, "strict": 1.0}
# Knots of a curve at most.
KNOTS = 6


@dataclass(frozen=True)
class Restored:
    """A face by its table's treatment: δ, the measurements of gates.py, and embeddings of input and result."""

    delta: float
    photograph: int
    gates: Mapping[str, float]
    came: Numbers
    embedding: Numbers


def chosen(delta: float, bins: Sequence[Bin]) -> Candidate:
    """The treatment of a face of this δ."""
    return [b.chosen for b in bins if b.least <= delta or b is bins[0]][-1]


def fit_gates(faces: Sequence[Restored]) -> dict[str, dict[str, Any]]:
    """The tables of [gates], by level. faces: those that are not left as they are."""
    ordered = sorted(faces, key=lambda face: face.delta)
    delta = np.array([face.delta for face in ordered])
    others = between(ordered)
    found: dict[str, dict[str, Any]] = {}
    for level, allowed in ALLOWED.items():
        most = float(np.quantile(others, TWO_PERSONS[level]))
        moved, coloured, gained = (_column(ordered, name) for name in ("landmarks", "colour", "gain"))
        found[level] = {
            "identity": curve(delta, _column(ordered, "identity"), allowed, most),
            "landmarks": round(float(moved[np.isfinite(moved)].max(initial=0.05)) * LANDMARKS[level], 2),
            "colour": round(float(coloured.max()) * COLOUR[level]),
            "gain": round(float(np.quantile(gained, 0.01)) * GAIN[level], 2),
        }
    return found


def between(faces: Sequence[Restored]) -> Numbers:
    """Degrees between the input of each face and the results of others of similar δ, which show other persons."""
    pairs = [
        angle(a.came, b.embedding)
        for i, a in enumerate(faces)
        for b in faces[max(i - 4, 0) : i + 5]
        if a.photograph != b.photograph
    ]
    return np.array(pairs)


def curve(delta: Numbers, values: Numbers, allowed: float, most: float) -> list[list[float]]:
    """Rows of δ and bound: `allowed` standard deviations above the mean of similar faces, rising, at most `most`.

    delta: [F], rising. values: [F], nan where not measured.
    """
    rows: list[list[float]] = []
    for faces in bins_of(delta, max(len(delta) // KNOTS, 2)):
        measured = values[faces][np.isfinite(values[faces])]
        if len(measured) < 2:
            continue
        bound = min(float(measured.mean() + allowed * measured.std(ddof=1)), most)
        bound = max([bound, *(row[1] for row in rows)])
        rows.append([round(float(delta[faces].mean()), 2), round(bound, 1)])
    return rows


def draw_gates(faces: Sequence[Restored], tables: Mapping[str, Mapping[str, Any]]) -> bytes:
    """PNG: identity and landmarks of the faces by δ, the angles between two persons, and the bounds."""
    ordered = sorted(faces, key=lambda face: face.delta)
    delta = np.array([face.delta for face in ordered])
    figure = Figure((11, 4.2), 1, 2)
    titles = {
        "identity": "angle between before and after, degrees",
        "landmarks": "largest shift of a landmark from the estimate",
    }
    for panel, (gate, title) in zip(figure.panels, titles.items(), strict=True):
        panel.title(title, x="δ, levels")
        if gate == "identity":
            spread = [(a.delta, angle(a.came, b.embedding)) for a, b in pairwise(ordered)]
            panel.line([d for d, _ in spread], [v for _, v in spread], FAINT, "two persons", "o")
        values = _column(ordered, gate)
        panel.line(delta[np.isfinite(values)], values[np.isfinite(values)], TEAL, "one person", "o")
        for level, style in (("normal", "-"), ("strict", "--")):
            bound = tables[level][gate]
            if isinstance(bound, list):
                panel.line([d for d, _ in bound], [v for _, v in bound], OCHRE, level, style)
            else:
                panel.reference("y", bound, OCHRE, style, level)
        panel.legend("lower right" if gate == "identity" else "upper right")
    return figure.png()


def _column(faces: Sequence[Restored], name: str) -> Numbers:
    return np.array([face.gates.get(name, np.nan) for face in faces], np.float64)
