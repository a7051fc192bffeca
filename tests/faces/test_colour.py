"""A restored face stays in its picture's colours."""

import numpy as np
from skimage import data

from pipeline.faces.colour import anchor_colour

FACE = np.ascontiguousarray(data.astronaut()[80:144, 190:254])


def test_a_grey_face_stays_exactly_grey():
    grey = np.repeat(FACE.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    anchored = anchor_colour(grey, FACE)
    assert (anchored == anchored[..., :1]).all()
    assert np.abs(anchored[..., 0].astype(float) - FACE @ [0.299, 0.587, 0.114]).max() < 2


def test_a_cast_is_taken_back_and_luminance_is_left():
    tinted = np.clip(FACE.astype(int) + np.array([30, 0, -30]), 0, 255).astype(np.uint8)
    anchored = anchor_colour(FACE, tinted)
    assert np.abs(anchored.astype(float).mean((0, 1)) - tinted.mean((0, 1)))[[0, 2]].min() > 10
    cast = (anchored.astype(float) - FACE).mean((0, 1))
    assert np.ptp(cast) < 6


def test_an_unchanged_face_comes_back_within_rounding():
    assert np.abs(anchor_colour(FACE, FACE).astype(int) - FACE).max() <= 3
