"""Kinds of pictures that are decoded and can not be written back: what `--convert` delivers as PNG or TIFF."""

import io
from collections.abc import Callable
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL import Image

from pipeline.io import metadata
from pipeline.io.avif import ORIENTATIONS, is_avif
from pipeline.io.bmp import bmp_profile
from pipeline.io.boxes import Box, boxes
from pipeline.io.cicp import coded_profile
from pipeline.io.converted import HDR, Metadata, converted_picture
from pipeline.io.formats import Into
from pipeline.io.heic import is_heic, open_heic
from pipeline.io.heif_items import item_properties, primary_item
from pipeline.io.jpeg2000 import decode_jpeg2000, is_jpeg2000, jpeg2000_layout
from pipeline.io.jpegxl import CURVES, PRIMARIES, is_jpegxl, jpegxl_header, jpegxl_samples
from pipeline.io.picture import UPRIGHT, Array, Picture, SkippedImage, spread, without_alpha
from pipeline.io.tiff import is_tiff
from pipeline.io.tiff_pages import ORIENTATION
from pipeline.io.tiff_read import read_tiff

# Is given width, height and how often a pixel counts, before anything is decoded, and may raise.
CheckSize = Callable[[int, int, int], None]
# EXIF orientations of pictures that a `imir` property mirrors, by its axis: top and bottom, or left and right.
MIRRORED = (4, 2)


class Colours(NamedTuple):
    """What samples stand for: as it is written, and an ICC profile that they are seen through besides."""

    icc: bytes | None
    codes: tuple[int, int] | None = None
    seen: bytes | None = None

    @classmethod
    def of(cls, icc: bytes | None, codes: tuple[int, int] | None, is_grey: bool) -> "Colours":
        """By a profile, or by codes of primaries and transfer (ITU-T H.273)."""
        if icc is not None or codes is None:
            return cls(icc)
        profile = coded_profile(is_grey, *codes)
        return cls(None, codes, profile) if codes[1] in HDR else cls(profile)


def decode_convertible(data: bytes, into: Into, check_size: CheckSize) -> Picture:
    """A picture that NotWritable was raised for. Raises SkippedImage, and whatever a decoder raises."""
    if is_tiff(data):
        return read_tiff(data, into, check_size)
    if is_jpeg2000(data):
        return _jpeg2000(data, into, check_size)
    if is_jpegxl(data):
        return _jpegxl(data, into, check_size)
    if is_avif(data):
        return _avif(data, into, check_size)
    if is_heic(data):
        return _heic(data, into, check_size)
    return _plain(data, into, check_size)


def _heic(data: bytes, into: Into, check_size: CheckSize) -> Picture:
    opened = open_heic(data)
    check_size(opened.width, opened.height, 1 + (opened.bits > 8))
    if opened.is_premultiplied:
        raise SkippedImage("unsupported HEIC", "colours that are multiplied by alpha can not be converted")
    samples, alpha = without_alpha(opened.samples())
    colours = Colours.of(opened.icc, opened.codes, samples.ndim == 2)
    return _converted(samples, alpha, into, colours, data, metadata.exif_of_heif(data))


def _avif(data: bytes, into: Into, check_size: CheckSize) -> Picture:
    top = {box.name: box for box in boxes(data)}
    inner = {box.name: box for box in boxes(data, top[b"meta"].body + 4, top[b"meta"].end)}
    references = data[inner[b"iref"].body : inner[b"iref"].end] if b"iref" in inner else b""
    if b"prem" in references:
        raise SkippedImage("unsupported AVIF", "colours that are multiplied by alpha can not be converted")
    primary = primary_item(data, inner[b"pitm"])
    own, _ = item_properties(data, inner[b"iprp"], primary)
    by_name = {box.name: data[box.body : box.end] for box in own}
    if {b"lsel", b"a1lx", b"a1op"} & by_name.keys():
        raise SkippedImage("unsupported AVIF", "layers can not be converted")
    width, height = (int.from_bytes(by_name[b"ispe"][i : i + 4], "big") for i in (4, 8))
    bits = max(by_name.get(b"pixi", b"\0\0\0\0\0\10")[5:])
    check_size(width, height, 1 + (bits > 8))
    samples = np.array(imagecodecs.avif_decode(data, numthreads=1))
    if samples.shape[:2] != (height, width):
        raise ValueError("samples of another size than its header says")
    if samples.dtype == np.uint16:
        samples = spread(samples, bits)
    samples = _as_properties_say(samples, own, data)
    colour = [data[box.body : box.end] for box in own if box.name == b"colr"]
    icc = next((body[4:] for body in colour if body[:4] in (b"prof", b"rICC")), None)
    codes = next(((body[5], body[7]) for body in colour if body[:4] == b"nclx"), None)
    samples, alpha = without_alpha(samples)
    colours = Colours.of(icc, codes, samples.ndim == 2)
    return _converted(samples, alpha, into, colours, data, metadata.exif_of_heif(data))


def _as_properties_say(samples: Array, properties: list[Box], data: bytes) -> Array:
    """Samples cropped, turned and mirrored, in the order of the properties that say so."""
    for box in properties:
        body = data[box.body : box.end]
        if box.name == b"clap":
            samples = _cropped(samples, body)
        elif box.name == b"irot":
            samples = UPRIGHT[ORIENTATIONS[body[0] & 3]][0](samples)
        elif box.name == b"imir":
            samples = UPRIGHT[MIRRORED[body[0] & 1]][0](samples)
    return samples


def _cropped(samples: Array, body: bytes) -> Array:
    """The part that a clean aperture shows (ISO/IEC 14496-12): its size, and how far its centre is from the middle."""
    numbers = [int.from_bytes(body[i : i + 4], "big", signed=True) for i in range(0, 32, 4)]
    width, height, across, down = (n / by for n, by in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = (samples.shape[1] - width) / 2 + across, (samples.shape[0] - height) / 2 + down
    if any(n != int(n) or n < 0 for n in (left, top, width, height)):
        raise SkippedImage("unsupported AVIF", "a crop of whole pixels was wanted")
    part = samples[int(top) : int(top + height), int(left) : int(left + width)]
    if part.shape[:2] != (height, width) or not part.size:
        raise ValueError("the crop is not within the picture")
    return part


def _jpeg2000(data: bytes, into: Into, check_size: CheckSize) -> Picture:
    layout = jpeg2000_layout(data, every_kind=True)
    check_size(layout.width, layout.height, 1 + (max(layout.bits) > 8 and len(layout.bits) > 2))
    exif, dpi = metadata.exif_of_jpeg2000(data), metadata.dpi_of_jpeg2000(data)
    if layout.is_direct:
        picture = decode_jpeg2000(data, layout)
        if picture.stored.shape[2:] == (4,):
            raise SkippedImage("unsupported JPEG 2000", "CMYK can not be converted")
        return _converted(picture.stored, picture.alpha, into, Colours(layout.icc), data, exif, dpi)
    with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
        if image.mode not in ("P", "L", "LA", "RGB", "RGBA"):
            raise SkippedImage("unsupported JPEG 2000", f"its {image.mode} samples can not be converted")
        samples = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    return _converted(*without_alpha(samples), into, Colours(layout.icc), data, exif, dpi)


def _jpegxl(data: bytes, into: Into, check_size: CheckSize) -> Picture:
    header = jpegxl_header(data, every_kind=True)
    check_size(header.width, header.height, 1 + (header.bits > 8 and not header.is_grey))
    samples, alpha = jpegxl_samples(data, header)
    codes = (PRIMARIES[header.primaries], CURVES[header.curve])
    colours = Colours.of(None, codes, header.is_grey)
    return _converted(samples, alpha, into, colours, data, metadata.exif_of_jpegxl(data))


def _plain(data: bytes, into: Into, check_size: CheckSize) -> Picture:
    """A JPEG or BMP that carries what could not be kept."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "BMP")) as image:
        check_size(*image.size, 1)
        if image.mode == "CMYK":
            raise SkippedImage("unsupported JPEG", "CMYK can not be converted")
        icc = image.info.get("icc_profile") or (bmp_profile(data) if image.format == "BMP" else None)
        exif, orientation = image.info.get("exif", b""), image.getexif().get(ORIENTATION, 1)
        dpi = image.info.get("dpi")
        samples = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    samples = UPRIGHT.get(orientation, UPRIGHT[1])[0](samples)
    return _converted(samples, None, into, Colours(icc), data, exif, dpi)


def _converted(
    samples: Array,
    alpha: Array | None,
    into: Into,
    colours: Colours,
    data: bytes,
    exif: bytes,
    dpi: tuple[float, float] | None = None,
) -> Picture:
    """The picture with what its file carried."""
    kept = Metadata(
        icc=colours.icc,
        exif=metadata.upright_exif(exif),
        xmp=metadata.xmp_of(data),
        dpi=dpi and (float(dpi[0]), float(dpi[1])),
        codes=colours.codes,
    )
    return converted_picture(samples, alpha, into, kept, seen=colours.seen)
