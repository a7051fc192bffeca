"""Gates let a better picture of the same face pass, and none that shows another face, moved features or new colours."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.faces.gates import GATES, Bounds, Gates, Measurements, broad_colour, noise
from pipeline.faces.geometry import CropFrame, face_to_crop, warp_crop
from pipeline.faces.identity import Embedder
from pipeline.metrics.suite import find_embedding

# left and right eye, nose tip, corners of the mouth in scikit-image's picture of Eileen Collins, found by CenterFace
EILEEN = np.array([(203.0, 102.0), (247.0, 105.0), (223.0, 125.0), (203.0, 142.0), (241.0, 144.0)])
FRAME = CropFrame(128, zoom=1.45, centre=(0.5, 0.57))
BOUNDS = Bounds(identity=((1.0, 6.0), (5.0, 20.0)), landmarks=0.1, colour=12.0, gain=0.1)
DELTA = 5.0


@pytest.fixture(scope="module")
def gates():
    return Gates(BOUNDS, FRAME, Embedder(find_embedding(None), FRAME))


@pytest.fixture(scope="module")
def sharp():
    return warp_crop(data.astronaut(), face_to_crop(EILEEN, FRAME), FRAME.side)


@pytest.fixture(scope="module")
def came(sharp):
    """The face out of focus."""
    return cv2.GaussianBlur(sharp, (0, 0), 1.5)


def verdict(gates, came, restored, delta=DELTA):
    """Of a face whose estimate shows what came."""
    found = gates.measure(gates.face(came, came), restored)
    return gates.failed(found, delta), found


def test_a_sharper_picture_of_the_same_face_passes(gates, came, sharp):
    failed, found = verdict(gates, came, sharp)
    assert failed is None
    assert found.identity < 20 and found.landmarks < 0.1 and found.colour < 3 and found.gain > 1


def test_another_face_is_refused_for_its_identity(gates, came, sharp):
    other = np.ascontiguousarray(cv2.flip(sharp, 0))
    failed, found = verdict(gates, came, other)
    assert failed == "identity" and found.identity > 20


def test_moved_features_are_refused(gates, came, sharp):
    moved = np.roll(sharp, 8, axis=0)
    failed, found = verdict(gates, came, moved)
    assert found.landmarks == pytest.approx(
        8 / np.linalg.norm(FRAME.template[0] - FRAME.template[1]), rel=0.5
    )
    assert failed in ("identity", "landmarks")
    assert gates.failed(Measurements(1.0, found.landmarks, 0.0, 1.0), DELTA) == "landmarks"


def test_a_crop_of_another_side_has_the_same_shift_and_angle(gates, came, sharp):
    moved = np.roll(sharp, 8, axis=0)
    found = verdict(gates, came, moved)[1]
    wide = [cv2.resize(crop, (192, 192), interpolation=cv2.INTER_CUBIC) for crop in (came, moved)]
    found_wide = verdict(gates, *wide)[1]
    assert found_wide.landmarks == pytest.approx(found.landmarks, rel=0.15)
    assert found_wide.identity == pytest.approx(found.identity, abs=1.5)


def test_a_face_that_is_no_longer_found_is_refused(gates, came):
    _, found = verdict(gates, came, np.full_like(came, 128))
    assert found.landmarks == float("inf")
    assert gates.failed(Measurements(1.0, found.landmarks, 0.0, 1.0), DELTA) == "landmarks"


def test_the_estimate_itself_has_moved_nothing(gates, came, sharp):
    """Where it shows a face that what came does not: landmarks are compared with the estimate's."""
    judged = gates.face(np.full_like(came, 128), sharp)
    assert gates.measure(judged, sharp).landmarks is None
    softer = gates.measure(judged, cv2.GaussianBlur(sharp, (0, 0), 0.7)).landmarks
    assert softer < 0.05 < gates.measure(judged, np.roll(sharp, 8, axis=0)).landmarks


def test_a_neighbours_face_is_not_taken_for_the_crops_own(gates, sharp):
    beside = np.roll(sharp, 60, axis=1)
    assert gates.face(beside, beside).landmarks is None


def test_invented_colour_is_refused(gates, came, sharp):
    painted = sharp.copy()
    painted[70:110, 30:100, 0] = np.minimum(painted[70:110, 30:100, 0].astype(int) + 60, 255)
    failed, found = verdict(gates, came, painted)
    assert found.colour > 12
    assert gates.failed(Measurements(1.0, 0.0, found.colour, 1.0), DELTA) == "colour" and failed is not None


def test_a_face_that_gains_neither_sharpness_nor_quiet_is_refused(gates, came, sharp):
    assert verdict(gates, sharp, sharp)[0] == "gain"
    assert verdict(gates, sharp, came)[0] == "gain"


@pytest.mark.parametrize("grain", [0.0, 1.2])
def test_less_noise_and_less_grain_are_a_gain_though_the_face_is_less_sharp(gates, sharp, grain):
    drawn = np.random.default_rng(0).normal(0, 8, sharp.shape[:2])
    if grain:
        drawn = cv2.GaussianBlur(drawn, (0, 0), grain) * 4
    noisy = np.clip(sharp + drawn[..., None], 0, 255).astype(np.uint8)
    failed, found = verdict(gates, noisy, cv2.GaussianBlur(sharp, (0, 0), 0.6))
    assert failed is None and found.gain > 0.3


def test_the_noise_is_that_which_was_added():
    grey = np.full((128, 128, 3), 128.0) + np.random.default_rng(0).normal(0, 10, (128, 128, 1))
    full, half = noise(np.clip(grey, 0, 255).astype(np.uint8))
    # four pixels are averaged at half size
    assert full == pytest.approx(10, rel=0.1) and half == pytest.approx(5, rel=0.2)


def test_a_change_of_luma_is_no_change_of_colour(came):
    darker = came // 2
    assert broad_colour(darker, darker + 20) < 0.1


def test_the_allowance_grows_with_what_the_estimator_changes():
    assert [BOUNDS.at("identity", d) for d in (0.2, 1, 3, 5, 9)] == [6, 6, 13, 20, 20]
    assert Bounds().at("identity", 3) is None and BOUNDS.at("colour", 0.1) == BOUNDS.at("colour", 9) == 12


def test_gates_that_are_off_refuse_nothing(came, sharp):
    open_gates = Gates(Bounds(), FRAME, None)
    failed, found = verdict(open_gates, came, np.ascontiguousarray(cv2.flip(sharp, 0)))
    assert failed is None and found.identity is None and found.landmarks is None


def test_bounds_survive_their_table():
    assert Bounds.from_table(BOUNDS.as_table) == BOUNDS
    assert set(BOUNDS.as_table) == set(GATES)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"likeness": 3}, "the gates are identity, landmarks, colour, gain, got likeness"),
        ({"identity": 3}, "identity must hold rows of δ, rising, and the bound there, got 3"),
        ({"identity": [[2, 3], [1, 4]]}, "identity must hold rows"),
        ({"landmarks": [[1, 2]]}, "landmarks must be a number, got [[1, 2]]"),
        ({"gain": "much"}, "gain must be a number, got 'much'"),
    ],
)
def test_a_table_that_is_none_is_refused_in_a_sentence(table, what):
    with pytest.raises(ValueError, match="^" + what.replace("[", r"\[")):
        Bounds.from_table(table)
