"""What a cleaning shows of pictures whose names are anything."""

import os

import numpy as np
import pytest

from pipeline.cleaning.report import TILE, caption, kolmogorov_smirnov, samples_sheet
from pipeline.io.names import escape_surrogates
from pipeline.reporting.sheet import Card

NAMES = [
    "a\nb.jpg",
    'a"b,c.jpg',
    os.fsdecode(b"caf\xe9.jpg"),
    "\u202egpj.jpg",
    "é" * 127 + "\r\n",
    "%s <b>$x_{1$.jpg",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_sheet_of_samples_takes_any_name(name):
    row = {
        "name": escape_surrogates(name),
        "reason": "exact_duplicate",
        "problem": "",
        "repeats": escape_surrogates(name),
    }
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    drawn = samples_sheet([Card([tile], caption(row)), Card([None], caption(row))], f"of {name}")
    assert drawn.shape[1] >= 2 * TILE
    # the names are there
    assert (drawn[-35:] < 160).any() == bool(name)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ([1, 2, 3], [3, 2, 1], 0),
        ([1, 2], [3, 4, 5], 1),
        ([1, 2, 3, 4], [3, 4, 5, 6], 0.5),
        ([5], [1, 2, 3, 9], 0.75),
        ([0, 0, 0], [0, 1], 0.5),
    ],
)
def test_the_distance_of_two_samples_is_the_largest_gap_of_their_distribution_functions(one, other, distance):
    assert kolmogorov_smirnov(np.array(one, float), np.array(other, float)) == pytest.approx(distance)
