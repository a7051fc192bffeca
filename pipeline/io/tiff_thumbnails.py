"""Thumbnails in the tags of a TIFF, Photoshop's and XMP's, that show what was edited: made anew in the old bytes."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import Picture
from pipeline.io.thumbnails import BASE64_IMAGE, START, renewed_block
from pipeline.io.tiff import Tag, Tiff

XMP, PHOTOSHOP, MAKER_NOTE = 700, 34377, 37500
# Longer side at which the picture before and after is compared with a thumbnail.
SIDE = 2048


def renewed_tags(tiff: Tiff, picture: Picture, rgb: Any) -> Iterator[tuple[int, bytes]]:
    """Place and new bytes, as many as the old ones, of tags with thumbnails of the picture.

    rgb: as `encoding.encode`.
    """
    found = [(tag, block) for tag, block in _blocks(tiff) if START in block or BASE64_IMAGE.search(block)]
    if not found:
        return
    before, after = _small(picture, rgb)
    turned = Picture(before, "TIFF", picture.as_stored(before), alpha=None, orientation=picture.orientation)
    for tag, block in found:
        new = renewed_block(block, turned, picture.as_stored(after))
        if new != block:
            yield tag.place, new


def _blocks(tiff: Tiff) -> Iterator[tuple[Tag, bytes]]:
    for directory in tiff.directories:
        for code in (XMP, PHOTOSHOP, MAKER_NOTE):
            block = tiff.bytes_of(directory, code)
            if block:
                yield directory.tags[code], block


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
