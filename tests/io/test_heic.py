"""HEIC: the picture's item is coded anew without loss, all else of the file stays; read by libheif alone."""

import struct

import numpy as np
import pillow_heif
import pytest
from colour_profiles import DISPLAY_P3
from edited_pictures import with_edited_box
from heic_files import heic_file
from PIL import Image
from skimage import data as pictures

from pipeline.io.boxes import boxes
from pipeline.io.heif_items import item_kinds, item_places
from pipeline.io.images import ImageError, SkippedImage, decode, encode, encode_anew, enlarged

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
PICTURE = Image.fromarray(COLOUR)
BOX = (slice(40, 64), slice(48, 80))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">box 7</x:xmpmeta>'
ORIENTATION = 274
HVC1 = b"hvc1"


def heif(picture=PICTURE, tile=0, **options):
    return heic_file(picture, tile, **options)


def turned(orientation):
    picture, exif = PICTURE.copy(), Image.Exif()
    exif[ORIENTATION] = orientation
    picture.info["exif"] = exif.tobytes()
    return picture


def deep(bits):
    samples = COLOUR.astype(np.uint16) << (bits - 8)
    return pillow_heif.from_bytes(f"RGB;{bits}", samples.shape[1::-1], samples.tobytes())


def with_alpha():
    picture = PICTURE.convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


KINDS = {
    "one item": heif(),
    "tiles": heif(tile=64),
    "thumbnail": heif(tile=64, thumbnails=[64]),
    "alpha": heif(with_alpha()),
    "grey": heif(PICTURE.convert("L")),
    "10 bits": heif(deep(10)),
    "12 bits": heif(deep(12)),
    "turned": heif(turned(6)),
    "turned tiles": heif(turned(8), tile=64),
    "mirrored": heif(turned(2)),
    "turned and mirrored": heif(turned(5)),
    # libheif writes odd sizes as crops
    "crop": heif(PICTURE.crop((0, 0, 155, 117)), thumbnails=[63]),
    "turned crop with alpha": heif(turned(6).convert("RGBA").crop((0, 0, 155, 117))),
    "metadata": heif(exif=turned(1).info["exif"], xmp=XMP, icc_profile=DISPLAY_P3),
}


def samples(data):
    opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return np.asarray(opened).astype(int)


def items(data):
    """Type and bytes of each item that lies in the file, but for tiles, by number."""
    meta = next(box for box in boxes(data) if box.name == b"meta")
    inner = {box.name: box for box in boxes(data, meta.body + 4, meta.end)}
    kinds = item_kinds(data, inner[b"iinf"])
    (primary,) = struct.unpack_from(">H", data, inner[b"pitm"].body + 4)
    places = item_places(data, inner[b"iloc"])
    return primary, {p.item: (kinds[p.item], data[p.start : p.start + p.length]) for p in places}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_are_not_edited_stay(kind):
    data = KINDS[kind]
    again = with_edited_box(data, BOX)
    before, after = samples(data), samples(again)
    outside = np.ones(before.shape[:2], bool)
    outside[BOX] = False
    assert before.shape == after.shape and (before[outside] == after[outside]).all()
    if kind == "alpha":
        assert (before[..., 3] == after[..., 3]).all()
    # a profile's table rounds strong colours
    assert np.abs(decode(again).rgb[BOX].astype(int) - 90).max() <= (20 if kind == "metadata" else 1)
    # and once more
    assert (samples(with_edited_box(again, BOX))[outside] == after[outside]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_item_keeps_its_bytes(kind):
    data = KINDS[kind]
    (primary, before), (same, after) = items(data), items(with_edited_box(data, BOX))
    assert same == primary and after[primary][0] == HVC1
    thumbnails = {n for n, (_, body) in before.items() if after[n][1] != body} - {primary}
    assert len(thumbnails) == (kind in ("thumbnail", "crop"))
    assert after.keys() == before.keys() | {primary}


def test_a_thumbnail_shows_the_edit():
    data = KINDS["thumbnail"]
    picture = decode(data)
    again = encode(picture, np.full(picture.rgb.shape, 90, np.float32)).data
    small = np.asarray(opened_thumbnail(again)).astype(int)
    assert small.shape[:2] == np.asarray(opened_thumbnail(data)).shape[:2] and np.abs(small - 90).max() <= 1


def opened_thumbnail(data):
    return pillow_heif.open_heif(data)[0].get_thumbnail(0).to_pillow()


def test_exif_xmp_and_profile_stay():
    data = KINDS["metadata"]
    before, after = (pillow_heif.open_heif(d).info for d in (data, with_edited_box(data, BOX)))
    assert after["icc_profile"] == DISPLAY_P3 and after["xmp"] == XMP
    assert after["exif"] == before["exif"] != b""


def test_colours_by_code_are_seen_and_stay():
    data = heif(color_primaries=12, transfer_characteristics=13)
    seen = decode(data).rgb.astype(int)
    assert np.abs(seen - decode(heif(icc_profile=DISPLAY_P3)).rgb).mean() < 2
    coded = pillow_heif.open_heif(with_edited_box(data, BOX)).info["nclx_profile"]
    assert (coded["color_primaries"], coded["transfer_characteristics"]) == (12, 13)


def test_parts_in_another_file_are_skipped_or_converted():
    data = KINDS["metadata"]
    meta = next(box for box in boxes(data) if box.name == b"meta")
    inner = {box.name: box for box in boxes(data, meta.body + 4, meta.end)}
    kinds = item_kinds(data, inner[b"iinf"])
    place = next(p for p in item_places(data, inner[b"iloc"]) if kinds[p.item] == b"mime")
    at = place.offset_at - 8  # of the data reference, before a base of 4 bytes and the number of extents
    data = data[:at] + b"\0\1" + data[at + 2 :]
    with pytest.raises(SkippedImage, match="another file"):
        decode(data)
    assert decode(data, into="png").suffix == ".png"


def test_a_picture_of_another_size_is_skipped_and_a_new_one_is_written():
    picture = decode(KINDS["one item"])
    larger = enlarged(picture, 2)
    with pytest.raises(SkippedImage, match="another size"):
        encode(larger, larger.rgb.astype(np.float32))
    assert (samples(encode_anew(picture, larger.rgb)) == larger.rgb).all()


def test_damaged_files_are_images_that_can_not_be_read():
    for data in (KINDS["one item"][:600], b"\0\0\0\x18ftypheic" + bytes(200), KINDS["tiles"][:-4000]):
        with pytest.raises(ImageError):
            decode(data)
