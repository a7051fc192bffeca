"""A face is nearer to itself than to another, whatever frame its crop has."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.faces.geometry import CropFrame, face_to_crop, warp_crop
from pipeline.faces.identity import ARCFACE_CHIP, CHIP, Embedder, angle, cosine
from pipeline.metrics.suite import find_embedding

# left and right eye, nose tip, corners of the mouth in scikit-image's picture of Eileen Collins, found by CenterFace
EILEEN = np.array([(203.0, 102.0), (247.0, 105.0), (223.0, 125.0), (203.0, 142.0), (241.0, 144.0)])
PORTRAIT = CropFrame(128, zoom=1.45, centre=(0.5, 0.57))


def crop(frame: CropFrame):
    return warp_crop(data.astronaut(), face_to_crop(EILEEN, frame), frame.side)


@pytest.fixture(scope="module")
def network():
    return find_embedding(None)


def test_a_blurred_face_stays_its_own_and_an_altered_one_does_not(network):
    face, embed = crop(CropFrame(64)), Embedder(network, CropFrame(64))
    own = embed(face)
    assert own.shape == (128,)
    assert angle(own, own) == pytest.approx(0, abs=1e-3)
    blurred, other = cv2.GaussianBlur(face, (0, 0), 0.7), np.ascontiguousarray(cv2.flip(face, 0))
    assert angle(own, embed(blurred)) < 15 < angle(own, embed(other))


@pytest.mark.parametrize("frame", [CropFrame(256), PORTRAIT])
def test_a_crop_of_any_frame_shows_the_network_the_same_face_as_the_picture(network, frame):
    there = Embedder(network, frame)(crop(frame))
    assert angle(there, Embedder(network, CHIP).of_picture(data.astronaut(), EILEEN)) < 6


def test_a_change_of_one_level_turns_it_by_less_than_a_degree(network):
    face, embed = crop(PORTRAIT), Embedder(network, PORTRAIT)
    change = np.random.default_rng(0).integers(-1, 2, face.shape)
    near = np.clip(face.astype(int) + change, 0, 255).astype(np.uint8)
    assert 0 < angle(embed(face), embed(near)) < 1


def test_angles_are_those_of_the_directions_alone():
    assert angle(np.array([2.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(45)
    assert np.isnan(angle(np.zeros(2), np.ones(2)))


def test_a_network_of_another_frame_sees_the_face_there():
    seen = []
    embed = Embedder(lambda face: seen.append(face) or np.ones(1), PORTRAIT, ARCFACE_CHIP)
    embed(crop(PORTRAIT))
    embed.of_picture(data.astronaut(), EILEEN)
    assert [face.shape for face in seen] == [(112, 112, 3)] * 2
    assert np.abs(seen[0].astype(int) - seen[1])[16:96, 16:96].mean() < 6


def test_the_frame_of_arcface_has_its_five_points_within_the_difference_of_the_templates():
    published = [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
    assert np.abs(ARCFACE_CHIP.template - published).max() < 2.2


def test_the_cosine_of_a_face_with_itself_is_one_and_of_nothing_undefined():
    assert cosine(np.array([3.0, 4.0]), np.array([6.0, 8.0])) == pytest.approx(1)
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0 and np.isnan(
        cosine(np.zeros(2), np.ones(2))
    )
