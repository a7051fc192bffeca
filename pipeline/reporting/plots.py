"""Plots in one style, as PNG: the only use of matplotlib. Same values, same bytes.

Names of files and presets are set as they are: nothing in a text is taken for a formula.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.reporting.palette import FAINT, GRID, INK, PAPER, RULE, TEAL
from pipeline.reporting.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]

DPI = 110
BINS = 40
TITLE_SIZE, TEXT_SIZE = 11, 9
Axis = Literal["x", "y"]
# where a legend is set: always named, as matplotlib's search for the emptiest place is slow, and says so
Place = Literal["upper right", "lower right"]


@dataclass(frozen=True)
class Series:
    """Values of one histogram, its colour and its name in the legend; outlined, or else filled."""

    values: ArrayLike
    colour: str = TEAL
    name: str = ""
    outlined: bool = False


class Panel:
    """One pair of axes with what is drawn in it."""

    def __init__(self, axes: "Axes") -> None:
        self._axes = axes
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=TEXT_SIZE, colors=INK)

    def title(self, text: str, x: str = "", y: str = "") -> None:
        """What the panel shows, and what its axes are."""
        self._axes.set_title(_plain(text), loc="left", fontsize=TITLE_SIZE)
        self._axes.set_xlabel(_plain(x), fontsize=TEXT_SIZE)
        self._axes.set_ylabel(_plain(y), fontsize=TEXT_SIZE)

    def histograms(
        self,
        series: Sequence[Series],
        within: tuple[float, float] = (0.005, 0.995),
        reaching: Sequence[float] = (),
        shares: bool = False,
    ) -> None:
        """Overlaid histograms of the finite values on common bins.

        within: quantiles of all values over which the bins reach; what lies beyond is counted in the outermost.
        reaching: values over which the bins reach, too. shares: of each series' values, instead of their number.
        """
        found = [_finite(one.values) for one in series]
        if not any(values.size for values in found):
            self.nothing()
            return
        low, high = (float(end) for end in np.quantile(np.concatenate(found), within))
        low, high = min([low, *reaching]), max([high, *reaching])
        bins = np.linspace(low, high if high > low else low + 1, BINS + 1)
        for one, values in zip(series, found, strict=True):
            weights = np.full(values.size, 1 / values.size) if shares and values.size else None
            style = {"histtype": "step"} if one.outlined else {"alpha": 0.65}
            inside = np.clip(values, bins[0], bins[-1])
            label = _plain(one.name) or None
            self._axes.hist(inside, bins, color=one.colour, weights=weights, label=label, **style)  # type: ignore[arg-type]  # of hist's own options

    def nothing(self) -> None:
        """Say that there are no values to show."""
        self._axes.set(xticks=[], yticks=[])
        self._axes.text(
            0.5, 0.5, "nothing measured", transform=self._axes.transAxes, ha="center", color=FAINT
        )

    def bars(
        self, values: Mapping[str, float], texts: Sequence[str], colour: str = TEAL, name: str = ""
    ) -> None:
        """Named bars to the right, from above down, each with a text at its end."""
        self._axes.barh(
            range(len(values)), list(values.values()), color=colour, height=0.62, label=_plain(name)
        )
        for number, (value, text) in enumerate(zip(values.values(), texts, strict=True)):
            self._axes.text(value, number, f" {_plain(text)}", va="center", fontsize=TEXT_SIZE)
        self._axes.set_yticks(range(len(values)), [_plain(n) for n in values])
        self._axes.invert_yaxis()
        self._axes.margins(x=0.12)
        self._axes.grid(False, axis="y")

    def bar_part(self, number: int, start: float, length: float, colour: str, name: str) -> None:
        """Another colour for a part of bar `number`."""
        self._axes.barh(number, length, left=start, color=colour, height=0.62, label=_plain(name))

    def line(
        self,
        x: ArrayLike,
        y: ArrayLike,
        colour: str,
        name: str = "",
        style: str = "-",
        band: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        """A line or dots (style: `-`, `o`, `o-`), and the band between two more lines."""
        if band is not None:
            self._axes.fill_between(x, *band, color=colour, alpha=0.15, linewidth=0)
        self._axes.plot(x, y, style, color=colour, markersize=5, linewidth=1.4, label=_plain(name))

    def intervals(
        self,
        x: ArrayLike,
        y: ArrayLike,
        colour: str,
        name: str = "",
        style: str = "o-",
        half: ArrayLike | None = None,
        across: ArrayLike | None = None,
    ) -> None:
        """Dots with whiskers of half their intervals' lengths, in y and in x; one that is not finite has none."""
        whiskers = [None if h is None else np.nan_to_num(np.asarray(h, np.float64)) for h in (half, across)]
        self._axes.errorbar(
            x, y, yerr=whiskers[0], xerr=whiskers[1], fmt=style, color=colour, markersize=5, linewidth=1.4,
            elinewidth=0.8, label=_plain(name),
        )  # fmt: skip

    def scatter(self, x: ArrayLike, y: ArrayLike, colour: str = TEAL) -> None:
        """Pairs of values as dots, and the line where both are equal."""
        both = np.concatenate([np.ravel(x), np.ravel(y)])
        ends = float(both.min()), float(both.max())
        self._axes.plot(ends, ends, color=INK, linewidth=0.8)
        self._axes.scatter(x, y, s=14, color=colour, alpha=0.5, linewidths=0)

    def note(self, x: float, y: float, text: str, colour: str = INK) -> None:
        """A text beside a point."""
        self._axes.annotate(
            _plain(text), (x, y), xytext=(7, 5), textcoords="offset points", fontsize=TEXT_SIZE, color=colour
        )

    def reference(
        self, axis: Axis, value: float, colour: str = INK, style: str = "-", name: str = ""
    ) -> None:
        """A line at one value of an axis, for comparison. style: `-`, `--`."""
        draw = self._axes.axvline if axis == "x" else self._axes.axhline
        draw(value, color=colour, linestyle=style, linewidth=1.4, label=_plain(name))

    def mark(self, x: float, text: str) -> None:
        """A faint dotted line at x with a text at its foot."""
        self._axes.axvline(x, color=RULE, linewidth=1, linestyle=":", zorder=0)
        place = {"xycoords": ("data", "axes fraction"), "fontsize": TEXT_SIZE, "color": FAINT}
        self._axes.annotate(f" {_plain(text)}", (x, 0.015), **place)  # type: ignore[arg-type]  # of annotate's own options

    def span(self, low: float, high: float, colour: str, name: str) -> None:
        """A shaded range of x."""
        self._axes.axvspan(low, high, color=colour, alpha=0.3, linewidth=0, label=_plain(name))

    def ticks(self, names: Sequence[str]) -> None:
        """Names for x = 0, 1, …"""
        self._axes.set_xticks(range(len(names)), [_plain(n) for n in names], fontsize=8, rotation=20)

    def limits(
        self, x: tuple[float, float] | None = None, from_zero: bool = False, headroom: float = 0.0
    ) -> None:
        """The range of x; and that of y, begun at zero, with a share of it left free at the top."""
        if x is not None:
            self._axes.set_xlim(*x)
        if from_zero:
            self._axes.set_ylim(0, self._axes.get_ylim()[1] * (1 + headroom))

    def margins(self, share: float) -> None:
        """Free space around the values, as a share of their range."""
        self._axes.margins(share)

    def logarithmic(self, axis: Axis = "y") -> None:
        """Powers of ten along an axis."""
        (self._axes.set_xscale if axis == "x" else self._axes.set_yscale)("log")

    def invert(self, axis: Axis) -> None:
        """Falling values along an axis."""
        (self._axes.invert_xaxis if axis == "x" else self._axes.invert_yaxis)()

    def legend(self, place: Place = "upper right") -> None:
        """The names of what was drawn; nothing where nothing has one."""
        if self._axes.get_legend_handles_labels()[1]:
            self._axes.legend(loc=place, frameon=False, fontsize=TEXT_SIZE)

    def hide(self) -> None:
        """Leave the place of this panel empty."""
        self._axes.set_axis_off()


class Figure:
    """Panels in a grid, under a title. size: inches at DPI; widths: shares of the columns."""

    def __init__(
        self,
        size: tuple[float, float],
        down: int = 1,
        across: int = 1,
        title: str = "",
        widths: Sequence[float] | None = None,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        self._figure = Canvas(figsize=size, dpi=DPI, layout="constrained", facecolor=PAPER)
        FigureCanvasAgg(self._figure)
        self._figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr,call-arg]  # constrained
        if title:
            self._figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=13, weight="bold")
        self._axes = self._figure.subplots(down, across, squeeze=False, width_ratios=widths)
        # in rows, from the upper left
        self.panels = [Panel(axes) for axes in self._axes.flat]

    def legend(self, columns: int) -> None:
        """One legend above all panels, of the names in the first."""
        handles, labels = self._axes[0, 0].get_legend_handles_labels()
        style = {"frameon": False, "fontsize": TEXT_SIZE, "ncols": columns}
        self._figure.legend(handles, labels, loc="outside upper right", **style)

    def note(self, text: str) -> None:
        """A faint line below all panels."""
        self._figure.supxlabel(_plain(text), fontsize=TEXT_SIZE, color=FAINT)

    def png(self) -> bytes:
        """The figure, encoded."""
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # a letter of a file's name that the font lacks is drawn as a box
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
            self._figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def _finite(values: ArrayLike) -> Numbers:
    found = np.asarray(values, np.float64).ravel()
    return found[np.isfinite(found)]


def _plain(text: str) -> str:
    """The text as matplotlib sets it literally: two dollars would make a formula of it."""
    return printable(text).replace("$", r"\$")
