"""An edited TIFF: the file it was, in which only the strips and tiles with an edited pixel, and their places, are new.

Pages and tags with smaller versions of the picture get the edit, too.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import Array, Picture, SkippedImage
from pipeline.io.tiff_colour import Colour
from pipeline.io.tiff_edit import EditedTiff, shares_bytes
from pipeline.io.tiff_pages import (
    BITS,
    COMPRESSION,
    DEFLATE,
    FILL_ORDER,
    HEIGHT,
    JPEG,
    JPEG_TABLES,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RGB,
    ROWS,
    SAMPLES,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    TILE_COUNTS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    YCBCR,
    Page,
    Segment,
)  # fmt: skip
from pipeline.io.tiff_reduced import renew_pages
from pipeline.io.tiff_segments import decode_segment, encode_samples
from pipeline.io.tiff_thumbnails import renewed_tags

# Of YCbCr: its coefficients, chroma sampling, positions and reference levels.
CHROMA_TAGS = (529, 530, 531, 532)
# Pixels that are edited at once, and of a strip of a page that is laid out anew.
STRIP = 1 << 18


@dataclass(frozen=True, eq=False)
class TiffFile:
    """A TIFF whose picture is in one of its pages; see picture.Original."""

    page: Page

    def to_rgb(self, stored: Array) -> NDArray[np.uint8]:
        samples = stored[..., None] if stored.ndim == 2 else stored
        return Colour(_plain(self.page)).to_rgb(samples)

    def encode(self, picture: Picture, rgb: Any) -> tuple[bytes, str | None]:
        page = self.page
        if page.palette is not None or picture.stored.shape[:2] != (page.height, page.width):
            return _laid_out_anew(picture, page, rgb)
        file, colour = _opened(page), Colour(page)
        some, recoded = file.edit(page, lambda segment: _edited(picture, colour, segment, rgb))
        left = _renew_thumbnails(file, page, picture, rgb) if some else None
        return file.finished(), recoded or left


def _opened(page: Page) -> EditedTiff:
    """The page's file. Raises SkippedImage where the page can not be edited without an effect on others."""
    if shares_bytes(page):
        raise SkippedImage("unsupported TIFF", "its strips or tiles share bytes with other parts of the file")
    return EditedTiff(page.tiff)


def _renew_thumbnails(file: EditedTiff, page: Page, picture: Picture, rgb: Any) -> str | None:
    """Make anew what shows the picture in tags and in pages; which could not be made, None where all could."""
    for place, new in renewed_tags(page, picture, rgb):
        file.replace(place, new)
    return renew_pages(file, page, picture, partial(stored_change, rgb=rgb))


def _plain(page: Page) -> Page:
    """The page as it is laid out anew: a palette's or a JPEG's as RGB, with nothing behind the colours but alpha."""
    indexed, coded = page.palette is not None, page.compression == JPEG
    alpha = () if page.alpha is None else (page.extra[page.alpha - page.colours],)
    return replace(
        page,
        bits=8 if indexed else page.bits,
        samples=3 if indexed else page.colours + len(alpha),
        photometric=RGB if indexed or page.photometric == YCBCR else page.photometric,
        compression=DEFLATE if coded else page.compression,
        planar=False,
        extra=alpha,
    )


def stored_change(picture: Picture, rows: slice, columns: slice, rgb: Any) -> NDArray[np.float32] | None:
    """[h, w, 3] what is added to the picture's own sRGB there, as it is stored; None where that is nothing."""
    box = picture.upright_box(rows, columns)
    part = rgb[box].astype(np.float32, copy=False) if isinstance(rgb, np.ndarray) else rgb.part(*box)
    if part is None:
        return None
    change: NDArray[np.float32] = picture.as_stored(part - picture.rgb[box])
    return change if change.any() else None


def _edited(
    picture: Picture, colour: Colour, segment: Segment, rgb: Any
) -> tuple[Array, NDArray[np.bool_]] | None:
    """Samples of a part of the picture, [h, w, C], and where they are edited, [h, w]; None where nowhere."""
    (top, bottom), (left, right) = ((s.start, s.stop) for s in (segment.rows, segment.columns))
    samples, page = None, colour.page
    touched = np.zeros((bottom - top, right - left), bool)
    if picture.alpha is not None:
        samples = _decoded(page, segment)
        alpha = picture.alpha[segment.rows, segment.columns]
        touched = samples[..., page.alpha] != alpha
    few = max(STRIP // (right - left), 1)
    for first in range(0, bottom - top, few):
        rows = slice(first, min(first + few, bottom - top))
        change = stored_change(picture, slice(top + rows.start, top + rows.stop), segment.columns, rgb)
        if change is not None:
            samples = _decoded(page, segment) if samples is None else samples
            colour.add(samples[rows], change)
            touched[rows] |= change.any(axis=2)
    if samples is None or not touched.any():
        return None
    if picture.alpha is not None:
        samples[..., page.alpha] = alpha
    return samples, touched


def _decoded(page: Page, segment: Segment) -> Array:
    return np.require(decode_segment(page, segment), requirements="W")


def _laid_out_anew(picture: Picture, page: Page, rgb: Any) -> tuple[bytes, str | None]:
    """The file with other samples in this page: a palette's become RGB, or the picture was enlarged.

    The page's directory is written anew at the end; every tag that says nothing of the layout stays.
    """
    if page.samples > page.colours + (page.alpha is not None):
        raise SkippedImage("unsupported TIFF", "the samples behind the colours of a TIFF can not be enlarged")
    target = _plain(page)
    colour, file = Colour(target), _opened(page)
    for place, size in zip(page.offsets.tolist(), page.counts.tolist(), strict=True):
        file.release(place, size)
    every = np.asarray(picture.stored)
    height, width = every.shape[:2]
    high = min(max(STRIP // width, 1), height)
    places, sizes = [], []
    for top in range(0, height, high):
        rows = slice(top, min(top + high, height))
        stored = every[rows]
        samples = np.empty((*stored.shape[:2], target.samples), stored.dtype)
        samples[..., : target.colours] = stored.reshape(*stored.shape[:2], -1)
        if picture.alpha is not None:
            samples[..., -1] = picture.alpha[rows]
        change = stored_change(picture, rows, slice(0, width), rgb)
        if change is not None:
            colour.add(samples, change)
        coded = encode_samples(target, samples)
        places.append(file.put(coded))
        sizes.append(len(coded))
    changes: dict[int, tuple[int, ...] | None] = {
        WIDTH: (width,), HEIGHT: (height,), BITS: (target.bits,) * target.samples, SAMPLES: (target.samples,),
        COMPRESSION: (target.compression,), PHOTOMETRIC: (target.photometric,), PLANAR: (1,),
        ROWS: (high,), STRIP_OFFSETS: tuple(places), STRIP_COUNTS: tuple(sizes),
    }  # fmt: skip
    gone = [TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, PALETTE]
    gone += [JPEG_TABLES, *CHROMA_TAGS, PREDICTOR, FILL_ORDER] if page.compression == JPEG else []
    file.set_directory(page.directory, changes | dict.fromkeys(gone))
    left = _renew_thumbnails(file, page, picture, rgb)
    recoded = "its JPEG strips or tiles are delivered as Deflate" if page.compression == JPEG else left
    return file.finished(), recoded
