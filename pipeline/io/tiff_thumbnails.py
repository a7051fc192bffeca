"""Thumbnails within a TIFF's tags, and old-style JPEGs of its pages, that show what was edited: in the old bytes."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import ImageError, Picture
from pipeline.io.thumbnails import BASE64_IMAGE, START, renewed_block
from pipeline.io.tiff_pages import Page

XMP, PHOTOSHOP, MAKER_NOTE = 700, 34377, 37500
# Place and size of a page that is a JPEG of the old style, as the thumbnail of EXIF is.
OLD_JPEG, OLD_JPEG_SIZE = 513, 514
# Longer side at which the picture before and after is compared with a thumbnail.
SIDE = 2048


def renewed_tags(page: Page, picture: Picture, rgb: Any) -> Iterator[tuple[int, bytes]]:
    """Place and new bytes, as many as the old ones, of blocks of a file with thumbnails of the picture in `page`.

    rgb: as `encoding.encode`.
    """
    found = [(place, block) for place, block in _blocks(page) if START in block or BASE64_IMAGE.search(block)]
    if not found:
        return
    before, after = _small(picture, rgb)
    turned = Picture(before, "TIFF", picture.as_stored(before), alpha=None, orientation=picture.orientation)
    for place, block in found:
        new = renewed_block(block, turned, picture.as_stored(after))
        if new != block:
            yield place, new


def _blocks(page: Page) -> Iterator[tuple[int, bytes]]:
    tiff = page.tiff
    for directory in tiff.directories:
        for code in (XMP, PHOTOSHOP, MAKER_NOTE):
            block = tiff.bytes_of(directory, code)
            if block:
                yield directory.tags[code].place, block
        if directory.place != page.directory.place and OLD_JPEG in directory.tags:
            with suppress(ImageError):
                place, size = tiff.value(directory, OLD_JPEG, 0), tiff.value(directory, OLD_JPEG_SIZE, 0)
                yield place, tiff.data[place : place + size]


def _small(picture: Picture, rgb: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """[h, w, 3] uint8 upright of the picture, and of the edited one; at most SIDE."""
    height, width = picture.rgb.shape[:2]
    times = -(-max(height, width) // SIDE)
    size = (-(-height // times), -(-width // times))
    before, after = (np.empty((*size, 3), np.uint8) for _ in range(2))
    for row in range(0, size[0], 16):
        few = slice(row, min(row + 16, size[0]))
        rows, columns = slice(few.start * times, min(few.stop * times, height)), slice(0, width)
        shape = (size[1], few.stop - few.start)
        before[few] = cv2.resize(picture.rgb[rows], shape, interpolation=cv2.INTER_AREA)
        part = rgb[rows] if isinstance(rgb, np.ndarray) else rgb.part(rows, columns)
        if part is None:
            after[few] = before[few]
        else:
            shrunk = cv2.resize(part.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
            after[few] = np.rint(shrunk).clip(0, 255)
    return before, after
