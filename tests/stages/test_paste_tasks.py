"""A task changes what it is asked to, and nothing else."""

import io
from functools import partial

import numpy as np
import pytest
from photographs import encoded, portrait
from PIL import Image

from pipeline.diffusion.task import Task, shrinking
from pipeline.io import images
from pipeline.io.masks import fill, find_hole
from pipeline.io.units import Address, Unit
from pipeline.records.rows import FaceRecord
from pipeline.stages.paste import paste_faces

SIDE = 64
HOLE = np.zeros((110, 100), bool)
HOLE[20:60, 30:70] = True


def face(scale=1.0, shift=(-20.0, -20.0)) -> FaceRecord:
    """A crop that lies in the picture, turned a little."""
    turned = np.array([[0.98, -0.199], [0.199, 0.98]]) / scale
    affine = [*turned[0], shift[0], *turned[1], shift[1]]
    return FaceRecord(0, 0, [0, 0, 1, 1], [0.0] * 10, [float(v) for v in affine], 1.0, scale)


def finder(choice):
    address = Address("p.png", "", 0, 0)
    return partial(_find, choice, address)


def _find(choice, address, picture):
    return find_hole(choice, picture, address, Unit("s", "folder", 0, True, ()), images.MAX_PIXELS)


def flat(value) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_outside_the_hole_every_pixel_stays_and_inside_it_the_face_is_laid_whole(kind):
    pixels = np.array(portrait())
    pixels[HOLE] = 0
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), kind, **options)
    done = paste_faces(
        data, [(face(), flat(9), flat(200))], None, False, images.MAX_PIXELS, task=Task("inpaint"),
        find=finder("black"),
    )  # fmt: skip
    result = np.asarray(Image.open(io.BytesIO(done.data)).convert("RGB"))
    hole = (pixels == 0).all(axis=2)
    assert np.array_equal(result[~hole], pixels[~hole])
    filled = (result == 200).all(axis=2)
    assert filled.sum() > 1000 and not filled[~hole].any()


def test_a_hole_in_the_alpha_channel_is_opaque_where_it_was_filled():
    picture = portrait().convert("RGBA")
    alpha = np.full((110, 100), 255, np.uint8)
    alpha[HOLE] = 0
    alpha[105:] = 7  # out of the face's reach
    picture.putalpha(Image.fromarray(alpha))
    done = paste_faces(
        encoded(picture, "PNG"), [(face(), flat(9), flat(200))], None, False, images.MAX_PIXELS,
        task=Task("inpaint"), find=finder("alpha"),
    )  # fmt: skip
    result = np.asarray(Image.open(io.BytesIO(done.data)))
    assert (result[30:50, 40:60] == (200, 200, 200, 255)).all()
    assert (result[105:, :, 3] == 7).all()


@pytest.mark.parametrize("pastes_change", [False, True])
def test_a_grey_file_gets_colours_and_keeps_its_luma(pastes_change):
    grey = portrait().convert("L")
    crop = np.repeat(np.asarray(grey.resize((SIDE, SIDE)))[..., None], 3, axis=2)
    to_crop = [SIDE / 100, 0.0, 0.0, 0.0, SIDE / 110, 0.0]
    record = FaceRecord(0, 0, [0, 0, 1, 1], [0.0] * 10, to_crop, 1.0, 100 / SIDE)
    change = np.array([30, -15, 0])  # no luma: 0.299 * 30 - 0.587 * 15
    reddened = np.clip(crop.astype(int) + change, 0, 255).astype(np.uint8)
    for kind, coding in (("PNG", 0.7), ("JPEG", 4)):
        done = paste_faces(
            encoded(grey, kind), [(record, crop, reddened)], None, True, images.MAX_PIXELS, pastes_change,
            Task("colourise"),
        )  # fmt: skip
        result = Image.open(io.BytesIO(done.data))
        assert (result.format, result.mode, result.size) == (kind, "RGB", grey.size)
        there = np.asarray(result).astype(float)
        usual = (np.asarray(grey) > 40) & (np.asarray(grey) < 215)
        assert (there[..., 0] - there[..., 1])[usual].mean() > 35
        assert np.abs(there @ (0.299, 0.587, 0.114) - np.asarray(grey))[usual].mean() < coding


def test_an_upscaled_picture_has_the_presets_side():
    small, faces = encoded(portrait().resize((16, 16)), "JPEG"), [(face(), flat(9), flat(200))]
    for pastes_change in (False, True):
        done = paste_faces(small, faces, None, True, images.MAX_PIXELS, pastes_change, Task("upscale"))
        result = Image.open(io.BytesIO(done.data))
        assert (result.format, result.size) == ("JPEG", (SIDE, SIDE))
        assert np.abs(np.asarray(result).astype(int) - 200).max() <= 1


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 1), (0.5, 2), (0.25, 4), (0.3, 4), (0.01, 64), (3.0, 1)])
def test_how_much_smaller_a_face_was_seen_is_told_by_its_size(scale, factor):
    assert shrinking(scale, 64) == factor


def test_what_is_known_of_a_face_is_what_its_task_observes():
    crop = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    hole = np.zeros((SIDE, SIDE), bool)
    hole[:9] = True
    assert Task().constraint(crop, hole, 1.0) is None
    inpaint = Task("inpaint").constraint(crop, hole, 1.0)
    assert inpaint.seen.shape == (3, SIDE, SIDE) and not inpaint.seen[:, :9].any()
    assert (
        inpaint.weight == float("inf") and Task("inpaint", weight=2.0).constraint(crop, hole, 1.0).weight == 2
    )
    assert Task("colourise", steps=3).constraint(crop, None, 1.0).steps == 3
    assert Task("upscale").constraint(crop, None, 0.25).seen.shape == (3, 16, 16)
    assert Task("upscale", factor=8).constraint(crop, None, 0.25).seen.shape == (3, 8, 8)


def test_of_a_blind_face_nothing_is_known_and_nothing_is_computed(monkeypatch):
    monkeypatch.setattr("torch.from_numpy", lambda _: pytest.fail("a tensor was made"))
    assert Task().constraint(np.zeros((SIDE, SIDE, 3), np.uint8), None, 1.0) is None


def test_a_filled_hole_takes_its_colour_from_around_it():
    picture = np.full((40, 40, 3), 120, np.uint8)
    hole = np.zeros((40, 40), bool)
    hole[10:20, 10:20] = True
    picture[hole] = 0
    assert np.abs(fill(picture, hole).astype(int) - 120).max() <= 3
