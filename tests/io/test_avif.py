"""AVIF: the picture's item is coded anew without loss, all else of the file stays; read by Pillow, too."""

import io
import struct
from functools import cache

import imagecodecs
import numpy as np
import pytest
from colour_profiles import DISPLAY_P3
from edited_pictures import with_edited_box
from PIL import Image, ImageOps
from skimage import data as pictures

from pipeline.io.images import ImageError, SkippedImage, decode, encode, encode_anew, enlarged

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
GREY = np.ascontiguousarray(COLOUR[..., 1])
PICTURE = Image.fromarray(COLOUR)
BOX = (slice(40, 64), slice(48, 80))


def saved(picture=PICTURE, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "AVIF", speed=10, **options)
    return buffer.getvalue()


def coded(samples, **options):
    return bytes(imagecodecs.avif_encode(samples, speed=10, **options))


def with_alpha():
    picture = PICTURE.convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def edited(data, value=90):
    return with_edited_box(data, BOX, value)


KINDS = {
    "8 bit": lambda: saved(quality=70),
    "4:2:0": lambda: saved(quality=70, subsampling="4:2:0"),
    "alpha": lambda: saved(with_alpha(), quality=80),
    "grey": lambda: saved(PICTURE.convert("L"), quality=80),
    "10 bit": lambda: coded(COLOUR.astype(np.uint16) * 4, level=70, bitspersample=10),
    "12 bit": lambda: coded(COLOUR.astype(np.uint16) * 16, level=70, bitspersample=12),
    "lossless": lambda: coded(COLOUR, level=100),
}


@cache
def file_of(kind):
    return KINDS[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_are_not_edited_stay(kind):
    data = file_of(kind)
    again = edited(data)
    before, after = (np.asarray(imagecodecs.avif_decode(d)).astype(int) for d in (data, again))
    outside = np.ones(before.shape[:2], bool)
    outside[BOX] = False
    assert before.shape == after.shape and (before[outside] == after[outside]).all()
    assert np.abs(decode(again).rgb[BOX].astype(int) - 90).max() <= 1
    if kind in ("8 bit", "alpha", "grey", "lossless"):
        theirs = [np.asarray(Image.open(io.BytesIO(d))).astype(int) for d in (data, again)]
        assert np.abs(theirs[0] - theirs[1])[outside].max() <= 1
    if kind == "alpha":
        assert (before[..., 3] == after[..., 3]).all()


def test_metadata_and_profile_stay_byte_for_byte():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + b"maker note" * 30
    packet = b"<x:xmpmeta/>" + b" " * 5000
    data = saved(with_alpha(), quality=80, exif=exif, xmp=packet, icc_profile=DISPLAY_P3)
    again = edited(data)
    before, after = (Image.open(io.BytesIO(d)).info for d in (data, again))
    assert after["xmp"] == before["xmp"] == packet
    assert after["exif"] == before["exif"] and exif[6:] in after["exif"]
    assert after["icc_profile"] == before["icc_profile"] == DISPLAY_P3
    assert np.percentile(np.abs(decode(again).rgb[BOX].astype(int) - 90), 95) <= 2
    assert np.abs(decode(data).rgb.astype(int) - decode(data).stored).max() > 8


def test_boxes_that_nobody_knows_stay():
    data = file_of("8 bit") + struct.pack(">I", 12) + b"free" + b"abcd" + struct.pack(">I", 13) + b"uuidhello"
    assert edited(data).endswith(data[-25:])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_is_edited_upright_and_stays_turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(quality=70, exif=exif)
    assert (b"irot" in data) == (orientation != 1)
    picture = decode(data)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert picture.rgb.shape == shown.shape and np.abs(picture.rgb.astype(int) - shown).max() <= 3
    again = decode(edited(data))
    assert np.abs(again.rgb[BOX].astype(int) - 90).max() <= 1
    assert (again.rgb[84:] == picture.rgb[84:]).all() and again.orientation == picture.orientation


def test_what_could_not_be_written_back_is_skipped():
    frames = saved(save_all=True, append_images=[PICTURE.rotate(5)])
    with pytest.raises(SkippedImage, match="frames"):
        decode(frames)
    cropped = file_of("8 bit").replace(b"pixi", b"clap")
    with pytest.raises(SkippedImage, match="crop"):
        decode(cropped)
    picture = enlarged(decode(file_of("8 bit")), 2)
    with pytest.raises(SkippedImage, match="size"):
        encode(picture, picture.rgb.astype(np.float32))


def test_damaged_files_raise_image_errors_only():
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(
            file_of("alpha")[: rng.integers(20, len(file_of("alpha")))]
            if rng.random() < 0.3
            else file_of("alpha")
        )
        for _ in range(4):
            data[rng.integers(12, min(len(data), 700))] = rng.integers(256)
        try:
            picture = decode(bytes(data))
        except ImageError:
            continue
        assert picture.rgb.dtype == np.uint8


def test_a_picture_made_anew_is_avif():
    anew = decode(encode_anew(decode(file_of("8 bit")), COLOUR[:50]))
    assert anew.format == "AVIF" and np.abs(anew.rgb.astype(int) - COLOUR[:50]).max() <= 3
