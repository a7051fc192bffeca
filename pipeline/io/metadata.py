"""EXIF, XMP and resolution that files of any kind carry, read to be carried over into files of another kind."""

import struct
from contextlib import suppress

import imagecodecs
from PIL import Image

from pipeline.io.boxes import Box, boxes
from pipeline.io.heif_items import item_kinds, item_places
from pipeline.io.picture import ImageError
from pipeline.io.tiff import EXIF, GPS, Tiff
from pipeline.io.tiff_pages import ORIENTATION
from pipeline.io.tiff_xmp import NoPlace
from pipeline.io.xmp_places import find_packet

PREFIX = b"Exif\0\0"
# Of a TIFF's page: description, maker, model, resolution and its unit, software, time, artist, computer, copyright.
DESCRIBING = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
UNIT, X_RESOLUTION, Y_RESOLUTION = 296, 282, 283
# Pixels per unit of 2 or 3, inches and centimetres, → per inch.
INCHES = {2: 1.0, 3: 2.54}
_JP2_EXIF = b"JpgTiffExif->JP2"


def xmp_of(data: bytes) -> bytes:
    """The XMP packet of a file; empty where there is none."""
    with suppress(NoPlace):
        return find_packet(data) or b""
    return b""


def upright_exif(exif: bytes) -> bytes:
    """EXIF that says nothing else than that the picture is upright; all other bytes stay. Damaged EXIF is left out."""
    exif = exif.removeprefix(PREFIX)
    if not exif:
        return b""
    try:
        tiff = Tiff.of(exif)
    except ImageError:
        return b""
    tag = tiff.directories[0].tags.get(ORIENTATION)
    if tag is None or tag.kind != 3 or not tag.count:
        return exif
    return exif[: tag.place] + tiff.packed(1, 2) + exif[tag.place + 2 :]


def exif_of_heif(data: bytes) -> bytes:
    """The EXIF of a HEIC or AVIF; empty where there is none that lies in one piece."""
    inner = {
        b.name: b for top in boxes(data) if top.name == b"meta" for b in boxes(data, top.body + 4, top.end)
    }
    kinds = item_kinds(data, inner[b"iinf"])
    own = [place for place in item_places(data, inner[b"iloc"]) if kinds.get(place.item) == b"Exif"]
    if len(own) != 1:
        return b""
    return _behind_offset(data[own[0].start : own[0].start + own[0].length])


def exif_of_jpegxl(data: bytes) -> bytes:
    """The EXIF of a JPEG XL, packed or not; empty where there is none."""
    for box in boxes(data) if data[4:8] == b"JXL " else ():
        body = data[box.body : box.end]
        if box.name == b"Exif":
            return _behind_offset(body)
        if box.name == b"brob" and body[:4] == b"Exif":
            return _behind_offset(bytes(imagecodecs.brotli_decode(body[4:])))
    return b""


def exif_of_jpeg2000(data: bytes) -> bytes:
    """The EXIF of a JPEG 2000; empty where there is none."""
    own = (b for b in _jp2_boxes(data) if b.name == b"uuid" and data[b.body : b.body + 16] == _JP2_EXIF)
    return next((data[box.body + 16 : box.end] for box in own), b"")


def dpi_of_jpeg2000(data: bytes) -> tuple[float, float] | None:
    """Pixels per inch, across and down, as it was captured."""
    headers = [b for b in _jp2_boxes(data) if b.name == b"jp2h"]
    inner = [b for header in headers for b in boxes(data, header.body, header.end) if b.name == b"res "]
    for box in (b for around in inner for b in boxes(data, around.body, around.end) if b.name == b"resc"):
        down, by, across, by_too, tens, tens_too = struct.unpack_from(">4H2b", data, box.body)
        if by and by_too:
            return across / by_too * 10**tens_too * 0.0254, down / by * 10**tens * 0.0254
    return None


def exif_of_tiff(data: bytes) -> bytes:
    """What the first page of a TIFF says of the picture, its EXIF and GPS, as EXIF; empty where that is nothing."""
    read, kept = Image.Exif(), Image.Exif()
    read.load(data)
    for tag in DESCRIBING:
        if tag in read:
            kept[tag] = read[tag]
    for tag in (EXIF, GPS):
        if inner := dict(read.get_ifd(tag)):
            kept[tag] = inner
    return kept.tobytes().removeprefix(PREFIX) if len(kept) else b""


def dpi_of_exif(exif: bytes) -> tuple[float, float] | None:
    """Pixels per inch, across and down; None where they are not given."""
    read = Image.Exif()
    read.load(exif)
    times = INCHES.get(read.get(UNIT, 2))
    if times is None or X_RESOLUTION not in read or Y_RESOLUTION not in read:
        return None
    return float(read[X_RESOLUTION]) * times, float(read[Y_RESOLUTION]) * times


def _jp2_boxes(data: bytes) -> list[Box]:
    return list(boxes(data)) if data[4:8] == b"jP  " else []


def _behind_offset(body: bytes) -> bytes:
    """EXIF behind the number of bytes that lie between that number and it."""
    start = 4 + int.from_bytes(body[:4], "big")
    return body[start:].removeprefix(PREFIX)
