"""Every face of a picture: those to restore, and those that are left, with the reason."""

import numpy as np
import pytest

from pipeline.faces.detect import CenterFace, Face, Selection, select_faces
from pipeline.faces.geometry import CropFrame, fit_landmarks
from pipeline.faces.search import search
from tests.photographs import portrait

GROUND = np.zeros((200, 900, 3), np.uint8)


@pytest.fixture(scope="module")
def centerface():
    return CenterFace()


def face(x, width, score=0.9, turned=False):
    marks = CropFrame(64).template * width / 64 + np.array([x, 0])
    if turned:
        marks = np.column_stack([marks[:, 1], marks[:, 0]]) + np.array([0, 300])
        marks[2] += width / 3
    return Face((float(x), 0.0, float(x + width), float(width)), marks.astype(np.float32), score)


def scene(*pieces):
    """Portraits side by side on grey: (width, quarters anticlockwise)."""
    picture = np.full((330, 330 * len(pieces), 3), 90, np.uint8)
    for i, (width, quarters) in enumerate(pieces):
        one = np.rot90(np.array(portrait(width, round(width * 1.1))), quarters)
        y = x = 20
        picture[y : y + one.shape[0], 330 * i + x : 330 * i + x + one.shape[1]] = one
    return picture


def test_what_is_left_by_choice_is_named_and_comes_last():
    found = [face(0, 60), face(100, 100), face(300, 80), face(500, 10), face(600, 7), face(700, 12)]
    listed = search(lambda picture: found, GROUND, Selection(min_face=16, max_faces=2))
    assert [(f.face.box[0], f.left) for f in listed] == [
        (100, ""),
        (300, ""),
        (0, "surplus"),
        (700, "small"),
        (500, "small"),
    ]
    assert listed[2].why == "beyond --max-faces 2, which takes the largest"
    assert listed[4].why == "smaller than --min-face: 10.0 of 16 px"


def test_the_faces_to_restore_are_those_that_are_selected():
    rng = np.random.default_rng(0)
    found = [
        face(float(x), float(w), float(s)) for x, w, s in rng.uniform((0, 8, 0.5), (800, 90, 1), (60, 3))
    ]
    for selection in (Selection(), Selection(max_faces=5), Selection(min_face=40)):
        listed = [f.face for f in search(lambda picture: found, GROUND, selection) if not f.left]
        assert listed == select_faces(found, selection)


def test_each_face_is_counted_once_and_a_part_of_a_face_never():
    found = [face(100, 100), face(104, 100, 0.6), face(140, 12), face(400, 12), face(401, 12, 0.6)]
    listed = search(lambda picture: found, GROUND, Selection())
    assert [(f.face.box[0], f.left) for f in listed] == [(100, ""), (400, "small")]


def test_a_face_that_fits_none_keeps_its_place_and_every_other_its_number():
    found = [face(0, 60), face(100, 100, turned=True), face(300, 80)]
    listed = search(lambda picture: found if picture.shape == GROUND.shape else [], GROUND, Selection())
    assert [(f.face.box[0], f.left) for f in listed] == [(100, "unfit"), (300, ""), (0, "")]
    assert "do not fit a face (residual" in listed[0].why


def test_a_crowd_of_thousands_is_named_face_by_face():
    found = [
        Face((9.0 * x, 9.0 * y, 9.0 * x + 8, 9.0 * y + 8), face(9 * x, 8).landmarks, 0.9)
        for x in range(50)
        for y in range(50)
    ]
    listed = search(lambda picture: found, np.zeros((450, 450, 3), np.uint8), Selection(min_face=8))
    assert len(listed) == 2500 and sum(not f.left for f in listed) == 64


def test_an_upright_face_beside_a_turned_one_stays_bit_for_bit_and_keeps_its_number(centerface):
    picture = scene((150, 1), (200, 0), (120, 0))
    before = select_faces(centerface(picture), Selection())
    after = search(centerface, picture, Selection())
    assert len(before) == len(after) == 3 and not any(f.left for f in after)
    pairs = list(zip(before, (f.face for f in after), strict=True))
    same = [b.box == a.box and bool((b.landmarks == a.landmarks).all()) for b, a in pairs]
    assert sorted(same) == [False, True, True]
    turned = pairs[same.index(False)][1]
    assert turned.box[0] < 330 and abs(abs(fit_landmarks(turned.landmarks).turn) - 90) < 15


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_page_that_lies_wrongly_gives_the_faces_of_the_page_upright(centerface, quarters):
    picture = scene((200, 0), (120, 0), (60, 0))
    straight = [f.face for f in search(centerface, picture, Selection())]
    lying = np.ascontiguousarray(np.rot90(picture, quarters))
    found = search(centerface, lying, Selection())
    assert len(found) == len(straight) == 3 and not any(f.left for f in found)
    height, width = lying.shape[:2]
    for one in (f.face for f in found):
        x, y = one.landmarks.mean(axis=0)
        for _ in range(quarters):
            # np.rot90 takes (x, y) of a picture W wide to (y, W - x), and this is the way back
            x, y, height, width = height - y, x, width, height
        height, width = lying.shape[:2]
        nearest = min(np.hypot(*(f.landmarks.mean(axis=0) - (x, y))) for f in straight)
        assert nearest < 8


def test_a_picture_that_shows_no_face_as_it_lies_is_searched_turned():
    sure = CenterFace(min_score=0.8)
    picture = np.ascontiguousarray(np.rot90(scene((200, 0), (120, 0)), 2))
    assert sure(picture) == []
    found = search(sure, picture, Selection())
    assert [f.left for f in found] == ["", ""]
    assert all(abs(fit_landmarks(f.face.landmarks).turn) > 165 for f in found)


def test_a_picture_without_a_face_has_none_turned_either(centerface):
    from skimage import data

    assert search(centerface, data.chelsea(), Selection()) == []
    assert search(centerface, data.coffee(), Selection()) == []
