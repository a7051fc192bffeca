"""What the real-world grid shows to people: tables by level and variant, two plots and a sheet of faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.evaluation import plots
from pipeline.evaluation.delivered import METRICS
from pipeline.evaluation.groups import UNITS, Groups
from pipeline.evaluation.harm import ANY, CLEAN, FINE, MOST_LOST, Change, Cuts, VariantResult, gain
from pipeline.evaluation.photographs import PhotographSet, head_box
from pipeline.evaluation.report import Table, columns, markdown
from pipeline.evaluation.scores import Faces, Numbers, Score, mean
from pipeline.io import images, store
from pipeline.reporting import page

PLACES = {"psnr": 1, "angle": 1, "lpips": 3, "ssim": 3}
WORSE = "worse by"
# Faces of each level on the sheet, and the side of their pictures, pixels.
SHOWN_FACES, SHOWN_SIDE = 3, 192
RULE = (
    f"A face is delivered worse than it came when its PSNR fell by more than {MOST_LOST['psnr']} dB and below {FINE:g} "
    f"dB, its LPIPS rose by more than {MOST_LOST['lpips']}, or its angle to the true face by more than "
    f"{MOST_LOST['angle']:g} degrees. Untouched are those that were left as they are, or not found."
)


@dataclass(frozen=True)
class RealReport:
    """All that is reported at the end. Columns of numbers are in the order of the set's sheet."""

    variants: Sequence[VariantResult]
    cuts: Cuts
    groups: Groups
    # PNG of faces, and what was left out of the set, in words
    faces: bytes
    contents: str

    # there is none: harm and gain are not weighed against each other
    best: str | None = None

    @property
    def tables(self) -> list[Table]:
        """What each variant costs, what the gates bring and cost, one table a level, and those by group."""
        levels = [
            level_table(level, self.variants, rows, self.cuts) for level, rows in self.cuts.levels.items()
        ]
        named = {variant.name: variant for variant in self.variants}
        gates = [gate_table(named[v.ungated], v, self.cuts) for v in self.variants if v.ungated in named]
        return [cost_table(self.variants), *gates, *levels, *self.groups.tables]

    @property
    def sentences(self) -> list[str]:
        """What the set holds, what the tables' words mean, and which groups gain less."""
        return [f"{self.contents}.", RULE, *self.groups.sentences]

    def values(self) -> list[dict[str, Any]]:
        """The variants for programs."""
        cuts = self.cuts
        return [
            {
                "name": variant.name,
                "cost": dict(variant.cost),
                "levels": {level: summary(variant, rows) for level, rows in cuts.levels.items()},
                "groups": self.groups.values(variant),
            }
            for variant in self.variants
        ]

    def metrics(self) -> dict[str, float]:
        """VARIANT/LEVEL/metric → its value, for MLflow."""
        found: dict[str, float] = {}
        for variant in self.variants:
            found |= {f"{variant.name}/{name}": value for name, value in variant.cost.items()}
            for level, rows in self.cuts.levels.items():
                place = f"{variant.name}/{level}"
                for name, change in variant.changes(rows).items():
                    found |= {f"{place}/{METRICS[name]}": change.out}
                    found |= {f"{place}/{METRICS[name]} in": change.came}
                    found |= {f"{place}/{METRICS[name]} difference": change.difference.value}
                found |= {f"{place}/untouched": float(variant.untouched[rows].mean())}
                found |= {
                    f"{place}/harm {METRICS.get(n, n)}": share for n, share in variant.harm(rows).items()
                }
        return found | self.groups.metrics()

    @cached_property
    def pictures(self) -> Mapping[str, bytes]:
        """Plots by file name, PNG."""
        harm, gains = {}, {}
        for variant in self.variants:
            harm[variant.name] = {
                f"worse by {METRICS.get(name, name)}, %": {
                    level: Score(100 * variant.harm(rows)[name], float("nan"), int(rows.sum()))
                    for level, rows in self.cuts.levels.items()
                }
                for name in (ANY, *MOST_LOST)
                if name in variant.worse
            }
            gains[variant.name] = {
                f"gain in {METRICS[n]}": self._gains(variant, n) for n in METRICS if n in variant.out
            }
        higher = frozenset(name for scores in gains.values() for name in scores)
        what = "damage of the photograph"
        return {
            "harm.png": plots.robustness(harm, what, across=2),
            "gain.png": plots.robustness(gains, f"{what}; whiskers: 95 % intervals", higher, across=2),
            "faces.png": self.faces,
        }

    def _gains(self, variant: VariantResult, name: str) -> dict[str, Score]:
        """Gain of a metric by level; of PSNR at damaged levels only, where it is no matter of equal pictures' 68 dB."""
        values = gain(name, variant.came[name], variant.out[name])
        levels = {
            level: values[rows & np.isfinite(values)]
            for level, rows in self.cuts.levels.items()
            if name != "psnr" or level != CLEAN or len(self.cuts.levels) == 1
        }
        return {level: mean(found) for level, found in levels.items() if len(found)}

    def markdown(self) -> str:
        """The tables and the sentences."""
        return "\n".join([*map(markdown, self.tables), *self.sentences]) + "\n"

    def html(self, title: str) -> str:
        """The same with the pictures, as one page."""
        parts = [page.note(text) for text in self.sentences]
        for table in self.tables:
            names = columns(table)
            parts.append(page.table(names, [[row.get(n) for n in names] for row in table]))
        for name, data in self.pictures.items():
            parts += [page.heading(name.removesuffix(".png")), page.picture(data, "png", name)]
        return page.document(title, parts)


def cost_table(variants: Sequence[VariantResult]) -> Table:
    """What each variant takes."""
    table = []
    for variant in variants:
        row = {"variant": variant.name}
        row |= (
            {"parameters": f"{variant.cost['parameters'] / 1e6:.2f} M"}
            if "parameters" in variant.cost
            else {}
        )
        row |= {"calls": f"{variant.cost['calls']:.0f}"} if "calls" in variant.cost else {}
        row |= {"s/picture": f"{variant.cost['seconds']:.2f}"} if "seconds" in variant.cost else {}
        table.append(row)
    return table


def gate_table(before: VariantResult, after: VariantResult, cuts: Cuts) -> Table:
    """Harm before and after the gates, and how much of the gain in LPIPS is kept: a row for each level."""
    table = []
    for level, rows in cuts.levels.items():
        row = {after.name: level, "n": str(cuts.photographs(rows))}
        harm = before.harm(rows), after.harm(rows)
        row |= {
            f"{WORSE} {METRICS.get(name, name)}: before → after the gates": f"{harm[0][name]:.1%} → {share:.1%}"
            for name, share in harm[1].items()
        }
        if "lpips" in before.out and "lpips" in after.out:
            gains = [
                float(np.nanmean(gain("lpips", v.came["lpips"][rows], v.out["lpips"][rows])))
                for v in (before, after)
            ]
            row["gain in LPIPS: before → after"] = f"{gains[0]:.4f} → {gains[1]:.4f}"
            row["kept"] = f"{gains[1] / gains[0]:.0%}" if gains[0] > 0 else ""
        table.append(row)
    return table


def level_table(level: str, variants: Sequence[VariantResult], rows: Faces, cuts: Cuts) -> Table:
    """A level: a row for each variant."""
    table = []
    for variant in variants:
        row = {level: variant.name, "n": str(cuts.photographs(rows))}
        row |= {f"{METRICS[n]} in → out": shown(n, change) for n, change in variant.changes(rows).items()}
        row |= {f"{WORSE} {METRICS.get(n, n)}": f"{share:.0%}" for n, share in variant.harm(rows).items()}
        row |= {"untouched": f"{variant.untouched[rows].mean():.0%}"}
        table.append(row)
    return table


def summary(variant: VariantResult, rows: Faces) -> dict[str, Any]:
    """Scores and harm of a variant over some rows, for programs."""
    changes = {
        METRICS[name]: {
            "in": change.came,
            "out": change.out,
            "difference": change.difference.value,
            "interval": change.difference.half,
            "faces": change.difference.faces,
        }
        for name, change in variant.changes(rows).items()
    }
    harm = {METRICS.get(name, name): share for name, share in variant.harm(rows).items()}
    untouched = float(variant.untouched[rows].mean()) if rows.any() else None
    return {"faces": int(rows.sum()), "scores": changes, "harm": harm, "untouched": untouched}


def shown(name: str, change: Change) -> str:
    """A change for people: `32.3 → 32.9 dB (+0.6 ± 0.1)`."""
    places = PLACES[name]
    return (
        f"{change.came:.{places}f} → {change.out:.{places}f}{UNITS[name]} ({signed(name, change.difference)})"
    )


def signed(name: str, score: Score) -> str:
    """A difference with its sign and interval."""
    places = PLACES[name] + (name == "psnr")
    half = f" ± {score.half:.{places}f}" if np.isfinite(score.half) else ""
    return f"{score.value:+.{places}f}{half}"


def draw_faces(found: PhotographSet, variants: Sequence[VariantResult], folders: Sequence[str]) -> bytes:
    """PNG: a few photographs at every level, their measured face as it came, by each variant, and the true one.

    folders: where each variant's delivered pictures are.
    """
    photographs = list(found.photographs())
    count = min(SHOWN_FACES, len(photographs))
    chosen = [photographs[i] for i in np.linspace(0, len(photographs) - 1, count).astype(int)]
    rows = [
        _shown_face(found, photograph[k], variants, folders)
        for k in range(len(found.levels))
        for photograph in chosen
    ]
    columns = ["as it came", *(variant.name for variant in variants), "truth"]
    return plots.faces_grid("Faces at every level of damage", columns, rows, SHOWN_SIDE)


def _shown_face(
    found: PhotographSet,
    placed: tuple[int, dict[str, Any]],
    variants: Sequence[VariantResult],
    folders: Sequence[str],
) -> plots.ShownRow:
    """One row of the sheet: a photograph at one level."""
    place, row = placed
    truth = found.read(found.truth, row["truth"])
    names = [store.join(folder, f"{row['name']}.png") for folder in (found.degraded, *folders)]
    pictures = [*(images.decode_rgb(store.read_bytes(uri)) for uri in names), truth]
    x0, y0, x1, y1 = head_box(np.reshape(row["landmarks"], (5, 2)), *truth.shape[:2])
    words = [_words(numbers, place) for numbers in (variants[0].came, *(variant.out for variant in variants))]
    warned = {k for k, variant in enumerate(variants, 1) if variant.worse[ANY][place]}
    faces = [picture[y0:y1, x0:x1] for picture in pictures]
    return plots.ShownRow(row["name"].partition("-")[2], faces, [*words, row["truth"]], warned)


def _words(numbers: Mapping[str, Numbers], place: int) -> str:
    """What was measured of one face, but for SSIM."""
    measured = {n: numbers[n][place] for n in MOST_LOST if n in numbers}
    return "  ".join(f"{v:.{PLACES[n]}f}{UNITS[n] or ' ' + METRICS[n]}" for n, v in measured.items())
