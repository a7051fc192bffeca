"""Kinds that can not be written back: skipped by name, or PNG and TIFF of the same pixels, profile and metadata."""

import io
import struct
import sys

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from colour_profiles import DISPLAY_P3
from heic_files import heic_file
from PIL import Image, ImageCms
from skimage import data as pictures

from pipeline.io import heic
from pipeline.io import jpegxl as jpegxl_file
from pipeline.io.boxes import boxes
from pipeline.io.convertible import decode_convertible
from pipeline.io.heif_index import with_items
from pipeline.io.images import SkippedImage, decode, decode_rgb, encode, enlarged

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
GREY = np.ascontiguousarray(COLOUR[..., 1])
PICTURE = Image.fromarray(COLOUR)
LUMA = PICTURE.convert("YCbCr")
BOX = (slice(40, 64), slice(48, 80))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">box 7</x:xmpmeta>'
DESCRIPTION, MAKE, ORIENTATION, EXIF, ORIGINAL = 270, 271, 274, 34665, 36867


def exif():
    made = Image.Exif()
    made[MAKE], made[ORIENTATION] = "Leica", 6
    made.get_ifd(EXIF)[ORIGINAL] = "1999:12:31 23:59:59"
    return made.tobytes()


def saved(kind, picture=PICTURE, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def heif(picture=PICTURE, tile=0, **options):
    return heic_file(picture, tile, **options)


def converted(data, into):
    """A picture as it is converted, whether it could be written back or not."""
    return decode_convertible(data, into, lambda *_: None)


def deep_heif(bits):
    samples = (COLOUR.astype(np.uint16) << (bits - 8)) + 1
    made = pillow_heif.from_bytes(f"RGB;{bits}", samples.shape[1::-1], samples.tobytes())
    return heif(made, quality=-1, chroma=444, matrix_coefficients=0), samples


def few_bits(bits):
    buffer = io.BytesIO()
    samples = GREY.astype(np.uint32) * (2**bits - 1) // 255
    kind = np.uint8 if bits < 9 else np.uint16
    tifffile.imwrite(buffer, samples.astype(kind), photometric="minisblack", bitspersample=bits)
    return buffer.getvalue(), samples


def box(name, body):
    return struct.pack(">I", 8 + len(body)) + name + body


def jp2(stream, colour=b"\1\0\0\0\0\0\x10", inner=b"", after=b"", size=COLOUR.shape):
    """A JPEG 2000 file around a codestream."""
    channels = size[2] if len(size) > 2 else 1
    header = box(b"ihdr", struct.pack(">IIHBBBB", size[0], size[1], channels, 7, 7, 0, 0))
    header += box(b"colr", colour) + inner
    header += box(b"res ", box(b"resc", struct.pack(">4H2b", 3000, 254, 3000, 254, 3, 3)))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + after + box(b"jp2c", stream)


def j2k(samples):
    return bytes(imagecodecs.jpeg2k_encode(samples, level=0, reversible=True, codecformat="j2k", mct=False))


def palette_jp2():
    mapped = PICTURE.quantize(64)
    colours = bytes(mapped.getpalette()[:192])
    palette = box(b"pclr", struct.pack(">HB", 64, 3) + b"\7\7\7" + colours)
    mapping = box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, i) for i in range(3)))
    indices = np.asarray(mapped)
    return jp2(j2k(indices), inner=palette + mapping, size=indices.shape), np.asarray(mapped.convert("RGB"))


def luma_jp2():
    luma = PICTURE.convert("YCbCr")
    return jp2(j2k(np.asarray(luma)), b"\1\0\0" + struct.pack(">I", 18)), np.asarray(luma.convert("RGB"))


def cielab(picture=PICTURE):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB", 5000)
    return saved("TIFF", ImageCms.profileToProfile(picture, *profiles, outputMode="LAB"), dpi=(300, 300))


def boxed_jpegxl():
    """A JPEG XL that holds a JPEG, as its box says, with EXIF and XMP."""
    coded = bytes(imagecodecs.jpegxl_encode(COLOUR, lossless=True, usecontainer=True))
    return coded + box(b"jbrd", b"\0") + box(b"Exif", bytes(4) + exif()[6:]) + box(b"xml ", XMP)


# 100x80 pixels, whose middle lies 10 to the right and 5 above that of the picture
APERTURE = box(b"clap", struct.pack(">IIIIiIiI", 100, 1, 80, 1, 10, 1, -5, 1))


def with_properties(data, made, count):
    """A HEIC or AVIF of one item with further properties of it; the coded picture moves."""
    at = data.index(b"ipco") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    own = data[at + 8 : at + size]
    number, place = 0, 0
    while place < len(own):
        number, place = number + 1, place + int.from_bytes(own[place : place + 4], "big")
    links = data.index(b"ipma") - 4
    length = int.from_bytes(data[links : links + 4], "big")
    listed = bytearray(data[links : links + length])
    listed[18] += count
    listed += bytes(0x80 | number + 1 + i for i in range(count))
    listed[:4] = len(listed).to_bytes(4, "big")
    grown = bytearray(data[:at] + box(b"ipco", own + made) + bytes(listed) + data[links + length :])
    more = len(made) + count
    for name in (b"meta", b"iprp"):
        start = grown.index(name) - 4
        grown[start : start + 4] = (int.from_bytes(grown[start : start + 4], "big") + more).to_bytes(4, "big")
    start = data.index(b"mdat") + 4
    where = grown.index(start.to_bytes(4, "big"))
    grown[where : where + 4] = (start + more).to_bytes(4, "big")
    return bytes(grown)


def tiled_avif():
    """An AVIF whose picture is a grid of two tiles, and its pixels."""
    halves = [
        saved("AVIF", PICTURE.crop((x, 0, x + 80, 120)), quality=100, subsampling="4:4:4") for x in (0, 80)
    ]
    coded = [half[half.index(b"mdat") + 4 :] for half in halves]
    links = halves[0].index(b"ipco") - 4
    own = {
        b.name: halves[0][b.start : b.end] for b in boxes(halves[0], links + 8, halves[0].index(b"ipma") - 4)
    }
    whole = box(b"ispe", struct.pack(">III", 0, 160, 120))
    properties = box(b"ipco", whole + own[b"ispe"] + own[b"av1C"] + own[b"pixi"])
    listed = struct.pack(">HB2B", 1, 2, 0x81, 4) + b"".join(
        struct.pack(">HB3B", n, 3, 2, 0x83, 4) for n in (2, 3)
    )
    properties += box(b"ipma", bytes(4) + struct.pack(">I", 3) + listed)
    infos = [
        box(b"infe", b"\2\0\0\0" + struct.pack(">HH", n, 0) + kind + b"\0")
        for n, kind in ((1, b"grid"), (2, b"av01"), (3, b"av01"))
    ]
    start = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
    bodies = [b"\0\0\0\1" + struct.pack(">HH", 160, 120), *coded]

    def index(place):
        items = b""
        for number, body in enumerate(bodies, start=1):
            items += struct.pack(">3H2I", number, 0, 1, place, len(body))
            place += len(body)
        parts = [box(b"hdlr", bytes(8) + b"pict" + bytes(13)), box(b"pitm", bytes(4) + b"\0\1")]
        parts.append(box(b"iloc", bytes(4) + b"\x44\0" + struct.pack(">H", 3) + items))
        parts.append(box(b"iinf", bytes(4) + struct.pack(">H", 3) + b"".join(infos)))
        parts.append(box(b"iref", bytes(4) + box(b"dimg", struct.pack(">4H", 1, 2, 2, 3))))
        return box(b"meta", bytes(4) + b"".join([*parts, box(b"iprp", properties)]))

    data = start + index(len(start) + len(index(0)) + 8) + box(b"mdat", b"".join(bodies))
    return data, np.hstack([np.asarray(Image.open(io.BytesIO(half))) for half in halves])


def thumbnailed_avif():
    """An AVIF whose index names a thumbnail."""
    data = saved("AVIF", quality=100, subsampling="4:4:4")
    named = box(b"iref", bytes(4) + box(b"thmb", struct.pack(">3H", 2, 1, 1)))
    return with_items(data, {}, {}, [named]), np.asarray(Image.open(io.BytesIO(data)))


def bmp_with_more():
    """A BMP of a palette, with something behind its pixels."""
    mapped = PICTURE.quantize(64)
    return saved("BMP", mapped) + bytes(16), np.asarray(mapped.convert("RGB"))


# Kind → its file, and its pixels as 8-bit RGB by a reader that is not ours.
KINDS = {
    "crop of turned HEIC": (with_properties(heif(), box(b"irot", b"\1") + APERTURE, 2), None),
    "fax": (saved("TIFF", PICTURE.convert("1"), compression="group4"), np.asarray(PICTURE.convert("1").convert("RGB"))),
    "2 bits": (few_bits(2)[0], np.repeat(few_bits(2)[1][..., None] * 85, 3, axis=2)),
    "4 bits": (few_bits(4)[0], np.repeat(few_bits(4)[1][..., None] * 17, 3, axis=2)),
    "12 bits": (few_bits(12)[0], np.repeat(GREY[..., None], 3, axis=2)),
    "CIELAB": (cielab(), COLOUR),
    "YCbCr": (saved("TIFF", LUMA, compression="tiff_lzw"), np.asarray(LUMA.convert("RGB"))),
    "WebP in a TIFF": (None, COLOUR),
    "LERC": (None, COLOUR),
    "palette of JPEG 2000": palette_jp2(),
    "luma of JPEG 2000": luma_jp2(),
    "high-throughput": (bytes(imagecodecs.htj2k_encode(COLOUR)), COLOUR),
    "table of places": (jp2(j2k(COLOUR), after=box(b"cidx", b"\0")), COLOUR),
    "tiles of AVIF": tiled_avif(),
    "thumbnail of AVIF": thumbnailed_avif(),
    "BMP that carries more": bmp_with_more(),
    "JPEG in a JPEG XL": (boxed_jpegxl(), COLOUR),
}  # fmt: skip
for name, compression in (("WebP in a TIFF", "webp"), ("LERC", "lerc")):
    held = io.BytesIO()
    tifffile.imwrite(held, COLOUR, photometric="rgb", compression=compression)
    KINDS[name] = (held.getvalue(), COLOUR)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_option_they_are_skipped_and_the_sentence_names_it(kind):
    with pytest.raises(SkippedImage, match="--convert png or --convert tiff"):
        decode(KINDS[kind][0])


@pytest.mark.parametrize("into", ["png", "tiff"])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_that_another_reader_sees_and_only_a_face_changes_them(kind, into):
    data, seen = KINDS[kind]
    if seen is None:
        seen = np.asarray(pillow_heif.open_heif(data))
    picture = decode(data, into=into)
    assert np.abs(picture.rgb.astype(int) - seen).max() <= 2
    assert (decode_rgb(data) == picture.rgb).all()
    rgb = picture.rgb.astype(np.float32)
    rgb[BOX] = 90
    coded = encode(picture, rgb)
    assert coded == encode(picture, rgb) and coded.suffix == {"png": ".png", "tiff": ".tif"}[into]
    again = decode(coded.data)
    outside = np.ones(again.rgb.shape[:2], bool)
    outside[BOX] = False
    assert (np.asarray(again.stored)[outside] == np.asarray(picture.stored)[outside]).all()
    assert np.abs(again.rgb[BOX].astype(int) - 90).max() <= 1
    theirs = tifffile.imread(io.BytesIO(coded.data)) if into == "tiff" else imagecodecs.png_decode(coded.data)
    assert (theirs == np.asarray(again.stored)).all()
    assert Image.open(io.BytesIO(coded.data)).format == {"png": "PNG", "tiff": "TIFF"}[into]


def test_samples_keep_their_depth():
    for bits in (10, 12):
        data, samples = deep_heif(bits)
        stored = converted(data, "png").stored
        assert (stored == np.rint(samples * (65535 / (2**bits - 1)))).all()
    stored = decode(few_bits(12)[0], into="tiff").stored
    assert (stored == np.rint(few_bits(12)[1] * (65535 / 4095))).all()
    assert decode(cielab(), into="png").stored.dtype == np.uint16
    wide = (COLOUR.astype(np.uint16) << 4) + 15
    data = bytes(imagecodecs.jpegxl_encode(wide, bitspersample=12, lossless=True))
    assert (decode(data, into="png").stored == np.rint(wide * (65535 / 4095))).all()


@pytest.mark.parametrize("into", ["png", "tiff"])
@pytest.mark.parametrize("kind", ["HEIC", "JPEG in a JPEG XL"])
def test_exif_and_xmp_come_along_upright(kind, into):
    data = heif(exif=exif(), xmp=XMP) if kind == "HEIC" else KINDS[kind][0]
    picture = converted(data, into)
    image = Image.open(io.BytesIO(encode(picture, picture.rgb.astype(np.float32)).data))
    found = image.getexif()
    assert found[MAKE].strip("\0") == "Leica" and found.get(ORIENTATION, 1) == 1
    assert found.get_ifd(EXIF)[ORIGINAL].startswith("1999:12:31")
    assert (image.info.get("xmp") or image.tag_v2[700]) == XMP


@pytest.mark.parametrize("into", ["png", "tiff"])
def test_profiles_and_codes_of_colours_come_along(into):
    picture = converted(heif(icc_profile=DISPLAY_P3), into)
    image = Image.open(io.BytesIO(encode(picture, picture.rgb.astype(np.float32)).data))
    assert image.info["icc_profile"] == DISPLAY_P3
    # Display P3 by its codes
    coded = converted(heif(color_primaries=12, transfer_characteristics=13), into)
    assert np.abs(coded.rgb.astype(int) - picture.rgb).mean() < 2
    image = Image.open(io.BytesIO(encode(coded, coded.rgb.astype(np.float32)).data))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])).profile
    assert profile.red_primary[1][:2] == pytest.approx((0.68, 0.32), abs=0.01)


def test_hdr_is_named_in_a_png_and_refused_for_a_tiff():
    data = heif(color_primaries=9, transfer_characteristics=16)
    picture = converted(data, "png")
    coded = encode(picture, picture.rgb.astype(np.float32)).data
    assert b"cICP\x09\x10\0\1" in coded and b"iCCP" not in coded
    with pytest.raises(SkippedImage, match="--convert png can"):
        converted(data, "tiff")


@pytest.mark.parametrize("into", ["png", "tiff"])
def test_resolution_and_texts_of_a_tiff_come_along(into):
    data = saved("TIFF", PICTURE.convert("1"), compression="group4", dpi=(300, 400), description="box 7")
    for one in (data, jp2(j2k(COLOUR), after=box(b"cidx", b"\0"))):
        picture = decode(one, into=into)
        image = Image.open(io.BytesIO(encode(picture, picture.rgb.astype(np.float32)).data))
        wanted = (300, 400) if one is data else (300, 300)
        assert image.info["dpi"] == pytest.approx(wanted, abs=0.1)
        assert image.getexif().get(DESCRIPTION) == ("box 7" if one is data else None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_becomes_an_upright_picture(orientation):
    data = saved("TIFF", PICTURE.convert("1"), tiffinfo={ORIENTATION: orientation})
    picture = decode(data, into="tiff")
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    if orientation in turned:
        assert (
            picture.rgb[..., 0] == np.asarray(PICTURE.convert("1").transpose(turned[orientation])) * 255
        ).all()
    again = decode(encode(picture, picture.rgb.astype(np.float32)).data)
    assert again.orientation == 1 and (again.rgb == picture.rgb).all()


def bits_of(*values):
    """Numbers as bits, the lowest first; each with how many bits it has."""
    return [value >> i & 1 for value, count in values for i in range(count)]


def jpegxl(orientation, wide=False):
    """A JPEG XL of COLOUR whose header is written here; wide: its samples are those of Display P3."""
    coded = bytes(imagecodecs.jpegxl_encode(COLOUR, lossless=True, usecontainer=False))
    bits = [byte >> i & 1 for byte in coded[:64] for i in range(8)]
    reader = jpegxl_file._Bits(coded, 16)
    jpegxl_file._size(reader)
    assert not reader.u(2)  # neither all as usual, nor more fields
    start = reader.place
    reader.place = 16
    header = jpegxl_file._header(reader)
    end = reader.place
    # its colours: all as usual, in one bit, or those of sRGB
    colour = header.curve_at - 9 if header.curve_at else end - 1
    # behind it the intent, where colours are written, no extensions, and a transform as usual
    frame = coded[-(-(end + 2 * bool(header.curve_at) + 3) // 8) :]
    p3 = bits_of((0, 1), (0, 1), (0, 2), (1, 2), (2, 2), (9, 4), (0, 1), (2, 2), (11, 4), (1, 2))
    own = bits[colour : end + 2 * bool(header.curve_at)]
    made = bits[: start - 2] + bits_of((0, 1), (1, 1), (orientation - 1, 3), (0, 3)) + bits[start:colour]
    made += (p3 if wide else own) + bits_of((1, 1), (0, 2), (1, 1))
    made += [0] * (-len(made) % 8)
    return bytes(sum(made[i + j] << j for j in range(8)) for i in range(0, len(made), 8)) + frame


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_jpegxl_becomes_an_upright_picture(orientation):
    data = jpegxl(orientation)
    with pytest.raises(SkippedImage, match="an orientation can not be written back; --convert"):
        decode(data)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = saved("PNG", exif=exif)
    assert (decode(data, into="png").rgb == decode_rgb(turned)).all()


def test_colours_of_a_jpegxl_by_their_codes_come_along():
    data = jpegxl(1, wide=True)
    with pytest.raises(SkippedImage, match="colours that are not sRGB's can not be written back; --convert"):
        decode(data)
    picture = decode(data, into="tiff")
    assert (picture.stored == COLOUR).all()
    # whose curve is an exponent
    seen = decode_rgb(saved("PNG", icc_profile=DISPLAY_P3))
    assert np.abs(picture.rgb.astype(int) - seen).mean() < 2 < np.abs(picture.rgb.astype(int) - COLOUR).mean()


def test_an_avif_of_which_only_a_part_is_shown_becomes_that_part():
    data = saved("AVIF", quality=100, subsampling="4:4:4")
    data = with_properties(data, APERTURE + box(b"imir", b"\1"), 2)
    with pytest.raises(SkippedImage, match="--convert"):
        decode(data)
    whole = imagecodecs.avif_decode(data)
    assert (decode(data, into="png").rgb == whole[15:95, 40:140][:, ::-1]).all()


def test_without_the_library_heic_is_skipped_in_one_sentence(monkeypatch):
    data = heif()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for into in ("none", "png"):
        with pytest.raises(SkippedImage, match=r"pip install '\.\[archive\]'"):
            decode(data, into=into)


@pytest.mark.parametrize("into", ["png", "tiff"])
def test_alpha_and_another_size_are_written(into):
    alpha = PICTURE.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
    picture = converted(heif(alpha, quality=-1), into)
    coded = encode(picture, picture.rgb.astype(np.float32)).data
    assert (np.asarray(Image.open(io.BytesIO(coded)))[..., 3] == np.asarray(alpha)[..., 3]).all()
    larger = enlarged(picture, 2)
    assert Image.open(io.BytesIO(encode(larger, larger.rgb.astype(np.float32)).data)).size == (320, 240)


def test_what_can_not_be_decoded_rightly_stays_skipped():
    floats = saved("TIFF", PICTURE.convert("F"))
    for into in ("none", "png"):
        with pytest.raises(SkippedImage, match="floating point"):
            decode(floats, into=into)


def test_a_picture_that_can_be_written_back_is_not_converted():
    picture = decode(saved("TIFF"), into="png")
    assert picture.suffix == "" and encode(picture, picture.rgb.astype(np.float32)).data == saved("TIFF")


def test_the_size_is_checked_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(heic.Heic, "samples", lambda self: 1 / 0)
    monkeypatch.setattr(imagecodecs, "tiff_decode", lambda *_, **__: 1 / 0)
    for kind in ("crop of turned HEIC", "CIELAB", "fax"):
        with pytest.raises(SkippedImage, match="raise --max-pixels"):
            decode(KINDS[kind][0], 7_000, "png")
