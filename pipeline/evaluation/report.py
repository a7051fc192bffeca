"""What an evaluation shows to people: tables, verdicts, plots and one page of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation import plots, scores
from pipeline.evaluation.groups import Groups
from pipeline.evaluation.harm import ANY, MOST_LOST, worse
from pipeline.evaluation.scores import Measured, Score
from pipeline.reporting import page

# Direction in which the scores of the paper's tables move from an estimator alone to DifFace with it.
PATTERN = {"PSNR": -1, "LPIPS": -1, "FID": -1}
BASED = "against its estimator alone"
HARM = "worse than the input by PSNR, angle, LPIPS, any"

# Scores that have a table of their own over the strata, where they were measured.
BY_STRATUM = ("PSNR in the hole", "PSNR", "LPIPS")

Table = list[dict[str, str]]
# score → stratum → its mean
Strata = Mapping[str, Mapping[str, Score]]


@dataclass(frozen=True)
class Report:
    """All that is reported at the end."""

    rows: Sequence[Measured]
    # variant → its differences to its estimator alone
    gaps: Mapping[str, Mapping[str, Score]]
    verdicts: Sequence[str]
    # plots by file name, PNG
    pictures: Mapping[str, bytes]
    # of every row by its name
    strata: Mapping[str, Strata]
    # share of faces worse than the degraded input, of every variant by stratum; empty for other tasks
    harm: Mapping[str, Mapping[str, Mapping[str, float]]]
    # the variant nearest to the ideal, of several chains
    best: str | None = None
    # None where no face has a label
    groups: Groups | None = None

    @property
    def tables(self) -> list[Table]:
        """Scores, what each variant is better or worse by than its estimator alone, and scores by stratum and group."""
        gaps = [{BASED: name} | {n: signed(s) for n, s in gap.items()} for name, gap in self.gaps.items()]
        tables = [score_table(self.rows), *([gaps] if gaps else [])]
        for score in BY_STRATUM:
            found = {name: scores[score] for name, scores in self.strata.items() if score in scores}
            if found:
                tables.append(
                    [{score: name} | {g: str(s) for g, s in groups.items()} for name, groups in found.items()]
                )
        if self.harm:
            tables.append(
                [
                    {HARM: name} | {g: shares(s) for g, s in groups.items()}
                    for name, groups in self.harm.items()
                ]
            )
        return tables + (self.groups.tables if self.groups else [])

    @property
    def sentences(self) -> list[str]:
        """The verdicts, which point is the best, and which groups gain less."""
        best = [f"Nearest to the ideal of fidelity and realism: {self.best}."] if self.best else []
        return [*self.verdicts, *best, *(self.groups.sentences if self.groups else [])]

    def values(self) -> list[dict[str, Any]]:
        """The rows for programs."""
        of_groups = {v.name: self.groups.values(v) for v in self.groups.variants} if self.groups else {}
        return [
            {"name": r.name, "scores": numbers(r.scores), "cost": dict(r.cost)}
            | {"strata": {name: numbers(groups) for name, groups in self.strata[r.name].items()}}
            | {"harm": {group: dict(found) for group, found in self.harm.get(r.name, {}).items()}}
            | ({"groups": of_groups[r.name]} if r.name in of_groups else {})
            for r in self.rows
        ]

    def metrics(self) -> dict[str, float]:
        """VARIANT/score → its value, for MLflow."""
        found = {
            f"{row.name}/{name}": value
            for row in self.rows
            for name, value in ({n: s.value for n, s in row.scores.items()} | dict(row.cost)).items()
        }
        return found | (self.groups.metrics() if self.groups else {})

    def markdown(self) -> str:
        """The tables and the sentences."""
        return "\n".join([*map(markdown, self.tables), *self.sentences]) + "\n"

    def html(self, title: str) -> str:
        """The same with the pictures, as one page."""
        return whole_page(title, self.tables, self.sentences, self.pictures)


def make_report(
    rows: Sequence[Measured],
    bases: Mapping[str, str],
    chains: Sequence[str],
    groups: Mapping[str, scores.Faces],
    what: str,
    shown: Mapping[str, Sequence[scores.Pixels]],
) -> Report:
    """Tables, verdicts and plots.

    bases: variant → the row of its estimator alone. chains: the variants of which the best is named. groups: strata of
    the faces, and `what` they are cut by. shown: rows of faces.
    """
    named = {row.name: row for row in rows}
    gaps = {name: scores.difference(named[name], named[base]) for name, base in bases.items()}
    pictures = {"faces.png": plots.sheet(shown)}
    measured = {row.name: row.scores for row in rows}
    realism = next((n for n in ("FID", "LPIPS") if all(n in s for s in measured.values())), None)
    best = None
    if realism and all("PSNR" in s for s in measured.values()):
        costs = {n: (-measured[n]["PSNR"].value, measured[n][realism].value) for n in chains}
        best = scores.nearest_to_ideal(costs) if len(costs) > 1 else None
        points = {n: (s["PSNR"], s[realism]) for n, s in measured.items()}
        pictures["tradeoff.png"] = plots.tradeoff(points, ("PSNR", realism), best or "")
    cut = {r.name: scores.by_stratum(r, groups) for r in rows}
    pictures["robustness.png"] = plots.robustness(cut, what)
    harm = {row.name: harm_by_stratum(rows[0], row, groups) for row in rows[1:]}
    return Report(rows, gaps, [verdict(n, g) for n, g in gaps.items()], pictures, cut, harm, best)


def harm_by_stratum(
    came: Measured, out: Measured, groups: Mapping[str, scores.Faces]
) -> dict[str, dict[str, float]]:
    """Stratum → metric → share of its faces that are worse than the degraded input (harm.py)."""
    before, after = as_delivered(came), as_delivered(out)
    if not MOST_LOST.keys() & before.keys() & after.keys():
        return {}
    found = worse(before, after)
    return {
        group: {n: float(faces[inside].mean()) for n, faces in found.items()}
        for group, inside in groups.items()
    }


def as_delivered(row: Measured) -> dict[str, scores.Numbers]:
    """The measurements of a row under the names that those of delivered photographs have (delivered.METRICS)."""
    names = {"psnr": "psnr", "ids": "angle", "lpips": "lpips", "ssim": "ssim"}
    return {name: row.values[column] for column, name in names.items() if column in row.values}


def shares(found: Mapping[str, float]) -> str:
    """Shares for people, in the order of HARM."""
    return ", ".join(f"{found[name]:.0%}" if name in found else "-" for name in (*MOST_LOST, ANY))


def score_table(rows: Sequence[Measured]) -> Table:
    """A row for each variant."""
    faces = f"{rows[0].faces} faces"
    table = []
    for row in rows:
        line = {faces: row.name}
        line |= {f"{n} {'↑' if n in scores.HIGHER else '↓'}": str(s) for n, s in row.scores.items()}
        cost = row.cost
        line |= {"parameters": f"{cost['parameters'] / 1e6:.2f} M"} if "parameters" in cost else {}
        line |= {"calls": f"{cost['calls']:.0f}"} if "calls" in cost else {}
        line |= {"s/face": f"{cost['seconds']:.2f}"} if "seconds" in cost else {}
        table.append(line)
    return table


def verdict(name: str, gaps: Mapping[str, Score]) -> str:
    """Whether a variant against its estimator alone shows the paper's pattern, in one sentence."""
    known = {n: gaps[n] for n in PATTERN if n in gaps and math.isfinite(gaps[n].half)}
    missing = [n for n, s in known.items() if s.value * PATTERN[n] <= s.half]
    if missing or not known:
        return f"{name}: the paper's pattern is not seen for {', '.join(missing) or 'want of scores'}."
    return f"{name}: the paper's pattern holds beyond the 95 % intervals ({', '.join(known)})."


def markdown(table: Table) -> str:
    """A table for people."""
    names = columns(table)
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(row.get(n, "") for n in names) + " |" for row in table]
    return "\n".join(lines) + "\n"


def whole_page(
    title: str, tables: Sequence[Table], sentences: Sequence[str], pictures: Mapping[str, bytes]
) -> str:
    """One page of tables, the sentences below them, and pictures by file name, PNG."""
    parts = []
    for table in tables:
        names = columns(table)
        parts.append(page.table(names, [[row.get(n) for n in names] for row in table]))
    parts += [page.note(text) for text in sentences]
    for name, data in pictures.items():
        parts += [page.heading(name.removesuffix(".png")), page.picture(data, "png", name)]
    return page.document(title, parts)


def columns(table: Table) -> list[str]:
    """The names that any row has, in their order."""
    return list(dict.fromkeys(name for row in table for name in row))


def numbers(found: Mapping[str, Score]) -> dict[str, dict[str, float]]:
    """Scores as plain numbers."""
    return {n: {"value": s.value, "interval": s.half, "faces": s.faces} for n, s in found.items()}


def signed(score: Score) -> str:
    """A difference with its sign."""
    return f"{score.value:+.4g} ± {score.half:.2g}"
