"""A TIFF's page as a picture. Its RGB and alpha are decoded at once, its stored samples where they are asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import UPRIGHT, Array, Picture, SkippedImage, strips
from pipeline.io.tiff import Tiff
from pipeline.io.tiff_colour import Colour
from pipeline.io.tiff_pages import INDEXED, Page, find_page, page_size, read_page
from pipeline.io.tiff_segments import decode_segment
from pipeline.io.tiff_write import TiffFile

# Most strips and tiles of a picture, and samples of one pixel taken together: above it decoding takes minutes.
MOST_SEGMENTS = 4_000_000


class StoredSamples:
    """The colour samples of a page, [H, W] or [H, W, C], as an array whose parts are decoded when they are taken.

    A whole array would be the largest part of what a picture takes: 6 bytes a pixel of 48 bits.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        last = 3 if page.photometric == INDEXED else page.colours
        self.shape: tuple[int, ...] = (
            (page.height, page.width) if last == 1 else (page.height, page.width, last)
        )
        self.dtype = page.dtype
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = self._rows(0, len(self))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, slice) and key.step in (None, 1):
            first, last, _ = key.indices(len(self))
            return self._rows(first, max(first, last))
        part: Array = np.asarray(self)[key]
        return part

    def _rows(self, first: int, last: int) -> Array:
        page = self._page
        taken = np.empty((last - first, *self.shape[1:]), self.dtype)
        for segment in page.segments():
            top, bottom = max(segment.rows.start, first), min(segment.rows.stop, last)
            if top >= bottom:
                continue
            samples = decode_segment(page, segment)[top - segment.rows.start : bottom - segment.rows.start]
            if page.palette is not None:
                samples = page.palette[samples[..., 0]]
            colours = samples[..., 0] if self.ndim == 2 else samples[..., : self.shape[2]]
            taken[top - first : bottom - first, segment.columns] = colours
        return taken


def decode_tiff(data: bytes, check_size: Callable[[int, int], None]) -> Picture:
    """The picture in a TIFF. check_size: is given width and height before anything is decoded, and may raise.

    Raises ImageError, SkippedImage and whatever a decoder raises.
    """
    tiff = Tiff.of(data)
    directory = find_page(tiff)
    check_size(*page_size(tiff, directory))
    page = read_page(tiff, directory)
    if len(page.offsets) > MOST_SEGMENTS:
        raise SkippedImage(
            "unsupported TIFF", f"a TIFF of {len(page.offsets)} strips or tiles; save it with fewer"
        )
    rgb, alpha = _upright(page)
    return Picture(
        rgb=rgb,
        format="TIFF",
        stored=StoredSamples(page),  # type: ignore[arg-type] # an array to those who take parts of it
        alpha=alpha,
        orientation=page.orientation,
        file=TiffFile(page),
    )


def _upright(page: Page) -> tuple[NDArray[np.uint8], Array | None]:
    """[H, W, 3] upright, and [H, W] alpha as stored."""
    size = (page.height, page.width)
    rgb = np.empty((*(size[::-1] if page.orientation >= 5 else size), 3), np.uint8)
    turned = UPRIGHT[page.orientation][1](rgb)
    alpha = None if page.alpha is None else np.empty(size, page.dtype)
    colour = Colour(page)
    for segment in page.segments():
        box = (segment.rows, segment.columns)
        samples = decode_segment(page, segment)
        for rows in strips(samples):
            turned[box][rows] = colour.to_rgb(samples[rows])
        if alpha is not None:
            alpha[box] = samples[..., page.alpha]
    return rgb, alpha
