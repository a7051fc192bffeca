"""A picture that can not be written back as what it was, as PNG or TIFF: its samples at their depth, and metadata."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from pipeline.io import tiff_pages as tags
from pipeline.io.encoding import Edited, edited_planes
from pipeline.io.formats import CONVERTED, Into
from pipeline.io.icc import Profile
from pipeline.io.picture import Array, Picture, SkippedImage, upright_rgb
from pipeline.io.png import made_chunk

FORMATS: dict[Into, str] = {"png": "PNG", "tiff": "TIFF"}
LEVEL = 6
# Transfer functions that no ICC profile has: PQ and HLG.
HDR = (16, 18)
# Samples in a strip of a TIFF.
STRIP = 1 << 20
EXIF_DIRECTORY, GPS_DIRECTORY, XMP = 34665, 34853, 700
RESOLUTION, PER_INCH = (282, 283), 2
INCH = 0.0254
# Of TIFF's fields, those that are numbers of one kind each.
SHORT, LONG, RATIONAL, UNDEFINED, BYTE = 3, 4, 5, 7, 1


class Metadata(NamedTuple):
    """What is carried over from the file that came."""

    icc: bytes | None = None
    # a TIFF structure without its prefix, of an upright picture; empty for none
    exif: bytes = b""
    xmp: bytes = b""
    # across, down
    dpi: tuple[float, float] | None = None
    # of primaries and transfer (ITU-T H.273), of HDR
    codes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Conversion:
    """The file of a converted picture."""

    into: Into
    metadata: Metadata
    # why the samples are not those that were stored; None where they are
    recoded: str | None

    def encode(self, picture: Picture, rgb: NDArray[np.floating] | Edited) -> tuple[bytes, str | None]:
        """As `Original`."""
        planes = edited_planes(picture, rgb).planes
        write = png_file if self.into == "png" else tiff_file
        return write(np.ascontiguousarray(planes), self.metadata), self.recoded

    def to_rgb(self, stored: Array) -> Array:
        """As `Original`."""
        return stored


def converted_picture(
    samples: Array,
    alpha: Array | None,
    into: Into,
    metadata: Metadata,
    recoded: str | None = None,
    seen: bytes | None = None,
) -> Picture:
    """The picture of upright samples, [H, W] or [H, W, 3] uint8 or uint16, that is written as another kind.

    seen: an ICC profile that the samples are seen through and that is not written. Raises SkippedImage where the other
    kind can not say what the samples stand for.
    """
    if metadata.codes is not None and into == "tiff":
        raise SkippedImage("HDR", "a TIFF can not say that light is coded as PQ or HLG; --convert png can")
    profile = Profile.of(metadata.icc or seen, "L" if samples.ndim == 2 else "RGB")
    return Picture(
        rgb=upright_rgb(samples, 1, profile),
        format=FORMATS[into],
        stored=samples,
        alpha=alpha,
        orientation=1,
        profile=profile,
        file=Conversion(into, metadata, recoded),
        suffix=CONVERTED[into],
    )


def png_file(planes: Array, metadata: Metadata) -> bytes:
    """[H, W] or [H, W, C] uint8 or uint16, alpha last, as PNG."""
    coded = bytes(imagecodecs.png_encode(planes, level=LEVEL))
    head = 8 + 25  # signature and IHDR
    return coded[:head] + b"".join(_png_chunks(metadata)) + coded[head:]


def _png_chunks(metadata: Metadata) -> Iterator[bytes]:
    if metadata.codes is not None:
        yield made_chunk(b"cICP", bytes([*metadata.codes, 0, 1]))
    if metadata.icc is not None:
        yield made_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc, LEVEL))
    if metadata.dpi is not None:
        across, down = (round(per_inch / INCH) for per_inch in metadata.dpi)
        yield made_chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if metadata.exif:
        yield made_chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield made_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)


def tiff_file(planes: Array, metadata: Metadata) -> bytes:
    """[H, W] or [H, W, C] uint8 or uint16, alpha last, as TIFF: strips, Deflate with predictor."""
    samples = planes[..., None] if planes.ndim == 2 else planes
    height, width, count = samples.shape
    colours = 3 if count >= 3 else 1
    rows = max(STRIP // (width * count), 1)
    strips = [_strip(samples[top : top + rows]) for top in range(0, height, rows)]
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    _add_exif(directory, metadata.exif)
    ends = np.cumsum([0, *map(len, strips)])
    fields: dict[int, tuple[int, Any]] = {
        tags.WIDTH: (LONG, width),
        tags.HEIGHT: (LONG, height),
        tags.BITS: (SHORT, (samples.dtype.itemsize * 8,) * count),
        tags.COMPRESSION: (SHORT, tags.DEFLATE),
        tags.PHOTOMETRIC: (SHORT, tags.RGB if colours == 3 else tags.BLACK_IS_ZERO),
        # places behind the directory: the library adds its end
        tags.STRIP_OFFSETS: (LONG, tuple(int(end) for end in ends[:-1])),
        tags.SAMPLES: (SHORT, count),
        tags.ROWS: (LONG, rows),
        tags.STRIP_COUNTS: (LONG, tuple(map(len, strips))),
        tags.PLANAR: (SHORT, 1),
        tags.PREDICTOR: (SHORT, 2),
    }
    if count > colours:
        fields[tags.EXTRA] = (SHORT, 2)
    if metadata.dpi is not None:
        fields |= {tag: (RATIONAL, value) for tag, value in zip(RESOLUTION, metadata.dpi, strict=True)}
        fields[RESOLUTION[1] + 13] = (SHORT, PER_INCH)
    if metadata.icc is not None:
        fields[tags.PROFILE] = (UNDEFINED, metadata.icc)
    if metadata.xmp:
        fields[XMP] = (BYTE, metadata.xmp)
    for tag, (kind, value) in fields.items():
        directory.tagtype[tag] = kind
        directory[tag] = value
    buffer = io.BytesIO()
    directory.save(buffer)
    for strip in strips:
        buffer.write(strip)
    return buffer.getvalue()


def _strip(samples: Array) -> bytes:
    """Rows of samples, in the machine's order, which is the lowest byte first."""
    differences = imagecodecs.delta_encode(np.array(samples), axis=1)
    plain = differences.astype(samples.dtype.newbyteorder("<")).tobytes()
    return bytes(imagecodecs.zlib_encode(plain, level=LEVEL))


def _add_exif(directory: TiffImagePlugin.ImageFileDirectory_v2, exif: bytes) -> None:
    """What a camera wrote, in the directory of a picture; layouts of strips are its own."""
    if not exif:
        return
    read = Image.Exif()
    read.load(exif)
    for tag, value in read.items():
        if tag not in _LAYOUT and tag not in (EXIF_DIRECTORY, GPS_DIRECTORY):
            directory[tag] = value
    for tag in (EXIF_DIRECTORY, GPS_DIRECTORY):
        if inner := dict(read.get_ifd(tag)):
            directory[tag] = inner


# Fields of a directory that say how pixels lie; a camera's EXIF may have those of its thumbnail.
_LAYOUT = frozenset(
    {tags.WIDTH, tags.HEIGHT, tags.BITS, tags.COMPRESSION, tags.PHOTOMETRIC, tags.FILL_ORDER, tags.STRIP_OFFSETS}
    | {tags.SAMPLES, tags.ROWS, tags.STRIP_COUNTS, tags.PLANAR, tags.PREDICTOR, tags.PALETTE, tags.EXTRA}
    | {tags.TILE_WIDTH, tags.TILE_HEIGHT, tags.TILE_OFFSETS, tags.TILE_COUNTS, tags.FORMAT, tags.SUBFILE}
    | {tags.JPEG_TABLES, tags.PROFILE, XMP}
)  # fmt: skip
