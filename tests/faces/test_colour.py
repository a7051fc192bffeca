"""A restored face stays in its picture's colours."""

import numpy as np
import pytest
from skimage import data

from pipeline.faces.colour import anchor_change, anchor_colour

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


# so that no change of 40 is clipped
PALE = FACE // 2 + 40


def patched(by):
    """The pale face, changed by so much in a square of it."""
    after = PALE.astype(int)
    after[20:40, 24:44] += by
    return after.astype(np.uint8)


def test_of_a_change_an_unchanged_face_comes_back_bit_for_bit():
    assert np.array_equal(anchor_change(FACE, FACE), FACE)
    grey = np.repeat(FACE[..., 1:2], 3, axis=2)
    assert np.array_equal(anchor_change(grey, grey), grey)


def test_a_change_of_luma_alone_is_taken_as_it_is_and_leaves_every_other_pixel_exact():
    assert np.array_equal(anchor_change(PALE, patched(35)), patched(35))


def test_a_pixel_far_from_every_change_stays_exact_and_near_one_it_pays_for_the_cast():
    """What a change adds to the broad colours is taken off again, wider than a sixteenth of the side."""
    change = anchor_change(PALE, patched(np.array([40, 0, -40]))).astype(float) - PALE
    moved = change.any(axis=2)
    assert not moved[:4].any() and not moved[:, :8].any() and not moved[56:].any()
    red, _, blue = change[24:36, 28:40].mean((0, 1))
    assert red - blue < 40  # of 80
    luma = change @ (0.299, 0.587, 0.114)
    assert luma[20:40, 24:44].mean() == pytest.approx(40 * (0.299 - 0.114), abs=0.1)
    assert luma.mean() == pytest.approx(40 * (0.299 - 0.114) * 20 * 20 / 64**2, abs=0.05)


def test_a_change_of_a_grey_face_keeps_it_exactly_grey():
    grey = np.repeat(FACE.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    anchored = anchor_change(grey, FACE)
    assert (anchored == anchored[..., :1]).all()
    assert np.abs(anchored[..., 0] - FACE @ (0.299, 0.587, 0.114)).max() < 1
    # a grey face with a tint of less than two levels keeps that
    tinted = np.clip(grey + np.array([2, 0, 0]), 0, 255).astype(np.uint8)
    kept = anchor_change(tinted, FACE).astype(int) - tinted
    assert np.abs(kept - kept[..., :1]).max() == 0


def test_of_a_change_a_cast_is_taken_back_and_luminance_is_left():
    tinted = (PALE + np.array([30, 0, -30])).astype(np.uint8)
    change = (anchor_change(PALE, tinted).astype(float) - PALE).mean((0, 1))
    assert np.ptp(change) < 0.1
    assert change.mean() == pytest.approx(30 * (0.299 - 0.114), abs=0.5)
