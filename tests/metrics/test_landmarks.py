"""Landmarks lie where the face has them, and move as the face does."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.faces.geometry import FFHQ_TEMPLATE_512, CropFrame, face_to_crop, warp_crop
from pipeline.io.weights import resolve_metric
from pipeline.metrics.landmarks import (
    FFHQ,
    Dlib68Landmarks,
    MeshLandmarks,
    find_dlib_models,
    landmark_distance,
)
from pipeline.networks.face_mesh import load_mesh

# left and right eye, nose tip, corners of the mouth in scikit-image's picture of Eileen Collins, found by CenterFace
EILEEN = np.array([(203.0, 102.0), (247.0, 105.0), (223.0, 125.0), (203.0, 142.0), (241.0, 144.0)])
PORTRAIT = CropFrame(128, 1.45, (0.5, 0.57))


def crop(frame, shift=0.0):
    to_crop = face_to_crop(EILEEN + np.array([shift, 0.0]), frame)
    return warp_crop(data.astronaut(), to_crop, frame.side)


@pytest.fixture(scope="module")
def network():
    return load_mesh(resolve_metric("landmarks", None).path)


@pytest.fixture(scope="module")
def dlib68():
    return Dlib68Landmarks(find_dlib_models(), FFHQ)


def five_of_mesh(points):
    return np.array(
        [points[[33, 133]].mean(0), points[[362, 263]].mean(0), points[1], points[61], points[291]]
    )


def five_of_68(points):
    return np.array([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def test_points_lie_at_the_template_of_aligned_crops(network, dlib68):
    mesh, points = MeshLandmarks(network, FFHQ)(crop(FFHQ)), dlib68(crop(FFHQ))
    assert mesh.shape == (468, 2) and points.shape == (68, 2)
    for five in (five_of_mesh(mesh), five_of_68(points)):
        assert np.linalg.norm(five - FFHQ_TEMPLATE_512, axis=1).max() < 30


@pytest.mark.parametrize("frame", [CropFrame(64), PORTRAIT], ids=["small", "portrait"])
def test_points_are_those_of_the_face_whatever_the_frame_and_the_side(network, frame):
    mesh = MeshLandmarks(network, FFHQ)(crop(FFHQ))
    assert landmark_distance(MeshLandmarks(network, frame)(crop(frame)), mesh) < 4


def test_dlibs_points_are_those_of_the_face_whatever_the_side(dlib68):
    assert landmark_distance(dlib68(crop(CropFrame(64))), dlib68(crop(FFHQ))) < 10


def test_a_shifted_face_has_its_landmarks_as_far_away(network, dlib68):
    # a pixel of the picture is about 3 of the crop
    scale = np.hypot(*face_to_crop(EILEEN, FFHQ)[0, :2])
    for read in (MeshLandmarks(network, FFHQ), dlib68):
        distance = landmark_distance(read(crop(FFHQ)), read(crop(FFHQ, shift=6)))
        assert distance == pytest.approx(6 * scale, rel=0.3)


def test_a_lowered_mouth_is_measured_where_it_is(network):
    y, x = np.mgrid[:512, :512].astype(np.float32)
    lower = 10 * np.exp(-(((x - 257) / 75) ** 2 + ((y - 371) / 40) ** 2) / 2)
    came = crop(FFHQ)
    moved = cv2.remap(came, x, y - lower, cv2.INTER_LINEAR)
    read = MeshLandmarks(network, FFHQ)
    change = read(moved) - read(came)
    lips, eyes = [0, 13, 14, 17], [33, 133, 362, 263]
    assert 6 < change[lips, 1].mean() < 14
    assert np.abs(change[eyes]).max() < 4
