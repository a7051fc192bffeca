"""A canvas holds what was edited of a picture, and gives any part of it as the whole would."""

import numpy as np
import pytest

from pipeline.faces.canvas import Canvas, disjoint
from pipeline.faces.pasting import add_change, change_inside, paste_face, place_crop, put_back

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
BOX, MEETING, APART = np.s_[5:15, 10:20], np.s_[12:20, 18:30], np.s_[30:35, 2:9]


def edited(boxes, **more):
    """A canvas with edits in each box, and the array that it stands for."""
    canvas, whole = Canvas(RGB, boxes, **more), RGB.astype(np.float32)
    for number, box in enumerate(boxes, start=1):
        canvas[box][...] += number / 4
        whole[box] += number / 4
    return canvas, whole


def test_boxes_that_meet_become_one_and_others_stay_apart():
    assert disjoint([BOX, APART, MEETING]) == [APART, np.s_[5:20, 10:30]]
    # one that meets both makes one of two
    assert disjoint([BOX, APART, np.s_[0:40, 0:11]]) == [np.s_[0:40, 0:20]]
    assert disjoint([BOX, np.s_[15:20, 10:20]]) == [BOX, np.s_[15:20, 10:20]]
    assert disjoint([]) == []


@pytest.mark.parametrize("boxes", [[BOX], [BOX, APART], [BOX, MEETING, APART]])
def test_every_part_is_that_of_the_whole_picture(boxes):
    canvas, whole = edited(boxes)
    assert canvas.shape == RGB.shape
    for rows, columns in (np.s_[0:40, 0:50], np.s_[8:13, 0:50], np.s_[0:40, 12:19], np.s_[10:31, 5:25]):
        part = canvas.part(rows, columns)
        assert part.dtype == np.float32 and (part == whole[rows, columns]).all()


def test_a_part_is_a_copy_and_none_where_nothing_was_edited():
    canvas, whole = edited([BOX])
    canvas.part(*BOX)[...] = 0
    assert (canvas[BOX] == whole[BOX]).all()
    assert canvas.part(slice(15, 40), slice(0, 50)) is None
    assert canvas.part(slice(0, 40), slice(20, 50)) is None


def test_where_the_picture_is_another_one_every_part_counts_as_edited():
    canvas, whole = edited([BOX], replaced=True)
    assert (canvas.part(slice(20, 40), slice(0, 50)) == whole[20:]).all()


def test_edits_are_taken_back_where_asked():
    canvas, whole = edited([BOX, APART])
    where = np.zeros(RGB.shape[:2], bool)
    where[:10] = True
    canvas.undo(where)
    whole[:10] = RGB[:10]
    assert (canvas.part(slice(0, 40), slice(0, 50)) == whole).all()


def test_a_box_outside_of_those_given_is_refused():
    canvas, _ = edited([BOX, APART])
    with pytest.raises(LookupError, match="give it to the constructor"):
        canvas[20:25, 30:35]
    with pytest.raises(LookupError):
        canvas[14:16, 10:20]


def test_a_large_box_holds_nothing_and_gives_the_same_parts(monkeypatch):
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    turned = np.array([[1.1, -0.4, 1.0], [0.4, 1.1, -15.0]])
    where = rng.random(RGB.shape[:2]) < 0.2

    def pasted():
        canvas = Canvas(RGB, [place_crop(c, 32, 50, 40).box for c in (turned, np.eye(2, 3))])
        for to_crop in (turned, np.eye(2, 3)):
            change = change_inside(before, after, to_crop, RGB.shape)
            canvas.paste(to_crop, 32, lambda p, _, there: paste_face(p, before, after, there, 0.3, 0.8))
            canvas.paste(to_crop, 32, lambda p, b, there, c=change: add_change(p, RGB[b], c, there))
        canvas.paste(turned, 32, lambda p, b, there: put_back(p, RGB[b], there, 32))
        canvas.undo(where)
        return canvas

    held = pasted()
    monkeypatch.setattr("pipeline.faces.canvas.MOST_HELD", 100)
    large = pasted()
    with pytest.raises(LookupError):
        large[10:12, 10:12]
    whole = held.part(slice(0, 40), slice(0, 50))
    assert np.abs(whole - RGB).max() > 20 and (whole == RGB)[where].all()
    for rows, columns in (np.s_[0:40, 0:50], np.s_[8:13, 0:50], np.s_[0:40, 12:19], np.s_[10:31, 5:25]):
        # windows differ in the last bits of where a crop's pixels lie
        assert np.abs(large.part(rows, columns) - whole[rows, columns]).max() < 0.1
