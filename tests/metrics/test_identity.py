"""Landmarks lie where the face has them, and a face is nearer to itself than to another."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.faces.geometry import FFHQ_TEMPLATE_512, CropFrame, face_to_crop, warp_crop
from pipeline.metrics.identity import FaceReader, angle, find_models, landmark_distance

# left and right eye, nose tip, corners of the mouth in scikit-image's picture of Eileen Collins, found by CenterFace
EILEEN = np.array([(203.0, 102.0), (247.0, 105.0), (223.0, 125.0), (203.0, 142.0), (241.0, 144.0)])


def crop(side, shift=0.0):
    return warp_crop(data.astronaut(), face_to_crop(EILEEN + np.array([shift, 0.0]), CropFrame(side)), side)


@pytest.fixture(scope="module")
def reader():
    return FaceReader(find_models())


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


def test_a_blurred_face_stays_its_own_and_an_altered_one_does_not(reader):
    face = crop(64)
    own = reader.embedding(face)
    blurred = reader.embedding(cv2.GaussianBlur(face, (0, 0), 0.7))
    other = reader.embedding(np.ascontiguousarray(cv2.flip(face, 0)))
    assert own.shape == (128,)
    assert angle(own, own) == pytest.approx(0, abs=1e-3)
    assert angle(own, blurred) < 15 < angle(own, other)


def test_angles_are_those_of_the_directions_alone():
    assert angle(np.array([2.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(45)
    assert np.isnan(angle(np.zeros(2), np.ones(2)))
