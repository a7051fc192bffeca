"""Plots: that they show what they are given, literally, and always the same."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting.palette import OCHRE, TEAL
from pipeline.reporting.plots import Figure, Series


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def ink(png, colour):
    """How many pixels have about this colour."""
    of = np.array(list(bytes.fromhex(colour[1:])), int)
    return int((np.abs(pixels(png).astype(int) - of).max(axis=2) < 6).sum())


def histogram(**options):
    figure = Figure((4, 3))
    figure.panels[0].histograms([Series([1.0, 2.0, 2.0, np.nan, 3.0])], **options)
    return figure.png()


def test_a_figure_has_the_size_that_is_asked_for_and_the_same_bytes_each_time():
    assert pixels(histogram()).shape == (330, 440, 3)
    assert histogram() == histogram()


def test_histograms_of_nothing_say_so():
    figure = Figure((4, 3))
    figure.panels[0].histograms([Series([]), Series([np.nan])])
    assert ink(figure.png(), TEAL) == 0 and (pixels(figure.png()) < 160).any()


def test_equal_values_have_a_histogram_too():
    figure = Figure((4, 3))
    figure.panels[0].histograms([Series([5.0] * 9)])
    figure.png()


def test_values_beyond_the_bins_are_counted_in_the_outermost():
    values = np.concatenate([np.zeros(500), np.ones(500), [1e9]])
    figure = Figure((4, 3))
    figure.panels[0].histograms([Series(values)], (0, 0.99))
    heights = [patch.get_height() for patch in figure.panels[0]._axes.patches]
    assert (heights[0], heights[-1], sum(heights)) == (500, 501, 1001)


def test_shares_add_up_to_one_for_each_series():
    figure = Figure((4, 3))
    figure.panels[0].histograms([Series([1.0, 2.0]), Series([1.0] * 10, OCHRE)], shares=True)
    assert sum(p.get_height() for p in figure.panels[0]._axes.patches) == pytest.approx(2)


@pytest.mark.parametrize("name", ["$x_{1$ of $y", "漢字", "\udce9", "a\nb", r"a \$ b"])
def test_names_are_set_literally_and_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = Figure((5, 4), title=name)
        [panel] = figure.panels
        panel.title(name, name, name)
        panel.intervals([0, 1], [1, 2], TEAL, name, half=[0.1, np.nan])
        panel.ticks([name, name])
        panel.note(0, 1, name)
        panel.legend()
        figure.note(name)
        figure.legend(columns=1)
        figure.png()


def test_a_part_of_a_bar_has_its_own_colour():
    figure = Figure((5, 3))
    [panel] = figure.panels
    panel.bars({"all": 10.0, "left": 6.0}, ["10", "6"], TEAL, "left")
    plain = figure.png()
    panel.bar_part(1, 4, 2, OCHRE, "repaired")
    panel.legend("lower right")
    assert ink(plain, OCHRE) == 0 < ink(figure.png(), OCHRE)


def test_a_legend_of_nothing_is_none():
    figure = Figure((4, 3))
    figure.panels[0].line([0, 1], [0, 1], TEAL)
    before = figure.png()
    figure.panels[0].legend()
    assert figure.png() == before
