"""Samples through ICC profiles to sRGB, and changes back, compared with Pillow's own way through LittleCMS."""

import io

import numpy as np
import pytest
from colour_profiles import ADOBE_RGB, CMYK, DISPLAY_P3, GREY_18, GREY_22, LINEAR, PROPHOTO, SRGB
from PIL import Image, ImageCms

from pipeline.io import icc
from pipeline.io.icc import Profile

COLOUR = [ADOBE_RGB, DISPLAY_P3, PROPHOTO, LINEAR]


def samples(channels, dtype, count=4096):
    shape = (count, channels) if channels > 1 else (count,)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("profile", COLOUR[:3])
def test_8_bit_colours_are_those_of_pillow(profile):
    stored = samples(3, np.uint8).reshape(64, 64, 3)
    theirs = ImageCms.profileToProfile(
        Image.fromarray(stored), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    ours = Profile.of(profile, "RGB").to_srgb(stored)
    assert ours.shape == stored.shape and ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1
    assert np.abs(ours.astype(int) - stored).max() > 10


def test_known_colours_of_adobe_rgb():
    """x = (c/255)^2.2 through the matrices of both spaces and the curve of sRGB, computed by hand for grey and red."""
    grey = round(255 * (1.055 * (128 / 255) ** (2.19921875 / 2.4) - 0.055))
    seen = Profile.of(ADOBE_RGB, "RGB").to_srgb(np.array([[128, 128, 128], [200, 0, 0]], np.uint8))
    assert seen[0] == pytest.approx([grey] * 3, abs=1)
    # Adobe RGB's red is redder than sRGB's, whose green and blue would have to be negative
    linear = 1.3983 * (200 / 255) ** 2.19921875
    assert seen[1] == pytest.approx([255 * (1.055 * linear ** (1 / 2.4) - 0.055), 0, 0], abs=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("profile", "mode"), [*((p, "RGB") for p in COLOUR), (GREY_18, "L"), (GREY_22, "L")])
def test_a_change_of_nothing_leaves_every_sample(profile, mode, dtype):
    stored = samples(len(mode), dtype)
    same = Profile.of(profile, mode).add(stored, np.zeros((len(stored), 3), np.float32))
    assert same.dtype == dtype and (same == stored).all()
    # nearly nothing is no jump
    close = Profile.of(profile, mode).add(stored, np.full((len(stored), 3), 1e-3, np.float32))
    assert np.abs(close.astype(int) - stored).max() <= 1 + 2 * (dtype == np.uint16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("profile", COLOUR)
def test_a_changed_colour_is_seen_as_wanted(profile, dtype):
    """Where old and new colour lie within sRGB: what a network wants is what the next reader sees."""
    use = Profile.of(profile, "RGB")
    top = np.iinfo(dtype).max
    stored = (use._back(samples(3, np.uint16) // 2 + 12000) * (top / 65535)).round().astype(dtype)
    before = use.to_srgb(stored)
    change = np.random.default_rng(1).uniform(-25, 25, (len(stored), 3)).astype(np.float32)
    after = use.to_srgb(use.add(stored, change))
    # 8-bit samples of a large gamut are coarser than sRGB's
    assert np.abs(after - (before + change)).max() <= (1.5 if dtype == np.uint16 else 6)


@pytest.mark.parametrize(("profile", "mode"), [*((p, "RGB") for p in COLOUR), (GREY_18, "L"), (GREY_22, "L")])
def test_more_light_is_never_less(profile, mode):
    steps = np.linspace(-255, 255, 103, dtype=np.float32)
    for level in (0, 1, 90, 254, 255):
        shape = (len(steps), 3) if mode == "RGB" else len(steps)
        stored = np.full(shape, level, np.uint8)
        done = Profile.of(profile, mode).add(stored, np.repeat(steps[:, None], 3, axis=1)).astype(int)
        assert (np.diff(done, axis=0) >= 0).all()
        assert (done[0] < 40).all() and (done[-1] > 215).all()


def test_grey_takes_the_luma_of_a_change():
    use = Profile.of(GREY_18, "L")
    stored = samples(1, np.uint16).reshape(64, 64)
    assert use.to_srgb(stored).shape == (64, 64, 3) and np.ptp(use.to_srgb(stored), axis=2).max() == 0
    red = np.zeros((64, 64, 3), np.float32)
    red[..., 0] = 50
    assert (use.add(stored, red) == use.add(stored, np.full_like(red, 50 * 0.299))).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_are_seen_and_changed_through_their_profile(dtype):
    use, top = Profile.of(CMYK, "CMYK"), np.iinfo(dtype).max
    stored = np.array([[0, 0, 0, 0], [top, 0, 0, 0], [0, 0, 0, top], [top // 4] * 3 + [top // 5]], dtype)
    white, cyan, black, grey = use.to_srgb(stored).astype(int)
    assert white.min() > 240 and black.max() < 25 and cyan[0] < 60 and cyan[2] > 150 and np.ptp(grey) < 25
    assert (use.add(stored, np.zeros((4, 3), np.float32)) == stored).all()
    darker = use.add(stored, np.full((4, 3), -40, np.float32))
    # ink is added, and the grey keeps its black
    assert (darker[[0, 3]].astype(int).sum(axis=1) > stored[[0, 3]].astype(int).sum(axis=1)).all()
    seen = use.to_srgb(darker).astype(int)
    assert np.abs(seen[[0, 3]] - (np.stack([white, grey]) - 40)).max() < 15


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "damaged",
    [b"no profile", ADOBE_RGB[:100], ADOBE_RGB[:140] + bytes(200), CMYK[:500], GREY_18[:200], bytes(1000)],
    # their bytes hold the time at which they were made
    ids=["text", "header", "no tags", "cut CMYK", "cut grey", "zeros"],
)
def test_a_damaged_profile_is_none_and_said_once(damaged, mode, caplog):
    icc._usable.cache_clear()
    icc._refused.cache_clear()
    assert Profile.of(damaged, mode) is None and Profile.of(damaged, mode) is None
    assert len(caplog.records) == 1 and "is not used" in caplog.text


@pytest.mark.parametrize(
    ("profile", "mode"), [(GREY_18, "RGB"), (ADOBE_RGB, "L"), (ADOBE_RGB, "CMYK"), (CMYK, "RGB")]
)
def test_a_profile_of_another_mode_is_none(profile, mode):
    assert Profile.of(profile, mode) is None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_no_profile_and_that_of_srgb_are_none(mode, caplog):
    assert Profile.of(None, mode) is None and Profile.of(b"", mode) is None and not caplog.records
    assert Profile.of(SRGB, "RGB") is None and Profile.of(icc._srgb(), "RGB") is None and not caplog.records
