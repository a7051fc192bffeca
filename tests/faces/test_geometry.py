"""Landmarks to crop and back, seen on pixels."""

import cv2
import numpy as np
import pytest
from skimage import data
from skimage.transform import SimilarityTransform

from pipeline.faces.geometry import (
    FFHQ_TEMPLATE_512,
    CropFrame,
    UnusableLandmarks,
    crop_scale,
    face_to_crop,
    inside_picture,
    resize_crop,
    warp_crop,
)
from pipeline.faces.pasting import detail_weight, feather_mask, paste_face, paste_strength

PORTRAIT = data.astronaut()
FFHQ_64 = CropFrame(64)
# as the preset `portrait` has it, but for the side
CLOSE = CropFrame(64, 1.45, (0.5, 0.57), "fine")


def landmarks_at(x, y, width, turn=0.0):
    """The template's points for a face crop of `width` pixels centred at (x, y), turned by `turn` radians."""
    points = (FFHQ_TEMPLATE_512 - 255.5) * width / 512
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T + (x, y)


def test_landmarks_on_the_template_give_the_identity():
    np.testing.assert_allclose(
        face_to_crop(FFHQ_TEMPLATE_512, CropFrame(512)), [[1, 0, 0], [0, 1, 0]], atol=1e-9
    )


@pytest.mark.parametrize("turn", [0.0, 0.4, -1.2])
def test_the_similarity_carries_the_landmarks_onto_the_template(turn):
    points = landmarks_at(220, 120, 150, turn)
    to_crop = face_to_crop(points, FFHQ_64)
    carried = points @ to_crop[:, :2].T + to_crop[:, 2]
    np.testing.assert_allclose(carried, FFHQ_TEMPLATE_512 / 8 - 0.4375, atol=1e-6)
    assert crop_scale(to_crop) == pytest.approx(150 / 64)


@pytest.mark.parametrize("side", [64, 128, 512])
@pytest.mark.parametrize("turn", [0.0, 0.4, -1.2])
def test_ffhqs_frame_gives_bit_for_bit_the_similarity_to_the_scaled_template(side, turn):
    points = landmarks_at(220, 120, 150, turn)
    template = FFHQ_TEMPLATE_512 * (side / 512) + (side / 512 - 1) / 2
    wanted = SimilarityTransform.from_estimate(points, template).params[:2]
    assert face_to_crop(points, CropFrame(side)).tobytes() == wanted.tobytes()


def test_a_frame_shows_the_template_zoomed_around_its_centre():
    """In units of the side, a point u of FFHQ's frame lies at (u - centre) * zoom + 0.5."""
    frame = CropFrame(128, 1.45, (0.5, 0.57))
    told = FFHQ_TEMPLATE_512 / 512 + 0.5 / 512  # pixel centres lie half a pixel from the border
    wanted = ((told - (0.5, 0.57)) * 1.45 + 0.5) * 128 - 0.5
    np.testing.assert_allclose(frame.template, wanted, atol=1e-9)
    carried = face_to_crop(landmarks_at(220, 120, 150, 0.4), frame)
    points = landmarks_at(220, 120, 150, 0.4) @ carried[:, :2].T + carried[:, 2]
    np.testing.assert_allclose(points, wanted, atol=1e-6)
    assert crop_scale(carried) == pytest.approx(150 / 128 / 1.45)


@pytest.mark.parametrize("width", [96, 512, 1024])
@pytest.mark.parametrize("frame", [FFHQ_64, CLOSE, CropFrame(256, 0.8, (0.4, 0.5))])
def test_the_crop_of_an_aligned_picture_has_the_picture_s_template_on_its_own(frame, width):
    there = (FFHQ_TEMPLATE_512 + 0.5) * (width / 512) - 0.5
    to_crop = frame.of_ffhq_picture(width)
    np.testing.assert_allclose(there @ to_crop[:, :2].T + to_crop[:, 2], frame.template, atol=1e-9)


def test_points_go_to_ffhqs_frame_and_back():
    points = np.array([(0.0, 0.0), (63.0, 12.5), (31.5, 40.0)])
    np.testing.assert_allclose(CLOSE.to_ffhq(CLOSE.from_ffhq(points)), points, atol=1e-12)
    # the middle of the crop is the frame's centre
    np.testing.assert_allclose(CLOSE.to_ffhq(np.array([31.5, 31.5])), (0.5 * 64 - 0.5, 0.57 * 64 - 0.5))
    np.testing.assert_array_equal(FFHQ_64.from_ffhq(points), points)


def test_a_frame_is_ffhqs_by_what_it_shows_and_not_by_how_it_is_sampled():
    assert CropFrame.from_table(64, {}) == FFHQ_64
    assert CropFrame.from_table(64, {"zoom": 1.45, "centre": [0.5, 0.57], "resampling": "fine"}) == CLOSE
    assert CropFrame(64, resampling="fine").is_ffhq and CropFrame.from_table(64, {"zoom": 1}).is_ffhq
    assert not CLOSE.is_ffhq and not CropFrame(64, centre=(0.5, 0.57)).is_ffhq


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), 7.0)])
def test_landmarks_that_fix_no_similarity_are_refused(points):
    with pytest.raises(UnusableLandmarks):
        face_to_crop(points, FFHQ_64)


def test_a_crop_of_a_large_face_is_averaged_and_not_aliased():
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = warp_crop(stripes, face_to_crop(landmarks_at(300, 300, 512), FFHQ_64), 64)
    assert np.abs(crop.astype(int) - 127).max() <= 20


@pytest.mark.parametrize("width", [20, 64, 200, 600])
def test_what_is_sampled_as_ever_has_the_bits_it_ever_had(width):
    to_crop = face_to_crop(landmarks_at(222, 115, width, 0.3), FFHQ_64)
    times = max(1, int(np.ceil(crop_scale(to_crop))))
    finer = np.array([[times, 0, (times - 1) / 2], [0, times, (times - 1) / 2]])
    big = cv2.warpAffine(
        PORTRAIT, finer @ np.vstack([to_crop, [0, 0, 1]]), (64 * times, 64 * times),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    wanted = big if times == 1 else cv2.resize(big, (64, 64), interpolation=cv2.INTER_AREA)
    assert warp_crop(PORTRAIT, to_crop, 64).tobytes() == wanted.tobytes()
    assert warp_crop(PORTRAIT, to_crop, 64, "linear").tobytes() == wanted.tobytes()
    assert warp_crop(PORTRAIT, to_crop, 64, "fine").shape == wanted.shape


def drawn(levels, height=0) -> np.ndarray:
    """A picture whose columns have these levels, as high as it is wide unless another height is given."""
    row = np.repeat(np.rint(levels).astype(np.uint8)[:, None], 3, axis=1)
    return np.repeat(row[None], height or len(levels), axis=0)


def test_enlarged_finely_a_ramp_stays_a_ramp_and_a_wave_is_rounder_than_straight_lines():
    x = np.arange(40)
    to_crop = np.array([[3.7, 0, -40.3], [0, 3.7, -40.3]])
    there = (np.arange(64) + 40.3) / 3.7
    ramp = warp_crop(drawn(x * 5 + 10), to_crop, 64, "fine")
    assert np.abs(ramp[..., 0] - (there * 5 + 10))[10:50].max() < 1.1

    def away(resampling):
        wave = warp_crop(drawn(127 + 100 * np.sin(x * np.pi / 4)), to_crop, 64, resampling)
        return np.sqrt(np.mean((wave[10:50, :, 0] - (127 + 100 * np.sin(there * np.pi / 4))) ** 2))

    assert away("fine") < 0.6 * away("linear")


@pytest.mark.parametrize(("times", "period", "off"), [(3, 2, 43), (40, 2, 2), (40, 4, 2)])
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_stripes_finer_than_a_crop_s_pixels_become_grey(times, period, off, turn):
    """An average over three pixels leaves a third of stripes that alternate; one over forty leaves nothing of them."""
    side = 128
    size = times * side * 5 // 4
    stripes = drawn(np.where(np.arange(size) % period == 0, 255, 0))
    to_crop = face_to_crop(landmarks_at(size / 2 + 0.3, size / 2, times * side, turn), CropFrame(side))
    inside = inside_picture(to_crop, side, size, size)
    assert inside.mean() > 0.9
    crop = warp_crop(stripes, to_crop, side, "fine").astype(float)[inside]
    assert np.abs(crop - 255 / period).max() <= off


def test_a_face_of_more_than_4096_pixels_is_shrunk_before_it_is_sampled():
    """4,096 samples in a row of 12,288 pixels would see every third of them, and stripes of three as one colour."""
    stripes = drawn(np.where(np.arange(12_288) % 3 == 0, 255, 0), height=48)
    to_crop = np.array([[1 / 96, 0, -0.5], [0, 1 / 96, 64.0]])
    crop = warp_crop(stripes, to_crop, 128, "fine").astype(int)
    assert np.abs(crop - 85).max() <= 2


def test_inside_the_picture_lie_the_crop_s_pixels_whose_middle_does():
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert inside_picture(identity, 4, 4, 4).all()
    assert inside_picture(identity, 4, 3, 2).tolist() == [[True, True, True, False]] * 2 + [[False] * 4] * 2
    moved = np.array([[1.0, 0, 2], [0, 1.0, 0]])  # the crop begins two pixels left of the picture
    assert inside_picture(moved, 4, 9, 9).tolist() == [[False, False, True, True]] * 4
    enlarged = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]])  # two pixels of the crop for one of the picture
    assert inside_picture(enlarged, 4, 1, 2).tolist() == [[True, True, False, False]] * 4
    assert not inside_picture(np.array([[1.0, 0, -9], [0, 1.0, 0]]), 4, 9, 9).any()


def test_the_feather_is_1_in_the_middle_and_0_on_the_border():
    mask = feather_mask(64)
    assert mask[32, 32] == 1 and mask[16, 32] == 1
    assert not mask[0].any() and not mask[:, -1].any()
    assert (np.diff(mask[32, :32]) >= 0).all()


@pytest.mark.parametrize("width", [40, 64, 150, 300])
def test_pasting_back_an_unchanged_crop_leaves_no_seam(width):
    to_crop = face_to_crop(landmarks_at(222, 115, width, 0.1), FFHQ_64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    picture = PORTRAIT.astype(np.float32)
    paste_face(picture, crop, crop, to_crop)
    change = np.abs(picture - PORTRAIT)
    assert change.mean() < 0.35
    if detail_weight(crop_scale(to_crop)) == 1:
        assert change.max() < 1e-3


def test_pixels_outside_the_feathered_square_are_untouched():
    to_crop = face_to_crop(landmarks_at(222, 115, 100, 0.3), FFHQ_64)
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
    to_crop = face_to_crop(landmarks_at(5, 5, 100), FFHQ_64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    picture = PORTRAIT.astype(np.float32)
    paste_face(picture, crop, 255 - crop, to_crop)
    assert np.isfinite(picture).all() and picture.shape == PORTRAIT.shape


def test_a_face_larger_than_the_crop_keeps_the_fine_detail_of_the_picture():
    to_crop = face_to_crop(landmarks_at(222, 115, 256), FFHQ_64)
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
    to_crop = face_to_crop(landmarks_at(222, 115, 64), FFHQ_64)
    crop = warp_crop(PORTRAIT, to_crop, 64)
    whole, half = PORTRAIT.astype(np.float32), PORTRAIT.astype(np.float32)
    paste_face(whole, crop, 255 - crop, to_crop)
    paste_face(half, crop, 255 - crop, to_crop, strength=0.5)
    np.testing.assert_allclose(half - PORTRAIT, (whole - PORTRAIT) / 2, atol=1e-3)


def test_the_crop_of_a_resized_picture_shows_the_same_part():
    to_crop, points = np.array([[0.5, 0.1, 3.0], [-0.1, 0.5, 7.0]]), np.array([(0.0, 0.0), (40.0, 90.0)])
    resized = (points + 0.5) * (2.0, 0.75) - 0.5
    there = resize_crop(to_crop, 2.0, 0.75)
    assert resized @ there[:, :2].T + there[:, 2] == pytest.approx(points @ to_crop[:, :2].T + to_crop[:, 2])
