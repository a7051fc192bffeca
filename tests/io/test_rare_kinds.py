"""Rare kinds of files: what they carry stays byte for byte, or they are skipped with the reason."""

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from colour_profiles import DISPLAY_P3
from edited_pictures import saved
from PIL import Image
from skimage import data as pictures

from pipeline.io.images import SkippedImage, decode, encode

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
GREY = np.asarray(Image.fromarray(COLOUR).convert("L"))
PICTURE = Image.fromarray(COLOUR)
BOX = (slice(40, 64), slice(48, 80))
LEFT = np.ones(GREY.shape, bool)
LEFT[BOX] = False


def edited(data, value=90):
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    rgb[BOX] = value
    done, recoded, _ = encode(picture, rgb)
    assert recoded is None
    return done


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)))


# GIF


def of_colours(*places):
    """A GIF whose pixels use these of 256 random colours."""
    image = Image.fromarray(np.array(places, np.uint8)[GREY.astype(int) * len(places) // 256], "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return saved(image, "GIF", optimize=False)


@pytest.mark.parametrize("data", [of_colours(0, 5, 9, 200), of_colours(255, 3), of_colours(7, 8)])
def test_the_indices_of_a_gif_stay_though_it_uses_few_of_its_colours(data):
    done = edited(data)
    assert (opened(done)[LEFT] == opened(data)[LEFT]).all()
    assert done[:781] == data[:781]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_the_levels_of_a_gif_of_few_greys_stay(mode):
    data = saved(PICTURE.convert(mode), "GIF", optimize=False)
    assert (opened(edited(data))[LEFT] == opened(data)[LEFT]).all()
    assert (opened(edited(data))[BOX] == 90).all()


# BMP


def bmp(pixels, bits, masks=(), header=40, top_down=False, gap=b"", tail=b"", more=b""):
    height = -120 if top_down else 120
    coding = 3 if masks else 0
    head = struct.pack("<IiiHHIIiiII", header, 160, height, 1, bits, coding, 0, 2835, 2835, 0, 0)
    head += struct.pack(f"<{len(masks)}I", *masks) + more
    start = 14 + max(header, len(head)) + len(gap)
    body = head.ljust(start - 14 - len(gap), b"\0") + gap + pixels + tail
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 7, 8, start) + body


FOUR = np.dstack([COLOUR, np.arange(160 * 120, dtype=np.uint8).reshape(120, 160)])
RED, GREEN, BLUE, ALPHA = 0xFF0000, 0xFF00, 0xFF, 0xFF000000
BGRA, ABGR = FOUR[..., [2, 1, 0, 3]], FOUR[..., [3, 2, 1, 0]]
BMPS = {
    "plain": (bmp(BGRA[::-1].tobytes(), 32), BGRA[::-1]),
    "upper row first": (bmp(BGRA.tobytes(), 32, top_down=True), BGRA),
    "more before and behind": (bmp(BGRA[::-1].tobytes(), 32, gap=b"gap!", tail=b"behind it"), BGRA[::-1]),
    "masks": (bmp(BGRA[::-1].tobytes(), 32, (RED, GREEN, BLUE)), BGRA[::-1]),
    "masks of another order": (bmp(ABGR[::-1].tobytes(), 32, (ALPHA, RED, GREEN)), ABGR[::-1]),
    "alpha": (bmp(BGRA[::-1].tobytes(), 32, (RED, GREEN, BLUE, ALPHA), 108, more=b"BGRs"), BGRA[::-1]),
}


@pytest.mark.parametrize("kind", BMPS)
def test_a_bmp_of_32_bits_keeps_its_header_its_fourth_bytes_and_what_lies_around(kind):
    data, pixels = BMPS[kind]
    done = edited(data)
    start = int.from_bytes(data[10:14], "little")
    assert len(done) == len(data) and done[:start] == data[:start]
    assert done[start + pixels.size :] == data[start + pixels.size :]
    new = np.frombuffer(done, np.uint8, pixels.size, start).reshape(pixels.shape)
    upright, old = (a if "upper" in kind else a[::-1] for a in (new, pixels))
    fourth = 0 if "another" in kind else 3
    assert (upright[LEFT] == old[LEFT]).all() and (upright[..., fourth] == old[..., fourth]).all()
    assert (np.delete(upright[BOX], fourth, axis=2) == 90).all()


def test_a_profile_of_a_bmp_of_32_bits_stays():
    more = bytes(16) + b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + BGRA.size, len(DISPLAY_P3), 0)
    data = bmp(BGRA[::-1].tobytes(), 32, header=124, more=more, tail=DISPLAY_P3)
    done = edited(data)
    assert done[:138] == data[:138] and done.endswith(DISPLAY_P3) and len(done) == len(data)


# WebP


def test_a_single_frame_of_an_animation_is_skipped():
    def chunk(name, body):
        return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    still = saved(PICTURE, "WEBP")[12:]
    size = struct.pack("<I", 159)[:3] + struct.pack("<I", 119)[:3]
    frame = chunk(b"ANMF", bytes(6) + size + bytes(4) + still)
    body = chunk(b"VP8X", b"\x02\0\0\0" + size) + chunk(b"ANIM", bytes(6)) + frame
    data = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    assert Image.open(io.BytesIO(data)).n_frames == 1
    with pytest.raises(SkippedImage) as caught:
        decode(data)
    assert caught.value.reason == "animated"


# PNG


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_the_transparent_colour_of_a_16_bit_png_stays():
    deep = COLOUR.astype(np.uint16) * 257
    deep[:8] = deep[50, 60] = (9, 10, 11)
    rows = b"".join(b"\0" + row.tobytes() for row in deep.astype(">u2"))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 160, 120, 16, 2, 0, 0, 0)) + chunk(b"sBIT", b"\x0c\x0c\x0c")
    head += chunk(b"tRNS", struct.pack(">3H", 9, 10, 11))
    end = chunk(b"IEND", b"") + b"behind"
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + end
    done = edited(data)
    assert done[8 : 8 + len(head)] == head and done.endswith(end)
    colours = cv2.imdecode(np.frombuffer(done, np.uint8), cv2.IMREAD_UNCHANGED)[..., 2::-1]
    left = LEFT.copy()
    left[50, 60] = True
    assert (colours[left] == deep[left]).all() and (colours[~left] == 90 * 257).all()


def test_the_last_chunk_of_a_png_stays():
    data = saved(PICTURE, "PNG")[:-12] + chunk(b"IEND", b"odd") + b"behind"
    assert edited(data).endswith(data[-21:])


# JPEG


def lossless():
    return imagecodecs.ljpeg_encode(GREY)


def without_height():
    data = bytearray(saved(PICTURE, "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    height, data[place : place + 2] = data[place : place + 2], b"\0\0"
    return bytes(data[:-2]) + b"\xff\xdc\0\4" + bytes(height) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (imagecodecs.jpeg_encode(GREY.astype(np.uint16) * 16, bitspersample=12), "deep samples", "got 12"),
        (lossless(), "unsupported JPEG", "lossless"),
        (without_height(), "unsupported JPEG", "height"),
    ],
)
def test_a_jpeg_of_a_kind_that_is_not_written_is_skipped_with_the_reason(data, reason, said):
    with pytest.raises(SkippedImage, match=said) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_inks_without_adobes_segment_come_back_without_it():
    data = saved(PICTURE.convert("CMYK"), "JPEG", quality=90)
    start = data.index(b"\xff\xee")
    data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    done = edited(data)
    assert b"Adobe" not in done and (opened(done)[80:] == opened(data)[80:]).all()


def jfif(segment, plain=b"\x01\x02\0\0\x01\0\x01\0\0"):
    """A JPEG with these segments behind its start mark."""
    data = saved(PICTURE, "JPEG")
    rest = data[4 + int.from_bytes(data[4:6], "big") :]
    first = b"JFIF\0" + plain
    return data[:2] + b"\xff\xe0" + struct.pack(">H", len(first) + 2) + first + segment + rest


SMALL = PICTURE.resize((40, 30), Image.Resampling.BOX)
TABLE = np.array(SMALL.quantize(256).getpalette() + [0] * 768, np.uint8)[:768]
INDICES = SMALL.quantize(256).tobytes()


@pytest.mark.parametrize("kind", ["JFIF", "colours", "palette"])
def test_the_plain_thumbnail_of_jfif_is_made_anew(kind):
    samples = np.asarray(SMALL).tobytes()
    extension = b"JFXX\0\x13\x28\x1e" + samples
    if kind == "palette":
        extension = b"JFXX\0\x11\x28\x1e" + TABLE.tobytes() + INDICES
    segment = b"\xff\xe0" + struct.pack(">H", len(extension) + 2) + extension
    whole = jfif(segment) if kind != "JFIF" else jfif(b"", b"\x01\x02\0\0\x01\0\x01\x28\x1e" + samples)
    done = edited(whole)
    start = whole.index(extension[:8]) + 8 if kind != "JFIF" else 20
    length = len(INDICES) if kind == "palette" else len(samples)
    start += 768 if kind == "palette" else 0
    assert done[:start] == whole[:start]

    def seen(data):
        held = np.frombuffer(data, np.uint8, length, start)
        return (TABLE.reshape(-1, 3)[held] if kind == "palette" else held).reshape(30, 40, 3).astype(int)

    old, new = seen(whole), seen(done)
    assert (new[:8] == old[:8]).all() and (new[18:] == old[18:]).all()
    assert np.abs(new[11:15, 13:19] - 90).mean() < (20 if kind == "palette" else 4)
