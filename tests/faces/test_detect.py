"""Finding faces on a real photograph, and choosing among what was found."""

import numpy as np
import pytest
import torch
from skimage import data

from pipeline.faces.detect import CenterFace, Face, RetinaFace, Selection, overlap, select_faces

PORTRAIT = data.astronaut()


def face(x, y, width, score=0.9):
    return Face((x, y, x + width, y + width), np.zeros((5, 2), np.float32), score)


@pytest.fixture(scope="module")
def centerface():
    return CenterFace()


def test_the_embedded_detector_finds_the_face_and_its_landmarks(centerface):
    (found,) = select_faces(centerface(PORTRAIT), Selection())
    eyes, nose, mouth = found.landmarks[:2], found.landmarks[2], found.landmarks[3:]
    assert eyes[0, 0] < nose[0] < eyes[1, 0] and eyes[:, 1].max() < nose[1] < mouth[:, 1].min()
    np.testing.assert_allclose(found.landmarks.mean(axis=0), [222, 118], atol=12)


def test_a_large_picture_is_searched_small_and_answered_in_its_own_pixels(centerface):
    large = np.repeat(np.repeat(PORTRAIT, 4, axis=0), 4, axis=1)
    (small,) = select_faces(centerface(PORTRAIT), Selection())
    (found,) = select_faces(centerface(large), Selection())
    np.testing.assert_allclose(found.landmarks / 4, small.landmarks, atol=5)


def test_a_cat_is_no_face(centerface):
    assert select_faces(centerface(data.chelsea()), Selection()) == []


def test_the_same_picture_always_gives_the_same_faces(centerface):
    first, second = centerface(PORTRAIT), centerface(PORTRAIT)
    assert [f.box for f in first] == [f.box for f in second]


def test_small_faces_doubles_and_the_surplus_are_left_out_largest_first():
    found = [face(0, 0, 100), face(5, 5, 100, 0.95), face(300, 0, 60), face(500, 0, 10), face(700, 0, 80)]
    chosen = select_faces(found, Selection(min_face=16, max_faces=2, max_overlap=0.4))
    assert [f.box[0] for f in chosen] == [5, 700]


def test_the_order_does_not_depend_on_the_detectors():
    found = [face(0, 0, 50), face(100, 0, 50), face(200, 0, 50)]
    assert select_faces(found, Selection()) == select_faces(found[::-1], Selection())


def test_overlap_is_intersection_over_union():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_retinaface_loads_the_published_layout_strictly_and_runs(tmp_path):
    from facexlib.detection.retinaface import RetinaFace as Network

    torch.manual_seed(0)
    state = {
        f"module.{k}": v for k, v in Network("mobile0.25", half=False, device="cpu").state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pth")
    assert isinstance(RetinaFace(tmp_path / "weights.pth", min_score=0.99)(PORTRAIT[::2, ::2]), list)
    state.popitem()
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(RuntimeError, match="Missing key"):
        RetinaFace(tmp_path / "short.pth")
