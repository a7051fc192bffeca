"""Landmarks to crop and back, seen on pixels."""

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.faces.geometry import (
    FFHQ_TEMPLATE_512,
    UnusableLandmarks,
    crop_scale,
    detail_weight,
    face_to_crop,
    feather_mask,
    paste_face,
    paste_strength,
    warp_crop,
)

PORTRAIT = data.astronaut()


def landmarks_at(x, y, width, turn=0.0):
    """The template's points for a face crop of `width` pixels centred at (x, y), turned by `turn` radians."""
    points = (FFHQ_TEMPLATE_512 - 255.5) * width / 512
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T + (x, y)


def test_landmarks_on_the_template_give_the_identity():
    np.testing.assert_allclose(face_to_crop(FFHQ_TEMPLATE_512, 512), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


@pytest.mark.parametrize("turn", [0.0, 0.4, -1.2])
def test_the_similarity_carries_the_landmarks_onto_the_template(turn):
    points = landmarks_at(220, 120, 150, turn)
    to_crop = face_to_crop(points, 64)
    carried = points @ to_crop[:, :2].T + to_crop[:, 2]
    np.testing.assert_allclose(carried, FFHQ_TEMPLATE_512 / 8 - 0.4375, atol=1e-6)
    assert crop_scale(to_crop) == pytest.approx(150 / 64)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), 7.0)])
def test_landmarks_that_fix_no_similarity_are_refused(points):
    with pytest.raises(UnusableLandmarks):
        face_to_crop(points, 64)


def test_a_crop_of_a_large_face_is_averaged_and_not_aliased():
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = warp_crop(stripes, face_to_crop(landmarks_at(300, 300, 512), 64), 64)
    assert np.abs(crop.astype(int) - 127).max() <= 20


def test_the_feather_is_1_in_the_middle_and_0_on_the_border():
    mask = feather_mask(64)
    assert mask[32, 32] == 1 and mask[16, 32] == 1
    assert not mask[0].any() and not mask[:, -1].any()
    assert (np.diff(mask[32, :32]) >= 0).all()


@pytest.mark.parametrize("width", [40, 64, 150, 300])
def test_pasting_back_an_unchanged_crop_leaves_no_seam(width):
    to_crop = face_to_crop(landmarks_at(222, 115, width, 0.1), 64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    picture = PORTRAIT.astype(np.float32)
    paste_face(picture, crop, crop, to_crop)
    change = np.abs(picture - PORTRAIT)
    assert change.mean() < 0.35
    if detail_weight(crop_scale(to_crop)) == 1:
        assert change.max() < 1e-3


def test_pixels_outside_the_feathered_square_are_untouched():
    to_crop = face_to_crop(landmarks_at(222, 115, 100, 0.3), 64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    picture = PORTRAIT.astype(np.float32)
    paste_face(picture, crop, np.zeros_like(crop), to_crop)
    reached = cv2.warpAffine(
        np.ones((64, 64), np.uint8), cv2.invertAffineTransform(to_crop), PORTRAIT.shape[1::-1]
    )
    untouched = cv2.dilate(reached, np.ones((5, 5))) == 0
    assert untouched.mean() > 0.5
    assert (picture[untouched] == PORTRAIT[untouched]).all()
    assert (picture[115, 222] < 40).all()


def test_a_face_at_the_border_is_pasted_inside_the_picture_only():
    to_crop = face_to_crop(landmarks_at(5, 5, 100), 64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    picture = PORTRAIT.astype(np.float32)
    paste_face(picture, crop, 255 - crop, to_crop)
    assert np.isfinite(picture).all() and picture.shape == PORTRAIT.shape


def test_a_face_larger_than_the_crop_keeps_the_fine_detail_of_the_picture():
    to_crop = face_to_crop(landmarks_at(222, 115, 256), 64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    brighter = np.clip(crop.astype(int) + 20, 0, 255).astype(np.uint8)
    kept, replaced = PORTRAIT.astype(np.float32), PORTRAIT.astype(np.float32)
    paste_face(kept, crop, brighter, to_crop)
    paste_face(replaced, crop, brighter, to_crop, keep_detail=0.0)

    def detail(image):
        return float(cv2.Laplacian(image[70:160, 180:260].mean(axis=2).astype(np.float32), cv2.CV_32F).var())

    original = detail(PORTRAIT.astype(np.float32))
    assert detail(kept) > 0.8 * original > 4 * detail(replaced)


def test_without_feathering_the_crop_covers_the_picture_whole():
    picture = PORTRAIT[:64, :64].astype(np.float32)
    after = 255 - PORTRAIT[:64, :64]
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    paste_face(picture, PORTRAIT[:64, :64], after, identity, edge="none")
    np.testing.assert_array_equal(picture, after)


def test_a_sharp_or_far_larger_face_is_changed_less():
    assert paste_strength(0.5, 1.5) == 1
    assert 0.2 < paste_strength(0.95, 1.5) < 0.7
    assert paste_strength(1.3, 1.0) == paste_strength(0.9, 9.0) == 0.2


def test_strength_is_the_share_of_the_restoration_that_is_pasted():
    to_crop = face_to_crop(landmarks_at(222, 115, 64), 64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    whole, half = PORTRAIT.astype(np.float32), PORTRAIT.astype(np.float32)
    paste_face(whole, crop, 255 - crop, to_crop)
    paste_face(half, crop, 255 - crop, to_crop, strength=0.5)
    np.testing.assert_allclose(half - PORTRAIT, (whole - PORTRAIT) / 2, atol=1e-3)
