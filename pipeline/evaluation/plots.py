"""Evaluations drawn: realism against fidelity, scores over severity, and the faces themselves."""

import io
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.evaluation.scores import HIGHER, Pixels, Score

INK, FAINT, GRID, BEST = "#1c1e22", "#6e7278", "#eceded", "#b8432f"
PALETTE = ("#4a7a8c", "#b8763e", "#7a5c8c", "#5d8a4a", "#a04a6a", "#3e5cb8", "#8c7a2f", "#4a8c82")


def tradeoff(points: Mapping[str, tuple[Score, Score]], axes_names: tuple[str, str], best: str) -> bytes:
    """PNG: each point's name at (first, second) score with its intervals, the best one marked."""
    figure, axes = _figure(9, 6.5)
    for number, (name, (x, y)) in enumerate(points.items()):
        colour = BEST if name == best else PALETTE[0] if number else FAINT
        axes.errorbar(
            x.value, y.value, xerr=_finite(x.half), yerr=_finite(y.half), fmt="o", color=colour, markersize=7,
            elinewidth=0.8,
        )  # fmt: skip
        text = f"{name}  (nearest to the ideal)" if name == best else name
        axes.annotate(
            text, (x.value, y.value), xytext=(7, 5), textcoords="offset points", fontsize=8, color=colour
        )
    for name, setter, invert in zip(
        axes_names, (axes.set_xlabel, axes.set_ylabel), (axes.invert_xaxis, axes.invert_yaxis), strict=True
    ):
        setter(f"{name}  ({'higher' if name in HIGHER else 'lower'} is better)")
        if name not in HIGHER:
            invert()
    axes.set_title("Better is up and to the right", loc="left", fontsize=11)
    axes.margins(0.18)
    return _png(figure)


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
    figure, grid = _figure(4.6 * across, 3.6 * down + 0.5, (down, across))
    panels = np.atleast_1d(grid).ravel()
    for panel, name in zip(panels, names, strict=False):
        for number, (row, scores) in enumerate(rows.items()):
            if name not in scores:
                continue
            told = scores[name]
            values = [s.value for s in told.values()]
            colour = PALETTE[number % len(PALETTE)]
            panel.errorbar(
                range(len(values)), values, yerr=[_finite(s.half) for s in told.values()], marker="o",
                markersize=4, color=colour, label=row, linewidth=1.4, elinewidth=0.8,
            )  # fmt: skip
            panel.set_xticks(range(len(values)), list(told), fontsize=7, rotation=20)
        panel.set_title(f"{name} {'↑' if name in higher else '↓'}", loc="left", fontsize=11)
    for panel in panels[len(names) :]:
        panel.axis("off")
    figure.supxlabel(what, fontsize=9, color=FAINT)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", frameon=False, fontsize=8, ncols=min(len(rows), 3))
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return _png(figure)


def sheet(rows: Mapping[str, Sequence[Pixels]]) -> bytes:
    """PNG: one named row of faces, [S, S, 3] uint8 each, for each entry."""
    side = max(64, len(next(iter(rows.values()))[0]))
    count = max(map(len, rows.values()))
    margin = 0.4 + 0.075 * max(map(len, rows))  # inches, for the names
    figure, grid = _figure(margin + count, 1.02 * len(rows), (len(rows), 1))
    for panel, (name, faces) in zip(np.atleast_1d(grid), rows.items(), strict=True):
        panel.imshow(np.concatenate(faces, axis=1), interpolation="nearest")
        panel.axis("off")
        panel.text(-0.1 * side, side / 2, name, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(left=margin / (margin + count), right=0.995, top=0.995, bottom=0.005, hspace=0.03)
    return _png(figure)


@dataclass(frozen=True)
class Shown:
    """One row of a grid of faces: its name, and below each other a picture and a few words for each column."""

    name: str
    # [H, W, 3] uint8
    faces: Sequence[Pixels]
    words: Sequence[str]
    # columns whose words are a warning
    warned: Collection[int] = ()


def faces_grid(columns: Sequence[str], rows: Sequence[Shown], side: int) -> bytes:
    """PNG: a table of faces, each within `side` x `side` pixels, under the columns' names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left, top, words, gap = 80, 64, 18, 6
    width = left + len(columns) * (side + gap) + gap
    height = top + len(rows) * (side + words + gap)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    sheet = np.full((height, width, 3), 255, np.uint8)
    for column, name in enumerate(columns):
        told = textwrap.fill(name, side // 7)
        axes.text(left + column * (side + gap), top - 8, told, fontsize=9, va="bottom", color=INK)
    for number, row in enumerate(rows):
        y = top + number * (side + words + gap)
        axes.text(8, y + side / 2, row.name, fontsize=9, va="center", color=INK)
        for column, (face, text) in enumerate(zip(row.faces, row.words, strict=True)):
            x = left + column * (side + gap)
            tile = fitted(face, side)
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
            colour = BEST if column in row.warned else FAINT
            axes.text(x, y + side + words / 2, text, fontsize=7.5, va="center", color=colour)
    axes.imshow(sheet, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))
    return _png(figure)


def fitted(picture: Pixels, side: int) -> Pixels:
    """[H, W, 3] with its longer side brought to `side`."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=how).astype(np.uint8, copy=False)


def _figure(width: float, height: float, cells: tuple[int, int] = (1, 1)) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(*cells)
    for each in np.atleast_1d(axes).ravel():
        each.grid(color=GRID, linewidth=0.8)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8, colors=INK)
    return figure, axes


def _finite(half: float) -> float:
    return half if np.isfinite(half) else 0.0


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
