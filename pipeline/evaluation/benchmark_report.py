"""What the benchmark at 512 px shows to people: one table of both grids, curves over the levels, a sheet of faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.evaluation import plots, scores
from pipeline.evaluation.benchmark import PAPER, BenchmarkSet, part_of
from pipeline.evaluation.harm import ANY
from pipeline.evaluation.report import Table, harm_by_stratum, markdown, numbers, signed, whole_page
from pipeline.evaluation.rows import Pictures
from pipeline.evaluation.scores import Faces, Measured, Score

# Faces of each level on the sheet, and the side of their pictures, pixels.
SHOWN_FACES, SHOWN_SIDE = 2, 192
WORSE = "worse than the input"
# Scores whose difference to the input is in the table.
COMPARED = ("PSNR", "LPIPS")
RULE = (
    "Level paper is the grid of CelebA-Test (JPEG 30 to 70, noise 1 to 20, blur 4 to 16, shrinking 4 to 40), the "
    "others are the real-world grid on the crop. Whole 512 px crops are compared with the truth; a preset of another "
    "side restores its part of the crop. ± are 95 % intervals. FID is to the truth and depends on the number of faces."
)


@dataclass(frozen=True)
class BenchmarkReport:
    """All that is reported at the end; the first row is the input's."""

    rows: Sequence[Measured]
    levels: Mapping[str, Faces]
    # in words, and what is missing
    contents: str
    left_out: Sequence[str]
    # PNG of the sheet of faces
    faces: bytes

    best: str | None = None

    @cached_property
    def scores(self) -> dict[str, dict[str, dict[str, Score]]]:
        """Level → row → score."""
        return {
            level: {row.name: part_of(row, inside).scores for row in self.rows}
            for level, inside in self.levels.items()
        }

    @cached_property
    def gaps(self) -> dict[str, dict[str, dict[str, Score]]]:
        """Level → row → its differences to the input, face by face."""
        return {
            level: {
                row.name: scores.difference(part_of(row, inside), part_of(self.rows[0], inside))
                for row in self.rows[1:]
            }
            for level, inside in self.levels.items()
        }

    @cached_property
    def harm(self) -> dict[str, dict[str, dict[str, float]]]:
        """Row → level → metric → share of the faces that are worse than the input (harm.py)."""
        came = self.rows[0]
        return {row.name: harm_by_stratum(came, row, self.levels) for row in self.rows[1:]}

    @cached_property
    def table(self) -> Table:
        """A row for every level and method."""
        table = []
        for level, rows in self.scores.items():
            for row in self.rows:
                line = {"level": level, f"{self._faces} faces": row.name}
                line |= {
                    f"{n} {'↑' if n in scores.HIGHER else '↓'}": str(s) for n, s in rows[row.name].items()
                }
                gaps = self.gaps[level].get(row.name, {})
                line |= {f"{n} against the input": signed(gaps[n]) for n in COMPARED if n in gaps}
                harm = self.harm.get(row.name, {}).get(level, {})
                line |= {WORSE: f"{harm[ANY]:.0%}"} if ANY in harm else {}
                line |= {"s/face": f"{row.cost['seconds']:.2f}"} if "seconds" in row.cost else {}
                table.append(line)
        return table

    @property
    def _faces(self) -> int:
        return max(int(inside.sum()) for inside in self.levels.values())

    @property
    def sentences(self) -> list[str]:
        """What the set holds, what the words of the table mean, and what is missing."""
        return [f"{self.contents}.", RULE, *self.left_out]

    def values(self) -> list[dict[str, Any]]:
        """The rows for programs."""
        return [
            {
                "name": row.name,
                "cost": dict(row.cost),
                "levels": {
                    level: {
                        "scores": numbers(rows[row.name]),
                        "against the input": numbers(self.gaps[level].get(row.name, {})),
                        "harm": self.harm.get(row.name, {}).get(level, {}),
                    }
                    for level, rows in self.scores.items()
                },
            }
            for row in self.rows
        ]

    def metrics(self) -> dict[str, float]:
        """ROW/level/metric → its value, for MLflow."""
        found: dict[str, float] = {}
        for level, rows in self.scores.items():
            for name, measured in rows.items():
                found |= {f"{name}/{level}/{metric}": score.value for metric, score in measured.items()}
                harm = self.harm.get(name, {}).get(level, {})
                found |= {f"{name}/{level}/harm {metric}": share for metric, share in harm.items()}
        return found

    @cached_property
    def pictures(self) -> Mapping[str, bytes]:
        """Curves and the sheet by file name, PNG."""
        found = {"faces.png": self.faces}
        ladder = [level for level in self.levels if level != PAPER]
        names = list(dict.fromkeys(n for rows in self.scores.values() for s in rows.values() for n in s))
        curves = {
            row.name: {
                name: {level: self.scores[level][row.name][name] for level in ladder}
                for name in names
                if all(name in self.scores[level][row.name] for level in ladder)
            }
            for row in self.rows
        }
        if ladder and any(curves.values()):
            found["levels.png"] = plots.robustness(
                curves, "level of the real-world grid; whiskers: 95 % intervals"
            )
        return found

    def markdown(self) -> str:
        """The table and the sentences."""
        return "\n".join([markdown(self.table), *self.sentences]) + "\n"

    def html(self, title: str) -> str:
        """The same with the pictures, as one page."""
        return whole_page(title, [self.table], self.sentences, self.pictures)


def draw_faces(found: BenchmarkSet, rows: Sequence[Measured], pictures: Sequence[Pictures]) -> bytes:
    """PNG: a few faces at every level, each input beside what every row made of it and the truth."""
    shown = []
    for level, inside in found.rows_of.items():
        places = np.flatnonzero(inside)
        for place in places[
            np.linspace(0, len(places) - 1, min(SHOWN_FACES, len(places))).astype(int)
        ].tolist():
            words = [_words(row, place) for row in rows]
            faces = [p.read(place) for p in pictures]
            shown.append(plots.ShownRow(level, [*faces, found.true(place)], [*words, ""]))
    names = [*(row.name for row in rows), "truth"]
    return plots.faces_grid(
        "Faces at every level of damage", names, shown, SHOWN_SIDE, "numbers are against the truth"
    )


def _words(row: Measured, place: int) -> str:
    units = {"psnr": "{:.1f} dB", "lpips": "{:.3f}", "ids": "{:.1f}°"}
    return "  ".join(text.format(row.values[c][place]) for c, text in units.items() if c in row.values)
