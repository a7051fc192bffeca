"""NIQE against BasicSR's translation of the authors' program, and where it is undefined."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.io.weights import resolve_metric
from pipeline.metrics.niqe import Niqe, features

ASTRONAUT = data.astronaut()


@pytest.fixture(scope="module")
def niqe():
    return Niqe(resolve_metric("niqe", None).path)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (data.chelsea(), 2.62552),
        (data.coffee(), 4.11524),
        (data.rocket(), 6.96915),
        (ASTRONAUT[:192, 160:352], 5.41639),
        (ASTRONAUT[:96, 160:352], 7.18514),
        (cv2.GaussianBlur(ASTRONAUT, (0, 0), 2.0), 7.28222),
    ],
    ids=["cat", "coffee", "rocket", "four blocks", "two blocks", "blurred"],
)
def test_values_are_those_of_basicsr(niqe, picture, expected):
    """expected: calculate_niqe of basicsr 1.4.2, which computes in float32; it agrees with MATLAB to 3e-6."""
    assert niqe(picture) == pytest.approx(expected, abs=2e-3)


def test_only_whole_blocks_count(niqe):
    assert features(ASTRONAUT[:200, :300]).shape == (6, 36)
    assert niqe(ASTRONAUT[:200, :300]) == niqe(ASTRONAUT[:192, :288])


def test_a_picture_with_fewer_than_two_blocks_with_contrast_has_no_value(niqe):
    half_flat = ASTRONAUT[:96, 160:352].copy()
    half_flat[:, 96:] = 40
    for picture in (
        ASTRONAUT[:96, :191],
        ASTRONAUT[:64, :64],
        half_flat,
        np.full((192, 192, 3), 9, np.uint8),
    ):
        assert np.isnan(niqe(picture))
