"""What a restoration changed is added to the picture, and nothing else of the picture changes."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from pipeline.faces.geometry import inside_picture, warp_crop
from pipeline.faces.pasting import feather_mask, paste_change
from pipeline.io import images

PORTRAIT = data.astronaut()
SIDE = 32


def crop_at(x, y, scale, turn=0.0, side=SIDE) -> np.ndarray:
    """The similarity to a crop around (x, y), `scale` pixels of the picture to one of its own."""
    rotated = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
    return np.column_stack([rotated, (side - 1) / 2 - rotated @ (x, y)])


def pasted(picture, *faces, edge="feathered", strength=1.0) -> np.ndarray:
    """The picture with faces, each (before, after, to_crop), pasted in this order; [H, W, 3] float32."""
    edited = picture.astype(np.float32)
    for before, after, to_crop in faces:
        paste_change(edited, picture, before, after, to_crop, strength, edge)
    return edited


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    x=st.floats(-30, 130),
    y=st.floats(-30, 110),
    scale=st.floats(0.3, 6),
    turn=st.floats(-3.2, 3.2),
    edge=st.sampled_from(["feathered", "sharp", "none"]),
    resampling=st.sampled_from(["linear", "fine"]),
)
def test_a_crop_that_did_not_change_changes_no_bit_of_any_picture(seed, x, y, scale, turn, edge, resampling):
    picture = np.random.default_rng(seed).integers(0, 256, (80, 100, 3)).astype(np.uint8)
    to_crop = crop_at(x, y, scale, turn)
    crop = warp_crop(picture, to_crop, SIDE, resampling)
    edited = pasted(picture, (crop, crop.copy(), to_crop), edge=edge)
    assert edited.dtype == np.float32 and (edited == picture).all()


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize(("scale", "turn"), [(0.5, 0.0), (1.0, 0.3), (3.7, -0.8)])
def test_a_face_alone_is_the_picture_and_the_change_under_its_mask(scale, turn, strength):
    to_crop = crop_at(222, 115, scale, turn)
    crop = warp_crop(PORTRAIT, to_crop, SIDE, "fine")
    after = 255 - crop
    edited = pasted(PORTRAIT, (crop, after, to_crop), strength=strength)
    there = {"M": cv2.invertAffineTransform(to_crop), "dsize": PORTRAIT.shape[1::-1]}
    change = cv2.warpAffine(
        after.astype(np.float32) - crop, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE, **there
    )
    mask = cv2.warpAffine(feather_mask(SIDE), flags=cv2.INTER_LINEAR, **there)[..., None]
    np.testing.assert_allclose(edited, PORTRAIT + strength * mask * change, atol=1e-2)
    assert (edited != PORTRAIT).any(axis=2).sum() > 0.5 * (SIDE * scale) ** 2
    assert (edited[mask[..., 0] == 0] == PORTRAIT[mask[..., 0] == 0]).all()


@pytest.mark.parametrize(
    ("x", "y", "scale", "turn"), [(10, 12, 2, 0.0), (500, 250, 3, 0.5), (5, 505, 0.8, 1)]
)
def test_what_a_crop_shows_beyond_the_border_takes_no_part(x, y, scale, turn):
    to_crop = crop_at(x, y, scale, turn)
    crop = warp_crop(PORTRAIT, to_crop, SIDE, "fine")
    inside = inside_picture(to_crop, SIDE, *PORTRAIT.shape[1::-1])
    assert 0.2 < inside.mean() < 0.95
    beyond = np.where(inside[..., None], crop, 255 - crop)
    assert (pasted(PORTRAIT, (crop, beyond, to_crop)) == PORTRAIT).all()
    after = np.clip(crop.astype(int) + 30, 0, 255).astype(np.uint8)
    other = np.where(inside[..., None], after, 7).astype(np.uint8)
    edited = pasted(PORTRAIT, (crop, after, to_crop))
    assert (edited != PORTRAIT).any()
    assert np.array_equal(edited, pasted(PORTRAIT, (crop, other, to_crop)))


def test_a_crop_that_lies_beside_the_picture_changes_nothing():
    to_crop = crop_at(-100, 50, 1.0)
    crop = warp_crop(PORTRAIT, to_crop, SIDE)
    assert (pasted(PORTRAIT, (crop, 255 - crop, to_crop)) == PORTRAIT).all()


def brighter(to_crop, by):
    crop = warp_crop(GREY, to_crop, SIDE)
    return crop, crop + np.uint8(by), to_crop


GREY = np.full((120, 140, 3), 100, np.uint8)


def test_where_faces_overlap_the_later_covers_the_other_and_changes_do_not_add_up():
    here, beside = crop_at(60, 60, 2.0), crop_at(80, 60, 1.0)
    first, second = brighter(here, 40), brighter(beside, 10)
    edited = pasted(GREY, first, second)
    assert np.allclose(edited[60, 80], 110, atol=1e-3)  # the middle of the second, well within the first
    assert np.allclose(edited[60, 50], 140, atol=1e-3)  # where only the first lies
    assert edited.max() < 140.001
    assert np.allclose(pasted(GREY, second, first)[60, 80], 140, atol=1e-3)
    assert np.allclose(pasted(GREY, first, first), pasted(GREY, first), atol=40)
    # a share of a change covers as the whole of it does
    assert np.allclose(pasted(GREY, first, second, strength=0.5)[60, 80], 105, atol=1e-3)
    # a face that is left as it was covers, too
    assert np.allclose(pasted(GREY, first, brighter(beside, 0))[60, 80], 100, atol=1e-3)


def test_without_an_edge_every_pixel_of_the_picture_gets_its_change():
    picture = PORTRAIT[:SIDE, :SIDE]
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    edited = pasted(picture, (picture, 255 - picture, identity), edge="none")
    np.testing.assert_array_equal(edited, 255 - picture)


def test_a_deep_picture_keeps_its_low_bits_and_gets_the_change_in_its_own_steps():
    deep = (PORTRAIT[60:180, 160:290].astype(np.uint16) * 257) ^ 85
    original = images.decode(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    assert original.stored.dtype == np.uint16
    to_crop = crop_at(60, 60, 2.0, 0.2)
    crop = warp_crop(original.rgb, to_crop, SIDE, "fine")
    after = crop.copy()
    after[12:20, 12:20] = np.clip(after[12:20, 12:20].astype(int) + 9, 0, 255)
    edited = pasted(original.rgb, (crop, after, to_crop))
    stored = images.decode(images.encode(original, edited).data).stored
    untouched = (edited == original.rgb).all(axis=2)
    assert 0.5 < untouched.mean() < 0.99
    assert np.array_equal(stored[untouched], deep[untouched])
    change = np.rint((edited - original.rgb) * 257)
    assert np.abs(stored - (deep + change).clip(0, 65535)).max() <= 1
    assert np.unique(change % 257).size > 50  # changes finer than a step of 8 bits reach the file
