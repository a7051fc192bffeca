"""Faces that do not stand upright: seen by their landmarks, and found again in the turned picture."""

import cv2
import numpy as np
import pytest

from pipeline.faces.detect import CenterFace, Face, Selection, select_faces
from pipeline.faces.geometry import CropFrame, box_to_crop, fit_landmarks
from pipeline.faces.poses import is_usable, most_turned, turned_back, upright
from tests.photographs import portrait

PICTURE = np.array(portrait(300, 330))
TEMPLATE = CropFrame(100).template


@pytest.fixture(scope="module")
def centerface():
    return CenterFace()


def turned(picture, degrees):
    """A picture turned anticlockwise on a larger black ground, and the 2x3 way there."""
    height, width = picture.shape[:2]
    side = int(np.hypot(height, width)) + 1
    way = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    way[:, 2] += (side - width) / 2, (side - height) / 2
    return cv2.warpAffine(picture, way, (side, side)), way


def landmarks(degrees, centre=(50, 50)):
    """The template's, turned clockwise about a point."""
    way = cv2.getRotationMatrix2D(centre, -degrees, 1)
    return (TEMPLATE @ way[:, :2].T + way[:, 2]).astype(np.float32)


@pytest.mark.parametrize("degrees", [0, 30, -75, 180])
def test_a_fit_says_how_far_landmarks_are_turned_and_that_they_are_a_faces(degrees):
    fit = fit_landmarks(landmarks(degrees))
    assert fit.residual == pytest.approx(0, abs=1e-6)
    assert (fit.turn + degrees + 180) % 360 - 180 == pytest.approx(0, abs=1e-3) or abs(degrees) == 180


def test_the_residual_is_a_share_of_the_side_of_ffhqs_frame():
    moved = TEMPLATE.copy()
    moved[2] += (0, 10)
    assert 0.02 < fit_landmarks(moved).residual < 0.045
    assert fit_landmarks(moved * 7).residual == pytest.approx(fit_landmarks(moved).residual)


@pytest.mark.parametrize("degrees", [60, 90, 120, 200, 270, 310])
def test_a_turned_face_is_found_upright(centerface, degrees):
    (truth,) = select_faces(centerface(PICTURE), Selection())
    picture, way = turned(PICTURE, degrees)
    (seen,) = select_faces(centerface(picture), Selection())
    found = upright(centerface, picture, seen)
    wanted = truth.landmarks @ way[:, :2].T + way[:, 2]
    assert np.abs(found.landmarks - wanted).max() < 0.1 * np.ptp(wanted, axis=0).max()
    assert fit_landmarks(found.landmarks).residual < 0.02


def test_an_upright_face_is_the_very_same_and_nothing_more_is_searched(centerface):
    (seen,) = select_faces(centerface(PICTURE), Selection())
    asked = []
    assert upright(asked.append, PICTURE, seen) is seen and asked == []


def test_a_face_that_is_nowhere_upright_is_left_with_its_residual():
    sideways = landmarks(-80)
    sideways[2] += (20, 5)
    seen = Face((20.0, 20.0, 80.0, 90.0), sideways, 0.9)
    why = upright(lambda picture: [], PICTURE, seen)
    residual = fit_landmarks(sideways).residual
    assert residual > 0.035 and f"do not fit a face (residual {residual:.3f}, turned by 8" in why


def test_a_face_that_stands_but_does_not_fit_is_left_without_a_search():
    cut = TEMPLATE.astype(np.float32)
    cut[[0, 3], 0] = cut[[1, 4], 0] - 4
    asked = []
    why = upright(asked.append, PICTURE, Face((20.0, 20.0, 80.0, 90.0), cut, 0.9))
    assert "do not fit a face (residual 0." in why and asked == []


def test_landmarks_that_coincide_are_no_face():
    same = Face((0.0, 0.0, 9.0, 9.0), np.ones((5, 2), np.float32), 0.9)
    assert not is_usable(same) and "coincide" in upright(lambda picture: [], PICTURE, same)
    assert not is_usable(Face((0.0, 0.0, np.nan, 9.0), landmarks(0), 0.9))
    assert is_usable(Face((0.0, 0.0, 9.0, 9.0), landmarks(0), 0.9))


def test_a_found_face_is_carried_back_through_a_quarter_turn():
    """A picture of 40x60 turned anticlockwise: its right side is above."""
    face = Face((5.0, 10.0, 25.0, 40.0), np.array([[10, 20]] * 5, np.float32), 0.9)
    back = turned_back(face, np.array([[0.0, 1, 0], [-1, 0, 40]]), (60, 40, 3))
    assert back.box == pytest.approx((0, 5, 30, 25)) and back.score == 0.9
    np.testing.assert_allclose(back.landmarks[0], (20, 10), atol=1e-4)


def test_most_faces_decide_how_a_picture_lies():
    def one(degrees):
        return Face((0.0, 0.0, 9.0, 9.0), landmarks(degrees), 0.9)

    assert most_turned([(one(-80), True), (one(-95), True), (one(0), False)]) == 3
    assert most_turned([(one(80), True)]) == 1
    assert most_turned([(one(80), True), (one(2), False)]) == 0
    assert most_turned([]) == 0


def test_a_crop_by_the_box_alone_is_about_that_by_the_landmarks(centerface):
    (seen,) = select_faces(centerface(PICTURE), Selection())
    for frame in (CropFrame(64), CropFrame(128, zoom=1.3, centre=(0.5, 0.55))):
        crop = box_to_crop(seen.box, frame)
        there = seen.landmarks.astype(float) @ crop[:, :2].T + crop[:, 2]
        assert np.abs(there - frame.template).max() < 0.08 * frame.side * frame.zoom
