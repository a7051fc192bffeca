"""JPEG 2000 and JPEG XL: samples and boxes that are not edited come back as they were, by readers that are not ours."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from colour_profiles import ADOBE_RGB, CMYK, GREY_18
from edited_pictures import with_edited_box
from PIL import Image
from skimage import data as pictures

from pipeline.io.images import ImageError, SkippedImage, decode, encode, encode_anew, enlarged, is_image_name
from pipeline.io.jpegxl import jpegxl_header

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
GREY = np.ascontiguousarray(COLOUR[..., 1])
ALPHA = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))
BOX = (slice(40, 64), slice(48, 80))


def deep(samples, bits=16):
    return (samples.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


SAMPLES = {
    "colour": COLOUR,
    "grey": GREY,
    "alpha": np.dstack([COLOUR, ALPHA]),
    "grey alpha": np.dstack([GREY, ALPHA]),
    "16-bit colour": deep(COLOUR),
    "16-bit grey": deep(GREY),
    "16-bit alpha": deep(np.dstack([COLOUR, ALPHA])),
}


def edited(data, value=90):
    return with_edited_box(data, BOX, value)


def box(name, body):
    return struct.pack(">I", 8 + len(body)) + name + body


def boxes(data):
    """Name and body of each box."""
    place, found = 0, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big") or len(data) - place
        found.append((data[place + 4 : place + 8], data[place + 8 : place + length]))
        place += length
    return found


def jp2(samples=COLOUR, colour=None, before=b"", after=b"", channels=b"", **options):
    """A JPEG 2000 file with a colour box and others of its own."""
    coded = imagecodecs.jpeg2k_encode(
        samples, codecformat="jp2", **{"level": 0, "reversible": True} | options
    )
    (sign, kind, header, stream) = boxes(coded)
    ihdr, colr = boxes(header[1])
    inner = box(*ihdr) + box(b"colr", colour or colr[1]) + channels
    inner += box(b"res ", box(b"resc", struct.pack(">4Hbb", 300, 1, 300, 1, 2, 2)))
    return b"".join([box(*sign), box(*kind), box(b"jp2h", inner), before, box(*stream), after])


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("form", ["jp2", "j2k", "lossy jp2", "jxl", "jxl file", "lossy jxl"])
def test_samples_that_are_not_edited_stay(kind, form):
    samples = SAMPLES[kind]
    if form.endswith("jxl") or form == "jxl file":
        how = {"distance": 1.0} if form.startswith("lossy") else {"lossless": True}
        data = imagecodecs.jpegxl_encode(samples, usecontainer=form == "jxl file", **how)
        read = imagecodecs.jpegxl_decode
    else:
        how = {"level": 40} if form.startswith("lossy") else {"level": 0, "reversible": True}
        data = imagecodecs.jpeg2k_encode(samples, codecformat=form[-3:], **how)
        read = imagecodecs.jpeg2k_decode
    again = edited(data)
    before, after = read(data), read(again)
    assert after.dtype == before.dtype and after.shape == before.shape
    outside = np.ones(before.shape[:2], bool)
    outside[BOX] = False
    assert (after[outside] == before[outside]).all()
    assert np.abs(decode(again).rgb[BOX].astype(int) - 90).max() <= 1
    if kind.endswith("alpha"):
        assert (after[..., -1] == before[..., -1]).all()


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_jpeg_2000_of_any_depth_comes_back_in_it(bits):
    samples = deep(COLOUR, bits)
    data = imagecodecs.jpeg2k_encode(samples, level=0, codecformat="jp2", reversible=True, bitspersample=bits)
    again = edited(data)
    after = imagecodecs.jpeg2k_decode(again)
    assert (after[80:] == samples[80:]).all() and after.max() < 2**bits
    place = again.index(b"\xff\x4f\xff\x51")
    assert again[place + 42] == bits - 1 and np.abs(decode(again).rgb[BOX].astype(int) - 90).max() <= 1


XML, UUID = box(b"xml ", b"<x/>"), box(b"uuid", bytes(range(16)) + b"metadata" * 99)


@pytest.mark.parametrize(
    ("samples", "colour"),
    [
        (COLOUR, b"\1\0\0\0\0\0\x10"), (COLOUR, b"\2\0\0" + ADOBE_RGB), (GREY, b"\2\0\0" + GREY_18),
        (np.dstack([255 - COLOUR, np.zeros_like(GREY)]), b"\1\0\0\0\0\0\x0c"),
        (np.dstack([255 - COLOUR, np.zeros_like(GREY)]), b"\3\0\0" + CMYK),
    ],
)  # fmt: skip
def test_every_box_of_jpeg_2000_stays_in_its_place(samples, colour):
    data = jp2(samples, colour, before=XML + UUID, after=UUID + XML + box(b"jp2i", b"ipr"))
    again = edited(data)
    before, after = boxes(data), boxes(again)
    assert [name for name, _ in after] == [name for name, _ in before]
    assert [b for n, b in after if n != b"jp2c"] == [b for n, b in before if n != b"jp2c"]
    changed = np.abs(decode(again).rgb.astype(int)[BOX] - 90)
    assert np.percentile(changed, 90) <= (12 if samples.shape[2:] == (4,) else 3)
    # the library applies a file's profile, not a bare codestream's
    stream = dict(after)[b"jp2c"]
    assert (imagecodecs.jpeg2k_decode(stream)[80:] == samples[80:]).all()
    if len(colour) > 7:
        raw = Image.open(io.BytesIO(data))
        assert np.abs(decode(data).rgb.astype(int) - np.asarray(raw.convert("RGB"))).max() > 8
        assert raw.size == Image.open(io.BytesIO(again)).size


def test_comments_of_a_codestream_stay():
    data = imagecodecs.jpeg2k_encode(COLOUR, level=0, codecformat="j2k", reversible=True)
    place = data.index(b"\xff\x64")
    length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    comments = b"\xff\x64\0\x07\0\1abc" + b"\xff\x64\0\x06\0\0\xff\1"
    again = edited(data[:place] + comments + data[place + length :])
    assert comments in again and b"OpenJPEG" not in again
    assert (np.asarray(Image.open(io.BytesIO(again)))[80:] == COLOUR[80:]).all()


def test_a_last_box_without_length_and_one_of_a_long_length_stay_so():
    plain = jp2()
    place = plain.index(b"jp2c") - 4
    for header in (bytes(4) + b"jp2c", b"\0\0\0\1jp2c" + struct.pack(">Q", len(plain) - place + 8)):
        data = plain[:place] + header + plain[place + 8 :]
        again = edited(data)
        assert again[: place + 8] == data[: place + 8]
        assert (imagecodecs.jpeg2k_decode(again)[80:] == COLOUR[80:]).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (jp2(colour=b"\1\0\0\0\0\0\x12"), "luma and chroma"),
        (jp2(after=box(b"ftbl", bytes(8))), "table of places"),
        (jp2(channels=box(b"cdef", struct.pack(">10H", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1)[:20])), "order"),
        (jp2(channels=box(b"pclr", bytes(20))), "palette"),
        (imagecodecs.jpegxl_encode(COLOUR, usecontainer=True, lossless=True) + box(b"jbrd", b"abc"), "JPEG"),
        (imagecodecs.jpegxl_encode(np.stack([COLOUR] * 3), lossless=True), "frames"),
        (imagecodecs.jpegxl_encode(COLOUR.astype(np.float32) / 255, lossless=True), "floating"),
    ],
)
def test_what_could_not_be_written_back_is_skipped(data, said):
    with pytest.raises(SkippedImage, match=said):
        decode(data)


@pytest.mark.parametrize("form", ["jp2", "jxl"])
def test_half_a_file_is_truncated(form):
    data = jp2() if form == "jp2" else imagecodecs.jpegxl_encode(COLOUR, lossless=True)
    for length in (13, 30, 90, len(data) // 2, len(data) - 30):
        with pytest.raises(ImageError) as caught:
            decode(data[:length])
        assert not isinstance(caught.value, SkippedImage)


@pytest.mark.parametrize("form", ["jp2", "jxl"])
def test_a_large_one_is_refused_by_its_header(form):
    coded = imagecodecs.jpeg2k_encode if form == "jp2" else imagecodecs.jpegxl_encode
    data = bytes(coded(deep(COLOUR), level=0) if form == "jp2" else coded(deep(COLOUR), lossless=True))
    with pytest.raises(SkippedImage, match="count twice"):
        decode(data, max_pixels=120 * 160 * 2 - 1)
    assert decode(data, max_pixels=120 * 160 * 2).rgb.shape == COLOUR.shape


def test_every_box_of_jpeg_xl_stays():
    coded = imagecodecs.jpegxl_encode(deep(COLOUR), lossless=True, usecontainer=True)
    names = [name for name, _ in boxes(coded)]
    assert names == [b"JXL ", b"ftyp", b"jxll", b"jxlc"]
    exif, xml, brotli = (
        box(b"Exif", bytes(4) + b"MM\0*\0\0\0\x08\0\0\0\0\0\0"),
        box(b"xml ", b"<x/>"),
        box(b"brob", b"xml abc"),
    )
    place = coded.index(b"jxlc") - 4
    stream = boxes(coded)[-1][1]
    halves = [box(b"jxlp", b"\0\0\0\0" + stream[:900]), box(b"jxlp", b"\x80\0\0\1" + stream[900:])]
    data = coded[:place] + exif + halves[0] + xml + halves[1] + brotli
    again = edited(data)
    assert [n for n, _ in boxes(again)] == [b"JXL ", b"ftyp", b"jxll", b"Exif", b"jxlc", b"xml ", b"brob"]
    assert all(b in again for b in (exif, xml, brotli))
    assert (imagecodecs.jpegxl_decode(again)[80:] == deep(COLOUR)[80:]).all()


@pytest.mark.parametrize("samples", [GREY, COLOUR, np.dstack([COLOUR, ALPHA])])
def test_the_curve_that_a_jpeg_xl_of_16_bits_names_is_kept(samples):
    """The library calls all 16-bit samples linear light; a file of the same samples as sRGB differs in the header."""
    linear = bytes(imagecodecs.jpegxl_encode(deep(samples), lossless=True, usecontainer=True))
    seen = decode(linear)
    assert np.abs(seen.rgb.astype(int) - samples.reshape(*GREY.shape, -1)[..., :3]).max() > 30
    place = jpegxl_header(linear).curve_at
    stream = dict(boxes(linear))[b"jxlc"]
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
    bits[place + 2 : place + 6] = (1, 1, 0, 1)  # 11, of 13 for sRGB
    srgb = linear.replace(stream, np.packbits(bits, bitorder="little").tobytes())
    assert (decode(srgb).rgb == samples.reshape(*GREY.shape, -1)[..., :3]).all()
    for data, name in ((linear, 8), (srgb, 13)):
        assert jpegxl_header(data).curve == jpegxl_header(edited(data)).curve == name
        assert (imagecodecs.jpegxl_decode(edited(data))[80:] == deep(samples)[80:]).all()


@pytest.mark.parametrize("form", ["jp2", "jxl"])
def test_pictures_made_larger_or_anew_are_of_the_same_kind(form):
    data = jp2(before=XML) if form == "jp2" else imagecodecs.jpegxl_encode(COLOUR, lossless=True)
    picture = enlarged(decode(data), 2)
    rgb = picture.rgb.astype(np.float32)
    rgb[:20] = 3
    large = encode(picture, rgb).data
    assert decode(large).rgb.shape == (240, 320, 3) and (XML in large) == (form == "jp2")
    anew = encode_anew(decode(data), COLOUR[:50])
    assert (decode(anew).rgb == COLOUR[:50]).all() and decode(anew).format == picture.format


def test_their_names_are_those_of_pictures():
    assert all(is_image_name(f"a.{s}") for s in ("jp2", "JPX", "jpf", "j2k", "j2c", "jxl", "avif", "heic"))
