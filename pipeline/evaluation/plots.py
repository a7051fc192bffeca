"""Evaluations drawn: realism against fidelity, scores over severity, and the faces themselves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.scores import HIGHER, Pixels, Score
from pipeline.io import images
from pipeline.reporting.palette import FAINT, RED, SERIES, TEAL
from pipeline.reporting.plots import Axis, Figure
from pipeline.reporting.sheet import Card, Group, Line, Row, draw_sheet, tile_side


def tradeoff(points: Mapping[str, tuple[Score, Score]], axes_names: tuple[str, str], best: str) -> bytes:
    """PNG: each point's name at (first, second) score with its intervals, the best one marked."""
    figure = Figure((9, 6.5))
    [panel] = figure.panels
    for number, (name, (x, y)) in enumerate(points.items()):
        colour = RED if name == best else TEAL if number else FAINT
        panel.intervals([x.value], [y.value], colour, style="o", half=[y.half], across=[x.half])
        panel.note(x.value, y.value, f"{name}  (nearest to the ideal)" if name == best else name, colour)
    labels = [f"{name}  ({'higher' if name in HIGHER else 'lower'} is better)" for name in axes_names]
    panel.title("Better is up and to the right", *labels)
    axes: tuple[Axis, Axis] = ("x", "y")
    for axis, name in zip(axes, axes_names, strict=True):
        if name not in HIGHER:
            panel.invert(axis)
    panel.margins(0.18)
    return figure.png()


def robustness(
    rows: Mapping[str, Mapping[str, Mapping[str, Score]]],
    what: str,
    higher: Collection[str] = HIGHER,
    across: int = 3,
) -> bytes:
    """PNG: a panel for each score, its means over the strata with intervals. rows: row → score → stratum → mean.

    higher: scores that are better when they are higher. across: panels beside each other, at most.
    """
    names = list(dict.fromkeys(n for scores in rows.values() for n in scores))
    across = min(len(names), across)
    down = -(-len(names) // across)
    figure = Figure((4.6 * across, 3.6 * down + 0.5), down, across)
    for panel, name in zip(figure.panels, names, strict=False):
        for number, (row, scores) in enumerate(rows.items()):
            if name not in scores:
                continue
            strata = scores[name]
            values, halves = [s.value for s in strata.values()], [s.half for s in strata.values()]
            panel.intervals(range(len(values)), values, SERIES[number % len(SERIES)], row, half=halves)
            panel.ticks(list(strata))
        panel.title(f"{name} {'↑' if name in higher else '↓'}")
    for panel in figure.panels[len(names) :]:
        panel.hide()
    figure.note(what)
    figure.legend(columns=min(len(rows), 3))
    return figure.png()


def sheet(rows: Mapping[str, Sequence[Pixels]]) -> bytes:
    """PNG: one named row of faces, [S, S, 3] uint8 each, for each entry."""
    side = tile_side(len(face) for faces in rows.values() for face in faces[:1])
    group = Group([Row([Card(faces)], name) for name, faces in rows.items()])
    return images.encode_png(draw_sheet("The first faces of the set", [[group]], side))


@dataclass(frozen=True)
class ShownRow:
    """One row of a grid of faces: its name, and below each other a picture and a few words for each column."""

    name: str
    # [H, W, 3] uint8
    faces: Sequence[Pixels]
    words: Sequence[str]
    # columns whose words are a warning
    warned: Collection[int] = ()


def faces_grid(
    title: str,
    columns: Sequence[str],
    rows: Sequence[ShownRow],
    side: int,
    note: str = "what was measured worse than it came is red",
) -> bytes:
    """PNG: a table of faces, each within `side` x `side` pixels, under the columns' names; note: below the title."""
    shown = [
        Row(
            [
                Card([face], [Line(text, RED if column in row.warned else FAINT)])
                for column, (face, text) in enumerate(zip(row.faces, row.words, strict=True))
            ],
            row.name,
        )
        for row in rows
    ]
    group = Group(shown, [Line(name) for name in columns])
    return images.encode_png(draw_sheet(title, [[group]], side, note))
