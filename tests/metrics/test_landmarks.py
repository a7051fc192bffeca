"""Landmarks lie where the face has them."""

import numpy as np
import pytest
from skimage import data

from pipeline.faces.geometry import FFHQ_TEMPLATE_512, CropFrame, face_to_crop, warp_crop
from pipeline.metrics.landmarks import LandmarkReader, find_models, landmark_distance

# left and right eye, nose tip, corners of the mouth in scikit-image's picture of Eileen Collins, found by CenterFace
EILEEN = np.array([(203.0, 102.0), (247.0, 105.0), (223.0, 125.0), (203.0, 142.0), (241.0, 144.0)])


def crop(side, shift=0.0):
    return warp_crop(data.astronaut(), face_to_crop(EILEEN + np.array([shift, 0.0]), CropFrame(side)), side)


@pytest.fixture(scope="module")
def reader():
    return LandmarkReader(find_models())


def test_landmarks_lie_at_the_template_of_aligned_crops_whatever_their_side(reader):
    points = reader.landmarks(crop(512))
    assert points.shape == (68, 2)
    five = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]]
    assert np.linalg.norm(np.array(five) - FFHQ_TEMPLATE_512, axis=1).max() < 30
    assert landmark_distance(reader.landmarks(crop(64)), points) < 10


def test_a_shifted_face_has_its_landmarks_as_far_away(reader):
    # a pixel of the picture is about 3 of the crop
    scale = np.hypot(*face_to_crop(EILEEN, CropFrame(512))[0, :2])
    distance = landmark_distance(reader.landmarks(crop(512)), reader.landmarks(crop(512, shift=6)))
    assert distance == pytest.approx(6 * scale, rel=0.3)
