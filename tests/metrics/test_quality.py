"""BRISQUE against the package whose numbers it has, and on what it is for: telling spoiled faces from good ones."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.metrics.quality import Brisque, find_brisque

ASTRONAUT = data.astronaut()
FACE = cv2.resize(ASTRONAUT[40:200, 150:310], (64, 64), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def brisque():
    return Brisque(find_brisque().path)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (FACE, 26.5598),
        (ASTRONAUT[:240, 120:360], -11.1377),
        (data.chelsea(), 2.8708),
        (cv2.GaussianBlur(ASTRONAUT, (0, 0), 2.0), 64.2707),
    ],
    ids=["face of 64 px", "head", "cat", "blurred"],
)
def test_values_are_those_of_the_package(brisque, picture, told):
    """told: what brisque 0.2.0 with libsvm says of the picture; its roots are found to about 1e-3."""
    assert brisque(picture) == pytest.approx(told, abs=0.02)


def test_what_spoils_a_face_raises_its_value(brisque):
    noise = np.random.default_rng(0).normal(0, 25, FACE.shape)
    spoiled = {
        "blur": cv2.GaussianBlur(FACE, (0, 0), 1.5),
        "noise": np.clip(FACE + noise, 0, 255).astype(np.uint8),
        "enlarged": cv2.resize(cv2.resize(FACE, (20, 20), interpolation=cv2.INTER_AREA), (64, 64)),
    }
    assert {name for name, picture in spoiled.items() if brisque(picture) < brisque(FACE) + 5} == set()


def test_a_flat_picture_has_no_value(brisque):
    assert np.isnan(brisque(np.full((64, 64, 3), 9, np.uint8)))
    assert np.isnan(brisque(np.zeros((64, 64, 3), np.uint8)))
