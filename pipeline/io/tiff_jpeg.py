"""Strips and tiles of a TIFF that are JPEGs: decoded, and coded again so that untouched blocks stay as they were."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from pipeline.io.jpeg import keep_untouched_blocks
from pipeline.io.picture import Array, ImageError, SkippedImage
from pipeline.io.save_options import jpeg_options
from pipeline.io.tiff_pages import JPEG_TABLES, YCBCR, Page

_START, _END = b"\xff\xd8", b"\xff\xd9"
_MODES = {1: "L", 3: "RGB"}
# Adobe's segment says which colours the three components are; in a TIFF a tag does.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_ADOBE_MARKER = 0xEE
_SCANS = 0xDA
# Bytes of a strip's tables; Huffman and quantisation tables take about a thousand.
_MOST_TABLES = 1 << 16


def decode_jpeg(page: Page, coded: memoryview, size: tuple[int, int]) -> Array:
    """[h, w, 1 or 3] uint8 of one strip or tile. Raises ImageError and SkippedImage."""
    with _opened(_whole(page, coded), page) as image:
        high, wide = size
        # the last strip of some writers is as high as the others
        if image.width != wide or not high <= image.height <= max(page.tile[0], high):
            raise ImageError(
                "truncated", f"a JPEG of {wide}x{high} was wanted in a TIFF, got {image.width}x{image.height}"
            )
        image.load()
        return np.asarray(image).reshape(image.height, image.width, page.channels)[:high]


def encode_jpeg(
    page: Page, coded: memoryview, samples: Array, touched: NDArray[np.bool_]
) -> tuple[bytes, str | None]:
    """A strip or tile with these samples, [h, w, 1 or 3]; why untouched blocks did not stay, None where they did."""
    whole = _whole(page, coded)
    with _opened(whole, page) as before:
        options = jpeg_options(before)
        missing = before.height - len(samples)
    if missing:
        samples, touched = (
            np.pad(samples, ((0, missing), (0, 0), (0, 0)), "edge"),
            np.pad(touched, ((0, missing), (0, 0))),
        )
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(samples[..., 0] if page.channels == 1 else samples))
    image.save(buffer, "JPEG", **options)
    return keep_untouched_blocks(whole, buffer.getvalue(), touched)


def _opened(whole: bytes, page: Page) -> Any:
    image: Any = Image.open(io.BytesIO(whole), formats=("JPEG",))
    if image.mode != _MODES.get(page.channels):
        raise SkippedImage(
            "unsupported TIFF", f"a JPEG of {page.channels} components was wanted in a TIFF, got {image.mode}"
        )
    if page.channels == 3 and get_sampling(image) < 0:
        raise SkippedImage(
            "unsupported TIFF", "the chroma sampling of a JPEG in a TIFF can not be written again"
        )
    return image


def _whole(page: Page, coded: memoryview) -> bytes:
    """A strip or tile as a JPEG that stands for itself: with the page's tables, and with its colours said."""
    tables = page.tiff.bytes_of(page.directory, JPEG_TABLES) or _START
    data = bytes(coded)
    if data[:2] != _START or tables[:2] != _START or len(tables) > _MOST_TABLES:
        raise ImageError("truncated", "a JPEG was wanted in a strip or tile of a TIFF, got other bytes")
    segments = b"" if page.channels == 1 else _ADOBE + bytes([int(page.photometric == YCBCR)])
    return _START + segments + tables[2:].removesuffix(_END) + _without_adobe(data[2:])


def _without_adobe(body: bytes) -> bytes:
    """A JPEG's segments and scans without Adobe's segment, of which a reader takes the last."""
    place = 0
    kept = []
    while body[place : place + 1] == b"\xff" and body[place + 1] != _SCANS:
        length = 2 + int.from_bytes(body[place + 2 : place + 4], "big")
        if body[place + 1] != _ADOBE_MARKER:
            kept.append(body[place : place + length])
        place += max(length, 2)
    return b"".join(kept) + body[place:]
