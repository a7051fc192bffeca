"""The pictures of a comparison: the faces that changed most, and how every measurement changed."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compare.paired import Numbers, Paired
from pipeline.io import images
from pipeline.stages.sample import TILE_LARGEST, TILE_SMALLEST

Pixels = NDArray[np.uint8]

COLUMNS = ("as it came", "A", "B")
INK, FAINT, NEUTRAL, ACCENT = "#1c1e22", "#6e7278", "#4a7a8c", "#b8763e"
GROUND, MISSING = (250, 250, 248), (226, 227, 228)
SHOWN_POINTS, BINS = 3000, 41
# width of a letter, as a share of its height
LETTER = 0.56


@dataclass(frozen=True)
class Card:
    """One face of the sheet: its name, what changed, and its three tiles, [S, S, 3] uint8 RGB or None."""

    name: str
    change: str
    tiles: tuple[Pixels | None, ...]


@dataclass(frozen=True)
class Panel:
    """Faces below each other, under one title."""

    title: str
    cards: Sequence[Card]


def faces_sheet(title: str, below: str, panels: Sequence[Panel]) -> bytes:
    """PNG of the panels side by side. Tiles are as large as the crops, within the bounds of a run's contact sheet."""
    sides = [len(t) for p in panels for c in p.cards for t in c.tiles if t is not None]
    return _Sheet(min(max([TILE_SMALLEST, *sides]), TILE_LARGEST)).draw(title, below, panels)


class _Sheet:
    """The measures of a sheet, in pixels, and its drawing."""

    dpi, margin, gap, gutter, caption, heading = 100, 24, 4, 40, 46, 150
    narrowest = 900

    def __init__(self, tile: int) -> None:
        self.tile = tile
        self.width = len(COLUMNS) * (tile + self.gap) - self.gap
        self.pitch = tile + self.caption

    def draw(self, title: str, below: str, panels: Sequence[Panel]) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = max((len(p.cards) for p in panels), default=0)
        taken = 2 * self.margin + len(panels) * (self.width + self.gutter) - self.gutter
        width, height = max(taken, self.narrowest), self.heading + rows * self.pitch + self.margin
        figure = Figure(figsize=(width / self.dpi, height / self.dpi), dpi=self.dpi)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        sheet = np.full((height, width, 3), GROUND, np.uint8)
        room = width - 2 * self.margin
        self._text(axes, self.margin, 40, title, 20, room, weight="bold")
        self._text(axes, self.margin, 66, below, 13, room, color=FAINT)
        for number, panel in enumerate(panels):
            self._draw_panel(sheet, axes, panel, self.margin + number * (self.width + self.gutter))
        axes.imshow(sheet, extent=(0, width, height, 0), interpolation="nearest")
        return _png(figure)

    def _draw_panel(self, sheet: Pixels, axes: Any, panel: Panel, left: int) -> None:
        self._text(axes, left, 104, panel.title, 15, self.width, weight="bold", color=ACCENT)
        for column, name in enumerate(COLUMNS):
            middle = left + column * (self.tile + self.gap) + self.tile / 2
            self._text(axes, middle, self.heading - 10, name, 13, self.tile, ha="center")
        for row, card in enumerate(panel.cards):
            top = self.heading + row * self.pitch
            for column, tile in enumerate(card.tiles):
                self._put(sheet, axes, tile, left + column * (self.tile + self.gap), top)
            self._text(axes, left, top + self.tile + 16, card.name, 12, self.width)
            self._text(axes, left, top + self.tile + 32, card.change, 12, self.width, color=FAINT)

    def _put(self, sheet: Pixels, axes: Any, tile: Pixels | None, x: int, y: int) -> None:
        place = sheet[y : y + self.tile, x : x + self.tile]
        if tile is None:
            place[:] = MISSING
            middle = x + self.tile / 2, y + self.tile / 2
            self._text(axes, *middle, "not there", 12, self.tile, ha="center", color=FAINT)
        else:
            place[:] = images.resize(tile, self.tile)

    def _text(
        self, axes: Any, x: float, y: float, text: str, pixels: float, room: float, **style: Any
    ) -> None:
        size = pixels * 72 / self.dpi
        shown = fitting(text, int(room / (pixels * LETTER)))
        # file names may hold dollars
        axes.text(x, y, shown, fontsize=size, parse_math=False, **({"color": INK} | style))


def fitting(text: str, letters: int) -> str:
    """The text, with its middle left out where it is too long: file names differ at both ends."""
    if len(text) <= letters:
        return text
    kept = max(letters - 1, 2)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


@dataclass(frozen=True)
class Measured:
    """One measurement of sampled faces in both runs, [N] each, and what was found over all of them."""

    name: str
    a: Numbers
    b: Numbers
    paired: Paired


def differences_plot(title: str, measured: Sequence[Measured]) -> bytes:
    """PNG with a row for each measurement: the histogram of its differences, and A against B."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(11, 0.6 + 3.1 * len(measured)), dpi=110, layout="constrained", facecolor="#ffffff"
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, weight="bold", parse_math=False)
    grid = figure.subplots(len(measured), 2, squeeze=False, width_ratios=(1.5, 1))
    for (left, right), one in zip(grid, measured, strict=True):
        known = np.isfinite(one.a) & np.isfinite(one.b)
        _draw_histogram(left, one.name, one.b[known] - one.a[known], one.paired)
        _draw_scatter(right, one.a[known][:SHOWN_POINTS], one.b[known][:SHOWN_POINTS])
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=9)
    return _png(figure)


def _draw_histogram(axes: Any, name: str, change: Numbers, paired: Paired) -> None:
    """Bins reach over all but the outermost half per cent at each end, and over zero."""
    axes.set_title(f"{name}: B less A", loc="left", fontsize=11, parse_math=False)
    axes.set_ylabel("faces", fontsize=9)
    low, high = np.quantile(change, (0.005, 0.995))
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    axes.hist(np.clip(change, low, high), np.linspace(low, high, BINS), color=NEUTRAL, alpha=0.65)
    axes.axvline(0, color=INK, linewidth=1)
    if paired.low is not None and paired.high is not None:
        axes.axvspan(paired.low, paired.high, color=ACCENT, alpha=0.3, linewidth=0, label="95% interval")
    axes.axvline(paired.difference, color=ACCENT, linewidth=1.6, label=f"mean {paired.difference:+.4g}")
    axes.legend(loc="upper right", frameon=False, fontsize=9)


def _draw_scatter(axes: Any, a: Numbers, b: Numbers) -> None:
    both = np.concatenate([a, b])
    ends = float(both.min()), float(both.max())
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.scatter(a, b, s=14, color=NEUTRAL, alpha=0.5, linewidths=0)
    axes.set_xlabel("A", fontsize=9)
    axes.set_ylabel("B", fontsize=9)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a file name's letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
