"""The pictures of a comparison: the faces that changed most, and how every measurement changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.compare.paired import Numbers, Paired
from pipeline.io import images
from pipeline.reporting.palette import FAINT, INK, OCHRE
from pipeline.reporting.plots import Figure, Panel, Series
from pipeline.reporting.sheet import Card, Group, Line, Row, draw_sheet, tile_side

Pixels = NDArray[np.uint8]

COLUMNS = ("as it came", "A", "B")
SHOWN_POINTS = 3000


@dataclass(frozen=True)
class ShownFace:
    """One face of the sheet: its name, what changed, and its three crops, [S, S, 3] uint8 RGB or None."""

    name: str
    change: str
    crops: tuple[Pixels | None, ...]


def faces_sheet(title: str, below: str, panels: Sequence[tuple[str, Sequence[ShownFace]]]) -> bytes:
    """PNG of the panels side by side, each faces under a title.

    Tiles are as large as the crops, within the bounds of a run's contact sheet.
    """
    side = tile_side(len(c) for _, faces in panels for face in faces for c in face.crops if c is not None)
    columns = [Line(name) for name in COLUMNS]
    groups = [
        Group([Row([Card(f.crops, [Line(f.name), Line(f.change, FAINT)])]) for f in faces], columns, of_panel)
        for of_panel, faces in panels
    ]
    return images.encode_png(draw_sheet(title, [groups], side, below))


@dataclass(frozen=True)
class Measured:
    """One measurement of sampled faces in both runs, [N] each, and what was found over all of them."""

    name: str
    a: Numbers
    b: Numbers
    paired: Paired


def differences_plot(title: str, measured: Sequence[Measured]) -> bytes:
    """PNG with a row for each measurement: the histogram of its differences, and A against B."""
    figure = Figure((11, 0.6 + 3.1 * len(measured)), len(measured), 2, title, widths=(1.5, 1))
    for one, left, right in zip(measured, figure.panels[::2], figure.panels[1::2], strict=True):
        known = np.isfinite(one.a) & np.isfinite(one.b)
        _draw_differences(left, one.name, one.b[known] - one.a[known], one.paired)
        right.title("", "A", "B")
        right.scatter(one.a[known][:SHOWN_POINTS], one.b[known][:SHOWN_POINTS])
    return figure.png()


def _draw_differences(panel: Panel, name: str, change: Numbers, paired: Paired) -> None:
    panel.title(f"{name}: B less A", y="faces")
    panel.histograms([Series(change)], reaching=[0.0])
    panel.reference("x", 0, INK)
    if paired.low is not None and paired.high is not None:
        panel.span(paired.low, paired.high, OCHRE, "95% interval")
    panel.reference("x", paired.difference, OCHRE, name=f"mean {paired.difference:+.4g}")
    panel.legend()
