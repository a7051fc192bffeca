"""What files carry beside their pixels is in the file of the edited picture, byte for byte."""

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from colour_profiles import ADOBE_RGB, CMYK, DISPLAY_P3, GREY_18, LINEAR, PROPHOTO, SRGB
from edited_pictures import saved
from PIL import Image
from skimage import data as pictures

from pipeline.io.images import SkippedImage, decode, encode

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
GREY = np.asarray(Image.fromarray(COLOUR).convert("L"))
PICTURE = Image.fromarray(COLOUR)
BOX = (slice(40, 64), slice(48, 80))


def edited(data, value=90):
    """The file with a square of another colour."""
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    rgb[BOX] = value
    return encode(picture, rgb).data


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# JPEG


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_metadata(data):
    """The APPn and COM segments of a JPEG's head."""
    place, found = 2, []
    while data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == 0xFE or data[place + 1] & 0xF0 == 0xE0:
            found.append(data[place : place + 2 + length])
        place += 2 + length
    return found


SEGMENTS = [
    segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"),
    segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(range(256)) * 9),
    segment(0xE2, b"FPXR\0" + bytes(50)),
    segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0c\x1c\x02\x05\0\x07caf\xe9 ab"),
    segment(0xEB, b"JP\0\1" + bytes(90)),
    segment(0xFE, b"a comment \xe9\xff"),
    segment(0xE5, b"unknown" * 30),
    segment(0xFE, b"another"),
]


@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "adobe RGB", "progressive"])
def test_every_segment_of_a_jpeg_stays_in_its_place(kind):
    options = (
        {"keep_rgb": True} if kind == "adobe RGB" else {"progressive": True} if kind == "progressive" else {}
    )
    plain = saved(PICTURE.convert(kind if kind in ("L", "CMYK") else "RGB"), "JPEG", **options)
    data = plain[:2] + b"".join(SEGMENTS[:4]) + plain[2:]
    start = data.index(b"\xff\xdb")
    data = data[:start] + b"".join(SEGMENTS[4:]) + data[start:]
    again = edited(data)
    assert jpeg_metadata(again) == jpeg_metadata(data) and len(jpeg_metadata(data)) > len(SEGMENTS)
    before, after = (np.asarray(opened(d)).astype(int) for d in (data, again))
    assert opened(again).mode == opened(data).mode
    assert (after[80:] == before[80:]).all() and np.abs(after - before)[BOX].max() > 30


def test_the_adobe_segment_of_luma_and_chroma_stays():
    plain = saved(PICTURE, "JPEG")
    adobe = segment(0xEE, b"Adobe\0d\0\0\0\0\x01")
    again = edited(plain[:2] + adobe + plain[2:])
    assert jpeg_metadata(again)[0] == adobe and again.count(b"Adobe") == 1
    assert (np.asarray(opened(again))[80:] == np.asarray(opened(plain))[80:]).all()


@pytest.mark.parametrize("sampling", ["444", "422", "420"])
def test_untouched_blocks_of_inks_coded_as_luma_and_chroma_stay(sampling):
    inks = np.asarray(PICTURE.convert("CMYK"))
    data = imagecodecs.jpeg8_encode(
        255 - inks, 90, colorspace="CMYK", outcolorspace="YCCK", subsampling=sampling
    )
    data = data[:2] + SEGMENTS[1] + data[2:]
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    rgb[BOX] = 90
    again, recoded, _ = encode(picture, rgb)
    assert recoded is None and jpeg_metadata(again) == jpeg_metadata(data)
    before, after = (np.asarray(opened(d)).astype(int) for d in (data, again))
    assert (after[80:] == before[80:]).all() and (after[:28] == before[:28]).all()
    assert np.abs(decode(again).rgb[50:58, 56:72].astype(int) - 90).max() < 9


def test_a_comment_between_scans_stays():
    data = saved(PICTURE, "JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    place = data.rindex(b"\xff\xc4", 0, second)
    comment = segment(0xFE, b"late")
    assert comment in jpeg_metadata(edited(data[:place] + comment + data[place:]))


@pytest.mark.parametrize(
    "tail", [b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 99, b"SEFT", saved(PICTURE, "PNG"), b"\0"]
)
def test_what_lies_behind_the_end_mark_of_a_jpeg_stays(tail):
    for data in (saved(PICTURE, "JPEG"), saved(PICTURE, "JPEG", progressive=True)):
        again = edited(data + tail)
        assert again.endswith(b"\xff\xd9" + tail)
        assert (decode(again).rgb[80:] == decode(data).rgb[80:]).all()


def with_index(first, others, order="<", kinds=()):
    """A JPEG of several pictures: `first` with a multi-picture index, and the others behind it."""
    count = 1 + len(others)
    head = b"II*\0" if order == "<" else b"MM\0*"
    mark = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    assert mark[:4] == head
    tags = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack(order + "I", count))]
    tags.append((0xB002, 7, 16 * count, struct.pack(order + "I", 8 + 2 + 36 + 4)))
    ifd = (
        struct.pack(order + "H", 3)
        + b"".join(struct.pack(order + "HHI", *t[:3]) + t[3] for t in tags)
        + bytes(4)
    )
    length = len(mark) + len(ifd) + 16 * count
    place = len(first) + 4 + 4 + length  # of the second picture
    index_at = 2 + 4 + 4  # directly behind the start mark
    entries = struct.pack(order + "IIIHH", 0x20030000, place, 0, 0, 0)
    for i, other in enumerate(others):
        kind = kinds[i] if kinds else 0
        entries += struct.pack(order + "IIIHH", kind, len(other), place - index_at, 0, 0)
        place += len(other)
    return first[:2] + segment(0xE2, b"MPF\0" + mark + ifd + entries) + first[2:] + b"".join(others)


def indexed(data, order="<"):
    """The pictures that a multi-picture index leads to."""
    base = data.index(b"MPF\0") + 4
    ifd = base + struct.unpack_from(order + "I", data, base + 4)[0]
    size, start = struct.unpack_from(order + "II", data, ifd + 2 + 24 + 4)
    found = []
    for i in range(size // 16):
        length, offset = struct.unpack_from(order + "II", data, base + start + 16 * i + 4)
        found.append(data[base + offset :][:length] if offset else data[:length])
    return found


@pytest.mark.parametrize("order", ["<", ">"])
def test_further_pictures_stay_and_their_index_leads_to_them(order):
    others = [saved(Image.fromarray(GREY), "JPEG"), saved(PICTURE.rotate(20), "JPEG", quality=60)]
    data = with_index(saved(PICTURE, "JPEG"), others, order)
    assert indexed(data, order) == [data[: -len(b"".join(others))], *others]
    again = edited(data)
    first, *rest = indexed(again, order)
    assert rest == others and again == first + b"".join(others)
    assert (np.abs(decode(first).rgb.astype(int) - 90)[50:58, 56:72] < 9).all()
    assert opened(data).n_frames == opened(again).n_frames == 3


def test_an_index_that_leads_nowhere_known_is_skipped():
    data = with_index(saved(PICTURE, "JPEG"), [saved(PICTURE, "JPEG")])
    base = data.index(b"MPF\0") + 4
    place = base + 50 + 16 + 8
    with pytest.raises(SkippedImage, match="index"):
        decode(data[:place] + struct.pack("<I", 300) + data[place + 4 :])


@pytest.mark.parametrize("kind", [{"progressive": True}, {}, {"progressive": True, "quality": 30}])
def test_a_jpeg_that_lacks_only_its_end_mark_is_restored(kind):
    data = saved(PICTURE, "JPEG", **kind)
    for cut in (2, 1):
        picture = decode(data[:-cut])
        assert (picture.rgb == decode(data).rgb).all()
        again = edited(data[:-cut])
        assert again.endswith(b"\xff\xd9") and (decode(again).rgb[80:] == picture.rgb[80:]).all()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97, 0.995])
def test_a_progressive_jpeg_that_lacks_more_is_truncated(share):
    data = saved(PICTURE, "JPEG", progressive=True)
    with pytest.raises(ValueError, match="end early"):
        decode(data[: int(len(data) * share)])
    last = data.rindex(b"\xff\xc4")
    with pytest.raises(ValueError, match="end early"):
        decode(data[:last])


# PNG


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_chunks(data):
    place, found = 8, []
    while place < len(data):
        length = 12 + int.from_bytes(data[place : place + 4], "big")
        found.append(data[place : place + length])
        place += length
    return found


def with_chunks(data, before=(), after=()):
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + b"".join(before) + data[start:end] + b"".join(after) + data[end:]


def around_pixels(data):
    """The chunks before and after the pixels, but for the header."""
    chunks = png_chunks(data)
    places = [i for i, c in enumerate(chunks) if c[4:8] == b"IDAT"]
    return chunks[1 : places[0]], chunks[places[-1] + 1 :]


def deep_png():
    samples = COLOUR.astype(np.uint16) * 257
    return cv2.imencode(".png", samples[..., ::-1])[1].tobytes()


KINDS = {
    "rgb": saved(PICTURE, "PNG"),
    "rgba": saved(PICTURE.convert("RGBA"), "PNG"),
    "grey": saved(Image.fromarray(GREY), "PNG"),
    "16-bit grey": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "16-bit": deep_png(),
}
BEFORE = [
    chunk(b"pHYs", struct.pack(">IIB", 11811, 11810, 1)),
    chunk(b"tEXt", b"Comment\0one"),
    chunk(b"tEXt", b"Comment\0another of one key \xe9"),
    chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"long " * 99)),
    chunk(b"iTXt", b"Title\0\0\0de-AT\0Titel\0Gro\xc3\x9fmutter"),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x:xmpmeta/>" + b" " * (3 << 20))),
    chunk(b"tIME", b"\x07\xe0\1\2\3\4\5"),
    chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    chunk(b"oFFs", bytes(9)),
    chunk(b"sPLT", b"p\0\x08" + bytes(12)),
    chunk(b"prVt", b"private" * 40),
    chunk(b"caBX", b"jumbf" * 40),
]
AFTER = [chunk(b"tEXt", b"Author\0late"), chunk(b"tIME", b"\x07\xe1\1\2\3\4\5"), chunk(b"dSIG", bytes(20))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_chunk_of_a_png_stays_in_its_place(kind):
    data = with_chunks(KINDS[kind], BEFORE, AFTER) + b"appended"
    again = edited(data)
    assert again.endswith(b"appended")
    again = again.removesuffix(b"appended")
    assert around_pixels(again) == (BEFORE, [*AFTER, chunk(b"IEND", b"")])
    assert png_chunks(again)[0] == png_chunks(data)[0]
    assert all(c == chunk(c[4:8], c[8:-4]) for c in png_chunks(again))
    assert (decode(again).stored[80:] == decode(data).stored[80:]).all()


@pytest.mark.parametrize(
    "body", [b"\0\1\0", b"\1\x0d\0\1", b"\x09\x10\0\1", b"\x0c\x0d\0\1", b"\x09\x08\0\1"]
)
@pytest.mark.parametrize("kind", ["rgb", "16-bit"])
def test_colour_chunks_stay(body, kind):
    chunks = [
        chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        chunk(b"gAMA", struct.pack(">I", 55555)), chunk(b"cICP", body.ljust(4, b"\0")),
        chunk(b"sBIT", b"\x08\x08\x08"), chunk(b"bKGD", struct.pack(">3H", 1, 2, 3)),
        chunk(b"mDCV", bytes(24)), chunk(b"cLLI", bytes(8)),
    ]  # fmt: skip
    assert around_pixels(edited(with_chunks(KINDS[kind], chunks)))[0] == chunks


def test_what_a_palette_png_says_of_its_palette_is_said_of_its_colours():
    palette = PICTURE.quantize(16)
    count = len(palette.getpalette()) // 3
    histogram = chunk(b"hIST", struct.pack(f">{count}H", *range(count)))
    data = with_chunks(saved(palette, "PNG"), [chunk(b"bKGD", b"\3"), histogram, BEFORE[0]])
    again = edited(data)
    kept = {c[4:8]: c[8:-4] for c in around_pixels(again)[0]}
    assert kept[b"bKGD"] == bytes(b for v in palette.getpalette()[9:12] for b in (0, v))
    assert (
        kept[b"hIST"] == histogram[8:-4]
        and kept[b"PLTE"] == {c[4:8]: c[8:-4] for c in png_chunks(data)}[b"PLTE"]
    )
    assert kept[b"pHYs"] == BEFORE[0][8:-4]
    assert (decode(again).rgb[80:] == decode(data).rgb[80:]).all()


def test_a_png_with_a_frame_that_is_not_its_picture_is_skipped():
    with pytest.raises(SkippedImage):
        decode(
            with_chunks(KINDS["rgb"], [chunk(b"acTL", struct.pack(">II", 1, 0))], [chunk(b"fdAT", bytes(30))])
        )


# WebP


def riff_chunks(data):
    place, found = 12, []
    while place < 8 + int.from_bytes(data[4:8], "little"):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        found.append(data[place : place + 8 + length + length % 2])
        place += 8 + length + length % 2
    return found


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_every_chunk_of_a_webp_stays(mode, lossless):
    picture = PICTURE.convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    plain = saved(
        picture, "WEBP", lossless=lossless, exact=True, icc_profile=ADOBE_RGB, xmp=b"<x:xmpmeta/>",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0",
    )  # fmt: skip
    body = plain[8:] + b"ABCD\5\0\0\0hello\0" + b"C2PA\4\0\0\0abcd"
    data = b"RIFF" + struct.pack("<I", len(body)) + body + b"behind"
    again = edited(data)
    assert again.endswith(b"behind")
    pixels = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH")
    before, after = ([c for c in riff_chunks(d) if c[:4] not in pixels] for d in (data, again))
    assert before == after and len(before) == 5
    assert riff_chunks(again)[0][8] == riff_chunks(data)[0][8]
    image = opened(again)
    assert image.info["icc_profile"] == ADOBE_RGB and image.mode == mode
    assert (decode(again).stored[80:] == decode(data).stored[80:]).all()


# GIF


def gif(transparent=None, extras=True, colours=32):
    picture = PICTURE.quantize(colours)
    data = saved(picture, "GIF", **({} if transparent is None else {"transparency": transparent}))
    if not extras:
        return data
    place = 13 + (3 << ((data[10] & 7) + 1))
    comment = b"\x21\xfe\x05hello\x03abc\0"
    application = b"\x21\xff\x0bXMP DataXMP<x/>"[:14] + b"\x04<x/>\0"
    return data[:place] + comment + application + data[place:-1] + b"\x21\xfe\x04late\0" + b"\x3b" + b"behind"


def test_comments_and_applications_of_a_gif_stay():
    data = gif()
    again = edited(data)
    start = data.index(b"\x2c", 13 + (3 << ((data[10] & 7) + 1)))
    assert again[: data.index(b"<x/>") + 5] == data[: data.index(b"<x/>") + 5] and start
    assert again.endswith(b"\0\x21\xfe\x04late\0\x3bbehind")
    assert (decode(again).stored[80:] == decode(data).stored[80:]).all()
    assert (decode(again).rgb != decode(data).rgb).any()


@pytest.mark.parametrize("transparent", range(0, 32, 5))
@pytest.mark.parametrize("value", [255, 128, 0])
def test_transparent_pixels_of_a_gif_stay_and_no_other_becomes_so(transparent, value):
    data = gif(transparent)
    again = edited(data, value)
    before, after = (np.asarray(opened(d)) for d in (data, again))
    hidden = before == transparent
    assert hidden.any() and ((after == transparent) == hidden).all() and (before != after).any()


@pytest.mark.parametrize("kind", ["L", "RGB", "16-bit grey", "1"])
def test_transparent_colours_of_a_png_stay_and_no_other_becomes_so(kind):
    if kind == "1":
        data, key = saved(Image.fromarray(GREY).convert("1"), "PNG", transparency=0), 0
    elif kind == "RGB":
        pixels = COLOUR.copy()
        pixels[30:45, 40:60] = (10, 200, 30)
        data, key = saved(Image.fromarray(pixels), "PNG", transparency=(10, 200, 30)), (10, 200, 30)
    else:
        pixels = GREY.copy()
        pixels[30:45, 40:60] = 90
        deep = kind != "L"
        picture = Image.fromarray(pixels.astype(np.uint16) * 257) if deep else Image.fromarray(pixels)
        data = saved(picture, "PNG")
        key = 90 * 257 if deep else 90
        ihdr = 8 + 25
        data = data[:ihdr] + chunk(b"tRNS", struct.pack(">H", key)) + data[ihdr:]
    for value in (90, (10, 200, 30), 0, 255):
        again = edited(data, value)
        before, after = decode(data), decode(again)
        hidden, then = (
            (p.stored == p.save["transparency"]).reshape(*p.stored.shape[:2], -1).all(axis=2)
            for p in (before, after)
        )
        assert hidden.any() and (hidden == then).all()


def test_a_gif_that_lacks_its_end_is_restored_and_one_that_lacks_pixels_is_truncated():
    whole = gif(extras=False)
    for data in (whole[:-1], whole[:-2]):
        assert (decode(data).rgb == decode(whole).rgb).all()
        assert (decode(edited(data)).stored[80:] == decode(whole).stored[80:]).all()
    with pytest.raises(ValueError, match="end early"):
        decode(whole[: len(whole) // 2])


# BMP


def test_a_bmp_with_a_profile_stays_but_for_its_pixels():
    plain = saved(PICTURE, "BMP")
    pixels = plain[54:]
    start = 14 + 124
    info = bytearray(plain[14:54].ljust(124, b"\0"))
    info[0:4] = struct.pack("<I", 124)
    info[56:60] = b"DEBM"
    info[112:120] = struct.pack("<II", 124 + len(pixels), len(ADOBE_RGB))
    header = b"BM" + struct.pack("<IHHI", start + len(pixels) + len(ADOBE_RGB), 0, 0, start)
    data = header + bytes(info) + pixels + ADOBE_RGB + b"behind"
    again = edited(data)
    assert again[:start] == data[:start] and again[start + len(pixels) :] == ADOBE_RGB + b"behind"
    assert (np.asarray(opened(again))[80:] == COLOUR[80:]).all()
    seen = decode(data).rgb.astype(int)
    assert np.abs(seen - COLOUR).max() > 10
    # colours that sRGB does not hold keep what it lacks
    assert np.percentile(np.abs(decode(again).rgb[BOX].astype(int) - 90), 99) <= 2


def test_a_bmp_of_a_palette_with_a_profile_is_skipped():
    plain = saved(PICTURE.quantize(64), "BMP")
    with pytest.raises(SkippedImage, match="24 or 32 bits"):
        decode(plain + b"behind them")


# Colours


def png_with(*chunks):
    return with_chunks(KINDS["rgb"], chunks)


GAMMA_1 = chunk(b"gAMA", struct.pack(">I", 100_000))
PROFILED = {
    "JPEG": (saved(PICTURE, "JPEG", quality=98, subsampling=0, icc_profile=ADOBE_RGB), 4),
    "grey JPEG": (saved(Image.fromarray(GREY), "JPEG", quality=98, icc_profile=GREY_18), 4),
    "CMYK JPEG": (saved(PICTURE.convert("CMYK"), "JPEG", quality=98, icc_profile=CMYK), 25),
    "CMYK JPEG without one": (saved(PICTURE.convert("CMYK"), "JPEG", quality=98), 4),
    "PNG": (saved(PICTURE, "PNG", icc_profile=DISPLAY_P3), 2),
    "PNG of ProPhoto": (saved(PICTURE, "PNG", icc_profile=PROPHOTO), 4),
    "grey PNG": (saved(Image.fromarray(GREY), "PNG", icc_profile=GREY_18), 1),
    "16-bit PNG": (with_chunks(deep_png(), [chunk(b"iCCP", b"p\0\0" + zlib.compress(PROPHOTO))]), 1),
    "16-bit linear PNG": (with_chunks(deep_png(), [chunk(b"iCCP", b"p\0\0" + zlib.compress(LINEAR))]), 1),
    "PNG of gAMA": (png_with(GAMMA_1), 4),
    "16-bit PNG of gAMA": (with_chunks(deep_png(), [GAMMA_1]), 1),
    "PNG of cICP": (png_with(chunk(b"cICP", b"\x0c\x0d\0\1")), 2),
    "WebP": (saved(PICTURE, "WEBP", lossless=True, icc_profile=ADOBE_RGB), 2),
}


@pytest.mark.parametrize("kind", PROFILED)
def test_networks_see_srgb_and_their_change_is_carried_back(kind):
    data, near = PROFILED[kind]
    before, again = decode(data), edited(data, 120)
    after = decode(again)
    raw = np.asarray(opened(data).convert("RGB")).astype(int)
    if kind != "CMYK JPEG without one":
        assert np.abs(before.rgb.astype(int) - raw).max() > 8
    assert np.abs(after.rgb[50:58, 56:72].astype(int) - 120).max() <= near
    assert (after.stored[88:] == before.stored[88:]).all() and (after.stored != before.stored).any()
    assert opened(again).info.get("icc_profile") == opened(data).info.get("icc_profile")


def test_what_a_gamma_says_is_what_an_exponent_gives():
    seen = decode(png_with(GAMMA_1)).rgb / 255
    light = COLOUR / 255
    wanted = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(seen - wanted).max() < 2.5 / 255


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"sRGB", b"\0"), GAMMA_1],
        [chunk(b"gAMA", struct.pack(">I", 45455))],
        [chunk(b"gAMA", bytes(4))],
        [chunk(b"cICP", b"\1\x0d\0\1"), GAMMA_1],
    ],
)
def test_chunks_that_mean_srgb_change_nothing(chunks):
    assert (decode(png_with(*chunks)).rgb == COLOUR).all()


def test_a_profile_of_another_mode_is_passed_over_and_stays():
    data = saved(Image.fromarray(GREY), "JPEG", icc_profile=SRGB)
    assert (decode(data).rgb == np.asarray(opened(data))[..., None]).all()
    assert opened(edited(data)).info["icc_profile"] == SRGB
