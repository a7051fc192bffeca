"""A large face with fine detail has a larger crop of the same region; every other one the crop it always had."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.faces.geometry import CropFrame, crop_scale, warp_crop
from pipeline.faces.sides import LargerSide, cut_crop, resized

FRAME = CropFrame(64, zoom=1.45, centre=(0.5, 0.57), resampling="fine")
PICTURE = data.astronaut()
LARGER = [LargerSide(96, 1.4, 0.6), LargerSide(128, 2.0, 0.6)]


def to_crop(scale, x=160, y=30):
    """The similarity to a crop of the astronaut's head, so many pixels of the picture for one of the crop."""
    return np.array([[1 / scale, 0, -x / scale], [0, 1 / scale, -y / scale]])


@pytest.mark.parametrize(
    ("scale", "side"), [(0.8, 64), (1.39, 64), (1.4, 96), (1.9, 96), (2.0, 128), (3.0, 128)]
)
def test_the_side_follows_the_size_of_a_sharp_face(scale, side):
    cut = cut_crop(PICTURE, to_crop(scale), FRAME, LARGER)
    assert cut.side == side and cut.crop.shape == (side, side, 3)
    assert crop_scale(cut.to_crop) == pytest.approx(scale * 64 / side)


def test_a_blurred_face_keeps_the_first_side_with_the_same_bits():
    blurred = cv2.GaussianBlur(PICTURE, (0, 0), 5)
    cut = cut_crop(blurred, to_crop(2.5), FRAME, LARGER)
    assert np.array_equal(cut.crop, warp_crop(blurred, to_crop(2.5), 64, "fine"))
    assert np.array_equal(cut.to_crop, to_crop(2.5))


def test_a_larger_crop_shows_the_same_region():
    small = cut_crop(PICTURE, to_crop(1.8), FRAME, []).crop
    large = cut_crop(PICTURE, to_crop(1.8), FRAME, LARGER).crop
    shrunk = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - small).mean() < 2
    moved = np.abs(np.roll(shrunk, 1, axis=1).astype(int) - small).mean()
    assert moved > 3 * np.abs(shrunk.astype(int) - small).mean()


def test_the_corners_of_a_resized_crop_stay_where_they_are():
    corner = np.linalg.inv(np.vstack([to_crop(1.5), [0, 0, 1]])) @ [-0.5, 63.5, 1]
    assert resized(to_crop(1.5), 1.5) @ corner == pytest.approx([-0.5, 95.5])
