"""Blur lowers both measures; size of contrast does not move crispness."""

import cv2
import numpy as np
from skimage import data

from pipeline.faces.sharpness import crispness, sharpness

FACE = cv2.resize(data.astronaut()[40:200, 150:310], (64, 64), interpolation=cv2.INTER_AREA)


def test_a_sharp_face_is_told_from_a_blurred_and_an_enlarged_one():
    blurred = cv2.GaussianBlur(FACE, (0, 0), 1.5)
    enlarged = cv2.resize(cv2.resize(FACE, (24, 24), interpolation=cv2.INTER_AREA), (64, 64))
    assert crispness(FACE) > 0.85
    assert max(crispness(blurred), crispness(enlarged)) < 0.7
    assert sharpness(FACE) > 4 * sharpness(blurred)


def test_crispness_does_not_depend_on_contrast():
    flat = (FACE // 2 + 60).astype(np.uint8)
    assert abs(crispness(flat) - crispness(FACE)) < 0.08


def test_a_flat_picture_has_no_sharpness():
    assert sharpness(np.full((64, 64, 3), 9, np.uint8)) == 0
    assert crispness(np.full((64, 64, 3), 9, np.uint8)) == 0
