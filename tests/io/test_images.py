"""Every kind of picture comes back as the kind it was, and pixels that were not edited come back as they were."""

import io
import random
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from edited_pictures import saved
from PIL import Image, ImageCms, ImageOps
from skimage import data as pictures

from pipeline.faces.canvas import Canvas
from pipeline.io.images import (
    LUMA,
    ImageError,
    SkippedImage,
    decode,
    encode,
    is_image_name,
    jpeg_quality,
    resize,
)
from pipeline.io.picture import upright_rgb
from pipeline.io.save_options import divisor_table

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
GREY = COLOUR.mean(axis=2).astype(np.uint8)
ALPHA = np.linspace(0, 255, GREY.size).reshape(GREY.shape).astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk():
    return Image.fromarray(COLOUR).convert("CMYK")


def deep_grey():
    return Image.fromarray((GREY.astype(np.uint16) * 257) ^ 3)


def deep_colour():
    samples = (COLOUR.astype(np.uint16) * 257) ^ 5
    return cv2.imencode(".png", np.ascontiguousarray(samples[..., ::-1]))[1].tobytes()


LOSSLESS = {
    "rgb png": saved(Image.fromarray(COLOUR), "PNG", icc_profile=SRGB, dpi=(300, 300)),
    "rgba png": saved(Image.fromarray(np.dstack([COLOUR, ALPHA])), "PNG"),
    "grey png": saved(Image.fromarray(GREY), "PNG"),
    "grey alpha png": saved(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"),
    "palette png": saved(Image.fromarray(COLOUR).quantize(64), "PNG"),
    "palette with transparency png": saved(Image.fromarray(COLOUR).quantize(64), "PNG", transparency=3),
    "1-bit png": saved(Image.fromarray(GREY).convert("1"), "PNG"),
    "16-bit grey png": saved(deep_grey(), "PNG"),
    "16-bit colour png": deep_colour(),
    "16-bit grey tiff": saved(deep_grey(), "TIFF"),
    "rgb tiff": saved(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"),
    "bmp": saved(Image.fromarray(COLOUR), "BMP"),
    "lossless webp": saved(Image.fromarray(COLOUR), "WEBP", lossless=True),
    "gif": saved(Image.fromarray(COLOUR).quantize(128), "GIF"),
}


def samples(data):
    """The file's samples at their own depth, by a reader that is not ours where Pillow would cut them."""
    if data[24:26] == b"\x10\x02":
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert("RGBA") if image.mode in ("P", "PA") else image)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_unedited_pictures_come_back_bit_equal(kind):
    data = LOSSLESS[kind]
    picture = decode(data)
    again = encode(picture, picture.rgb.astype(np.float32)).data
    before, after = samples(data), samples(again)
    if before.dtype == bool:
        before = before * np.uint8(255)
    if after.shape != before.shape:  # a palette became true colour
        after = np.asarray(Image.fromarray(after).convert("RGBA"))
    assert after.dtype == before.dtype and (after == before).all()
    assert Image.open(io.BytesIO(again)).format == Image.open(io.BytesIO(data)).format


@pytest.mark.parametrize("kind", LOSSLESS)
def test_only_the_edited_pixels_change_and_bytes_are_deterministic(kind):
    picture = decode(LOSSLESS[kind])
    edited = picture.rgb.astype(np.float32)
    edited[40:60, 30:70] = 90
    first, second = encode(picture, edited).data, encode(picture, edited).data
    assert first == second
    back = decode(first)
    outside = np.ones(back.rgb.shape[:2], bool)
    outside[40:60, 30:70] = False
    assert (back.stored[outside] == decode(LOSSLESS[kind]).stored[outside]).all()
    tolerance = 40 if kind == "gif" else 1
    assert np.abs(back.rgb[40:60, 30:70].astype(int) - 90).mean() <= tolerance


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [30, 60, 85, 95])
def test_untouched_blocks_of_a_jpeg_come_back_bit_equal(quality, sampling):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = saved(
        Image.fromarray(COLOUR), "JPEG", quality=quality, subsampling=sampling, icc_profile=SRGB, exif=exif,
        progressive=quality == 60, dpi=(300, 300),
    )  # fmt: skip
    picture = decode(data)
    edited = picture.rgb.astype(np.float32)
    edited[48:80, 48:80] = 128
    again = encode(picture, edited).data
    back = decode(again).rgb.astype(int)
    far = np.ones(back.shape[:2], bool)
    far[28:100, 28:100] = False
    assert (back[far] == picture.rgb[far]).all()
    assert np.abs(back[56:72, 56:72] - 128).max() <= 6
    result = Image.open(io.BytesIO(again))
    assert result.info["icc_profile"] == SRGB and result.format == "JPEG"
    assert result.getexif()[0x010F] == "Maker" and result.info["dpi"] == (300, 300)


def test_divisor_tables_divide():
    assert divisor_table([16, 17, 12, 1, 40], [3, 2, 5, 9, 7]) == [2, 1, 4, 1, 5]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photograph_is_edited_upright_and_stays_rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    data = saved(Image.fromarray(COLOUR), "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    picture = decode(data)
    assert (picture.rgb == upright).all()
    edited = picture.rgb.astype(np.float32)
    edited[5:15, 20:40] = (250, 0, 0)
    back = decode(encode(picture, edited).data)
    assert (back.rgb == edited).all() and back.orientation == orientation
    assert Image.open(io.BytesIO(encode(picture, edited).data)).getexif()[0x010F] == "Maker"


def test_grey_jpegs_stay_grey_and_unedited_ones_decode_the_same():
    picture = decode(saved(Image.fromarray(GREY), "JPEG"))
    again = encode(picture, picture.rgb.astype(np.float32)).data
    assert Image.open(io.BytesIO(again)).mode == "L"
    assert (decode(again).rgb == picture.rgb).all()


def test_a_cmyk_jpeg_is_read_in_colour_and_keeps_its_inks():
    data = saved(cmyk(), "JPEG", quality=95)
    picture = decode(data)
    assert np.abs(picture.rgb.astype(int) - COLOUR).mean() < 12
    again = Image.open(io.BytesIO(encode(picture, picture.rgb.astype(np.float32)).data))
    assert again.mode == "CMYK" and (np.asarray(again) == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_edits_are_rounded_and_clipped():
    picture = decode(LOSSLESS["rgb png"])
    edited = np.full(picture.rgb.shape, 99.6, np.float32)
    edited[0] = 300
    back = decode(encode(picture, edited).data).rgb
    assert (back[1:] == 100).all() and (back[0] == 255).all()


def bomb():
    """A PNG whose header promises 60,000 x 60,000 pixels."""
    data = bytearray(saved(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    crc = zlib.crc32(bytes(data[12:29]))
    data[29:33] = crc.to_bytes(4, "big")
    return bytes(data)


JPEG = saved(Image.fromarray(COLOUR), "JPEG")
FRAMES = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text file\n" * 20, "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:200], "truncated"),
        (LOSSLESS["rgb png"][:1000], "truncated"),
        (LOSSLESS["rgb tiff"][:-2000], "truncated"),
        (saved(Image.fromarray(COLOUR), "EPS"), "not an image"),
    ],
)
def test_bytes_that_are_no_whole_picture_are_named(data, reason):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert not isinstance(caught.value, SkippedImage)
    assert caught.value.reason in (reason, "truncated", "not an image")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bomb(), "too large"),
        (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "animated"),
        (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "animated"),
        (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "animated"),
        (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "float samples"),
        (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "deep samples"),
    ],
)
def test_pictures_we_do_not_restore_are_skipped_with_a_reason(data, reason):
    with pytest.raises(SkippedImage) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_the_pixel_limit_is_an_option():
    with pytest.raises(SkippedImage, match="raise --max-pixels"):
        decode(JPEG, max_pixels=1000)


def promising(width, height, depth, colour):
    """A PNG of a few bytes whose header promises so many pixels."""
    data = bytearray(saved(Image.new("L", (1, 1)), "PNG"))
    data[16:26] = struct.pack(">IIBB", width, height, depth, colour)
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(("depth", "colour"), [(16, 2), (16, 6)])
def test_pixels_of_sixteen_bit_colour_count_twice_before_anything_is_decoded(depth, colour):
    with pytest.raises(SkippedImage) as caught:
        decode(promising(10_000, 10_000, depth, colour))
    assert caught.value.reason == "too large"
    assert str(caught.value) == (
        "10000x10000 is 100 Mpx of 16-bit colour, which count twice, above the limit of 179 Mpx; "
        "raise --max-pixels to accept it"
    )
    deep = LOSSLESS["16-bit colour png"]
    pixels = COLOUR.shape[0] * COLOUR.shape[1]
    assert decode(deep, max_pixels=2 * pixels).stored.dtype == np.uint16
    with pytest.raises(SkippedImage):
        decode(deep, max_pixels=2 * pixels - 1)


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (8, 6), (16, 0), (1, 0)])
def test_other_pixels_count_once(depth, colour):
    with pytest.raises(ImageError) as caught:
        decode(promising(100, 100, depth, colour), max_pixels=10_000)
    assert caught.value.reason != "too large"  # it has no pixels, which shows when it is decoded


def test_why_the_pixels_beside_an_edit_could_not_stay_is_given_and_nothing_where_they_did():
    def recoded(data):
        picture = decode(data)
        edited = picture.rgb.astype(np.float32)
        edited[48:64, 48:64] = 128
        return encode(picture, edited).recoded

    assert all(recoded(data) is None for data in (*LOSSLESS.values(), JPEG, saved(cmyk(), "JPEG")))
    assert recoded(saved(cmyk(), "TIFF")) is None
    other_tables = b"\xff\xdb\0\x43\0" + b"\x11" * 64
    assert "quantisation" in recoded(JPEG.removesuffix(b"\xff\xd9") + other_tables + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["rgba png", "grey alpha png", "16-bit colour png", "grey png", "bmp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_edit_held_in_parts_gives_the_bytes_of_one_held_whole(kind, orientation, monkeypatch):
    monkeypatch.setattr("pipeline.io.picture.STRIP", 5000)
    picture = replace(decode(LOSSLESS[kind]), orientation=orientation)
    picture = replace(picture, rgb=upright_rgb(picture.stored, orientation))
    edited = picture.rgb.astype(np.float32)
    edited[20:50, 30:41] = np.random.default_rng(0).uniform(-20, 280, (30, 11, 3))
    in_parts = Canvas(picture.rgb, [(slice(20, 50), slice(30, 41))])
    in_parts[20:50, 30:41][:] = edited[20:50, 30:41]
    assert encode(picture, in_parts) == encode(picture, edited)
    change = picture.as_stored(edited - picture.rgb)
    if picture.stored.ndim == 2:
        change = change @ LUMA
    top = 65535 if picture.stored.dtype == np.uint16 else 255
    wanted = np.rint(picture.stored + change * (top / 255)).clip(0, top)
    assert (decode(encode(picture, edited).data).stored == wanted).all()


def test_names_of_pictures():
    assert is_image_name("a/B c.JPEG") and is_image_name("ä.tiff")
    assert not is_image_name("a.json") and not is_image_name("jpg")


def test_resizing_keeps_a_flat_picture_flat():
    assert (resize(np.full((100, 80, 3), 77, np.uint8), 64) == 77).all()


def edited_square(data):
    """The picture's rgb, the file with a square edited, and where no edited pixel is near."""
    picture = decode(data)
    edited = picture.rgb.astype(np.float32)
    edited[48:64, 48:64] = (200, 60, 90)
    far = np.ones(picture.rgb.shape[:2], bool)
    far[28:84, 28:84] = False
    return picture.rgb.astype(int), encode(picture, edited).data, far


@pytest.mark.parametrize("factor", ["IMWRITE_JPEG_SAMPLING_FACTOR_411", "IMWRITE_JPEG_SAMPLING_FACTOR_440"])
def test_untouched_blocks_of_a_jpeg_of_unusual_chroma_sampling_stay(factor):
    flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, factor), cv2.IMWRITE_JPEG_QUALITY, 80]
    data = cv2.imencode(".jpg", COLOUR[..., ::-1], flags)[1].tobytes()
    before, again, far = edited_square(data)
    after = decode(again).rgb.astype(int)
    assert (after[far] == before[far]).all() and np.abs(after[52:60, 52:60] - (200, 60, 90)).max() <= 8
    old, new = ([layer[1:3] for layer in Image.open(io.BytesIO(d)).layer] for d in (data, again))
    assert old == new


def test_a_jpeg_that_stores_red_green_and_blue_keeps_its_colours():
    data = saved(Image.fromarray(COLOUR), "JPEG", quality=80, keep_rgb=True)
    before, again, far = edited_square(data)
    after = decode(again).rgb.astype(int)
    assert (after[far] == before[far]).all()
    assert np.abs(after[52:60, 52:60] - (200, 60, 90)).max() <= 8


def test_a_jpeg_keeps_comment_xmp_and_any_number_of_metadata_segments():
    data = saved(
        Image.fromarray(COLOUR),
        "JPEG",
        comment=b"hello",
        xmp=b"<x:xmpmeta/>",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0",
    )
    many = b"".join(b"\xff\xed" + struct.pack(">H", 1002) + bytes([i]) * 1000 for i in range(80))
    before, again, far = edited_square(data[:2] + many + data[2:])
    assert (decode(again).rgb.astype(int)[far] == before[far]).all()
    assert many in again
    info = Image.open(io.BytesIO(again)).info
    assert info["comment"] == b"hello" and info["xmp"] == b"<x:xmpmeta/>"


THREADS = """
import io, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from PIL import Image
from pipeline.io.jpeg import keep_untouched_blocks

def jpeg(side, marker_bytes):
    buffer = io.BytesIO()
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", exif=b"Exif" + bytes(marker_bytes))
    return buffer.getvalue()

sizes = ((40, 60_000), (100, 10), (160, 30_000), (220, 900))
jobs = [(jpeg(side, size), np.eye(side, dtype=bool)) for side, size in sizes]
alone = [keep_untouched_blocks(data, data, touched) for data, touched in jobs]
with ThreadPoolExecutor(8) as pool:
    together = list(pool.map(lambda i: keep_untouched_blocks(jobs[i % 4][0], *jobs[i % 4]), range(160)))
sys.exit(together != alone * 40)
"""


def test_jpegs_are_finished_right_by_many_threads_at_once():
    # in a process of its own, because what this guards against is the end of the process
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True, "icc_profile": SRGB * 9}])
def test_untouched_pixels_of_a_webp_come_back_bit_equal(options):
    before, again, far = edited_square(saved(Image.fromarray(COLOUR), "WEBP", **options))
    assert (decode(again).rgb[far] == before[far]).all()


def test_a_tiff_keeps_its_descriptive_tags():
    data = saved(Image.fromarray(COLOUR), "TIFF", tiffinfo={271: "Maker", 315: "Somebody"})
    tags = Image.open(io.BytesIO(edited_square(data)[1])).tag_v2
    assert tags[271] == "Maker" and tags[315] == "Somebody"


def test_the_transparent_colour_of_a_picture_of_few_bits_stays_that_colour():
    rows = b"".join(b"\0" + bytes(range(64)) for _ in range(64))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 256, 64, 2, 0, 0, 0, 0)),
        (b"tRNS", b"\0\2"),
        (b"IDAT", zlib.compress(rows)),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*chunks, (b"IEND", b"")]
    )
    assert Image.open(io.BytesIO(edited_square(data)[1])).info["transparency"] == 2 * 85


@pytest.mark.parametrize("kind", [*LOSSLESS, "jpeg"])
def test_damaged_bytes_raise_nothing_but_image_errors_and_warn_of_nothing(kind):
    data = LOSSLESS.get(kind, JPEG)
    rng = random.Random(0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # as a library or a test runner may ask for after ours was set
        for _ in range(60):
            damaged = bytearray(data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data)
            for _ in range(rng.choice((1, 4, 20))):
                damaged[rng.randrange(min(len(damaged), rng.choice((80, 600, len(damaged)))))] = (
                    rng.randrange(256)
                )
            try:
                picture = decode(bytes(damaged))
            except ImageError:
                continue
            edited = picture.rgb.astype(np.float32)
            edited[:1] = 7
            encode(picture, edited)
    assert not said


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_the_quality_of_a_jpeg_follows_from_its_tables(quality):
    assert jpeg_quality(saved(Image.fromarray(COLOUR), "JPEG", quality=quality)) == pytest.approx(
        quality, abs=1
    )


def test_a_file_that_is_no_jpeg_has_no_quality():
    assert jpeg_quality(LOSSLESS["rgb png"]) is None and jpeg_quality(b"no picture") is None
