"""What the scores of real faces show to people: the challenge's table, and a sheet of faces beside their inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation import plots
from pipeline.evaluation.challenge import FID, MOST_CHANGED, NAMES, TERMS, ChallengeRow, IdentityRule, Total
from pipeline.evaluation.real_metrics import METRICS
from pipeline.evaluation.report import Table, markdown, numbers, whole_page
from pipeline.evaluation.rows import Pictures
from pipeline.evaluation.scores import mean
from pipeline.metrics.no_reference import NO_REFERENCE

# Faces on the sheet, and the side of their pictures, pixels.
SHOWN_FACES, SHOWN_SIDE = 12, 192
FORMULA = (
    "Score = CLIPIQA + MANIQA + MUSIQ/100 + max(0, (10 - NIQE)/10) + Q-Align/5 + max(0, (100 - FID)/100), of the means "
    "over the faces (NTIRE 2025 and 2026, real-world face restoration); ± are 95 % intervals, to which a term "
    "that is cut to 0 adds nothing."
)
BLIND = "Metrics without reference measure pixels, not the likeness: a sharp but wrong face scores well."


@dataclass(frozen=True)
class ChallengeReport:
    """All that is reported at the end."""

    rows: Sequence[ChallengeRow]
    # of the set, and what is missing, in words
    contents: str
    left_out: Sequence[str]
    # None where no embedding is there
    rule: IdentityRule | None
    # PNG of the sheet of faces
    faces: bytes

    best: str | None = None

    @property
    def pictures(self) -> Mapping[str, bytes]:
        """The sheet by file name, PNG."""
        return {"faces.png": self.faces}

    @property
    def table(self) -> Table:
        """A row for the inputs and for each restoration."""
        measured = [n for n in (*METRICS, FID) if any(n in row.scores for row in self.rows)]
        table = []
        for row in self.rows:
            line = {f"{len(row.thresholds)} faces": row.name}
            line |= {label(n): str(row.scores[n]) if n in row.scores else "" for n in measured}
            line |= {"score ↑": "" if row.total is None else str(row.total)}
            line |= self._identity(row)
            line |= {"s/face": f"{row.cost['seconds']:.2f}"} if "seconds" in row.cost else {}
            table.append(line)
        return table

    def _identity(self, row: ChallengeRow) -> dict[str, str]:
        if self.rule is None or row.cosines is None or not np.isfinite(row.cosines).any():
            return {}
        network, changed = self.rule.network, int(row.changed.sum())
        found = {f"cosine to the input ({network})": str(mean(row.cosines)), "faces below": str(changed)}
        if self.rule.is_official:
            found |= {"identity rule": "fails" if row.is_refused else "passes"}
        return found

    @property
    def sentences(self) -> list[str]:
        """What the set holds, how the score is made, and what is missing."""
        return [f"{self.contents}.", FORMULA, *self.left_out, *self._rule_words(), BLIND]

    def _rule_words(self) -> list[str]:
        if self.rule is None:
            return []
        if self.rule.is_official:
            return [
                f"Identity rule of the challenge: a row fails with more than {MOST_CHANGED} faces below the cosine of "
                f"their test set ({self._thresholds()}), by the name of their folder or tar."
            ]
        return [
            f"The identity is compared by {self.rule.network} with thresholds of its own ({self._thresholds()}): this "
            "is not the challenge's rule, which needs AdaFace's weights, and no row fails by it."
        ]

    def _thresholds(self) -> str:
        assert self.rule is not None
        sets = [f"{name} {value:.2f}" for name, value in self.rule.cosines.items()]
        return ", ".join([*sets, f"others {self.rule.other:.2f}"])

    def values(self) -> list[dict[str, Any]]:
        """The rows for programs."""
        return [
            {
                "name": row.name,
                "scores": {NAMES.get(n, n): v for n, v in numbers(row.scores).items()},
                "total": _total(row.total),
                "identity": self._identity_values(row),
                "cost": dict(row.cost),
            }
            for row in self.rows
        ]

    def _identity_values(self, row: ChallengeRow) -> dict[str, Any] | None:
        if self.rule is None or row.cosines is None or not np.isfinite(row.cosines).any():
            return None
        found = {
            "network": self.rule.network,
            "cosine": numbers({"": mean(row.cosines)})[""],
            "below": int(row.changed.sum()),
        }
        return found | ({"passes": not row.is_refused} if self.rule.is_official else {})

    def metrics(self) -> dict[str, float]:
        """ROW/metric → its value, for MLflow; a sum without all its terms is called so."""
        found: dict[str, float] = {}
        for row in self.rows:
            found |= {
                f"{row.name}/{NAMES.get(name, name)}": score.value for name, score in row.scores.items()
            }
            if row.total is not None:
                name = "score" if row.total.is_whole else "partial score"
                found[f"{row.name}/{name}"] = row.total.score.value
            if row.cosines is not None:
                found[f"{row.name}/faces below"] = float(row.changed.sum())
            found |= {f"{row.name}/{name}": value for name, value in row.cost.items()}
        return found

    def markdown(self) -> str:
        """The table and the sentences."""
        return "\n".join([markdown(self.table), *self.sentences]) + "\n"

    def html(self, title: str) -> str:
        """The same with the sheet, as one page."""
        return whole_page(title, [self.table], self.sentences, self.pictures)


def not_measured(reasons: Mapping[str, str]) -> list[str]:
    """Metric → why it was not measured, as sentences."""
    return [
        f"{NAMES.get(name, name)} is not measured: {why.removesuffix('.')}." for name, why in reasons.items()
    ]


def label(name: str) -> str:
    """A metric's name in the table, with its direction."""
    is_down = name == FID or NO_REFERENCE[name] == "down"
    used = "" if name in TERMS else " (not of the score)"
    return f"{NAMES.get(name, name)} {'↓' if is_down else '↑'}{used}"


def _total(total: Total | None) -> dict[str, Any] | None:
    """A total for programs: `score` where it is the challenge's, else `partial`, and what is missing."""
    if total is None:
        return None
    kind = "score" if total.is_whole else "partial"
    return {kind: numbers({"": total.score})[""], "without": [NAMES[n] for n in total.without]}


def draw_faces(rows: Sequence[ChallengeRow], pictures: Sequence[Pictures]) -> bytes:
    """PNG: faces of the set, evenly spaced, each input beside what every row made of it; the first is the input's."""
    count = len(rows[0].thresholds)
    chosen = np.linspace(0, count - 1, min(SHOWN_FACES, count)).astype(int).tolist()
    shown = []
    for number in chosen:
        words = [_words(row, number) for row in rows]
        changed = {k for k, row in enumerate(rows) if row.changed[number]}
        shown.append(plots.ShownRow("", [p.read(number) for p in pictures], words, changed))
    note = "cosine of the embeddings of input and restoration; below the threshold it is red"
    return plots.faces_grid("Faces beside their inputs", [row.name for row in rows], shown, SHOWN_SIDE, note)


def _words(row: ChallengeRow, number: int) -> str:
    found = [f"NIQE {row.values['niqe'][number]:.1f}"] if "niqe" in row.values else []
    if row.cosines is not None:
        found.append(f"cosine {row.cosines[number]:.2f}")
    return "  ".join(found)
