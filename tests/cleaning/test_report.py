"""What a cleaning shows of pictures whose names are anything."""

import os

import numpy as np
import pytest

from pipeline.cleaning.report import TILE, caption, sheet
from pipeline.io.names import escape_surrogates

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
    drawn = sheet([(tile, caption(row)), (None, caption(row))], f"of {name}")
    assert drawn.shape[1] >= 2 * TILE
    # the names are there
    assert (drawn[-35:] < 160).any() == bool(name)
