"""Smaller versions of a TIFF's picture in pages of their own: thumbnails, and the levels of a pyramid.

Those that show the picture get its change, each in its own size, colours and coding. A page is taken for one by what it
shows: a flag (tags 254, 255) or an equal shape only makes it worth looking.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import Array, ImageError, Picture
from pipeline.io.tiff import SUB_DIRECTORIES, Directory
from pipeline.io.tiff_colour import LUMA, Colour
from pipeline.io.tiff_edit import EditedTiff, Samples, shares_bytes
from pipeline.io.tiff_pages import (
    HEIGHT,
    OLD_SUBFILE,
    SUBFILE,
    WIDTH,
    Page,
    Segment,
    page_size,
    read_page,
)
from pipeline.io.tiff_segments import decode_segment
from pipeline.io.tiff_thumbnails import OLD_JPEG

# Bits of NewSubfileType, and the SubfileType, of a reduced copy; of a mask.
REDUCED, OLD_REDUCED, MASK = 1, 2, 4
# The largest mean difference to the picture in levels, and the largest standard deviation of the difference as a share
# of the picture's own: of pages that are flagged as reduced, of others, and where the picture was edited, which may be
# few pixels. Every fourth pixel of a photograph, not averaged, gives .34 and .75; another picture about 1 and more.
FLAGGED, OTHERS, EDITED = (40.0, 0.6), (16.0, 0.4), (40.0, 0.8)
# Standard deviation of a plain area, in levels.
NOISE = 6.0
# What a page's sides may differ from those of the shrunk picture: they are rounded.
ROUNDED = 1.5
# Pixels of the picture that are shrunk at once.
AT_ONCE = 1 << 20

# The change of a picture's stored rows and columns, [h, w, 3] float32; None where there is none.
ChangeOf = Callable[[Picture, slice, slice], NDArray[np.float32] | None]


def renew_pages(file: EditedTiff, main: Page, picture: Picture, change_of: ChangeOf) -> str | None:
    """Give the smaller versions of a picture its change; which of them could not get it, None where all did.

    main: the page with the picture, as it came.
    """
    left = None
    for directory in main.tiff.directories:
        # an old-style JPEG is made anew as thumbnails in tags are
        if directory.place == main.directory.place or OLD_JPEG in directory.tags:
            continue
        if not _may_be_smaller(main, directory):
            continue
        try:
            page = read_page(main.tiff, directory)
            view = _View.of(page, picture, change_of, _is_flagged(main, directory))
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes make decoders raise nearly anything
            if _is_flagged(main, directory):
                left = left or _left(main, directory, " ".join(str(error).split())[:200])
            continue
        if view is None:
            continue
        if page.palette is not None or shares_bytes(page):
            why = "shares bytes with other parts of the file" if page.palette is None else "has a palette"
            left = left or _left(main, directory, f"it {why}")
            continue
        _, recoded = file.edit(page, view.edited)
        left = left or recoded
    return left


def _left(main: Page, directory: Directory, why: str) -> str:
    width, height = page_size(main.tiff, directory)
    return f"its smaller version of {width}x{height} pixels stays as it was: {why}"


def _is_flagged(main: Page, directory: Directory) -> bool:
    """Whether a page says that it is a reduced copy."""
    value = main.tiff.value
    return bool(value(directory, SUBFILE, 0) & REDUCED) or value(directory, OLD_SUBFILE, 1) == OLD_REDUCED


def _may_be_smaller(main: Page, directory: Directory) -> bool:
    """Whether a directory is a page of the picture's shape, turned or not, that is smaller and no mask."""
    if directory.below not in (0, SUB_DIRECTORIES) or not {WIDTH, HEIGHT} <= directory.tags.keys():
        return False
    try:
        width, height = page_size(main.tiff, directory)
        if main.tiff.value(directory, SUBFILE, 0) & MASK:
            return False
        most = 1.0 if _is_flagged(main, directory) else 0.75
    except ImageError:
        return False
    if not 0 < width * height < most**2 * main.width * main.height:
        return False
    return any(_fits(width, height, *size) for size in ((main.width, main.height), (main.height, main.width)))


def _fits(width: int, height: int, whole_width: int, whole_height: int) -> bool:
    """Whether a size is that of a shrunk picture."""
    by_width, by_height = width * whole_height / whole_width, height * whole_width / whole_height
    return abs(by_width - height) <= ROUNDED or abs(by_height - width) <= ROUNDED


@dataclass(frozen=True, eq=False)
class _View:
    """A page as a smaller version of a picture."""

    page: Page
    # turned as the page is: its `stored` has the page's rows and columns, times a factor
    picture: Picture
    change_of: ChangeOf

    @classmethod
    def of(cls, page: Page, picture: Picture, change_of: ChangeOf, flagged: bool) -> "_View | None":
        """The page as a version of the picture; None where it shows another one."""
        # such pages lie as the picture does, or upright
        upright: Any = replace(picture, orientation=1, stored=picture.rgb)
        for turned in (picture, upright) if picture.orientation != 1 else (picture,):
            height, width = turned.stored.shape[:2]
            view = cls(page, turned, change_of)
            if _fits(page.width, page.height, width, height) and view._is_alike(flagged):
                return view
        return None

    def _is_alike(self, flagged: bool) -> bool:
        """Whether the page shows the picture as it was: as a whole, and where it was edited."""
        whole, edited = np.zeros(5), np.zeros(5)
        colour = Colour(self.page)
        for segment in self.page.segments():
            samples = decode_segment(self.page, segment)
            for rows, box in self._parts(segment):
                shown = colour.to_rgb(samples[rows]) @ LUMA
                part = self.picture.rgb[self.picture.upright_box(*box)]
                before = _shrunk(self.picture.as_stored(part), shown.shape) @ LUMA
                whole += _sums(before, shown)
                change = self._change(box, shown.shape)
                if change is not None:
                    where = np.abs(change).max(axis=2) > 1
                    edited += _sums(before[where], shown[where])
        return _alike(whole, *(FLAGGED if flagged else OTHERS)) and _alike(edited, *EDITED)

    def edited(self, segment: Segment) -> Samples | None:
        """Samples of a part of the page with the change, and where they differ; None where nowhere."""
        colour, samples = Colour(self.page), None
        for rows, box in self._parts(segment):
            change = self._change(box, (rows.stop - rows.start, segment.columns.stop - segment.columns.start))
            if change is None:
                continue
            if samples is None:
                before = decode_segment(self.page, segment)
                samples = before.copy()
            colour.add(samples[rows], change)
        if samples is None:
            return None
        touched: NDArray[np.bool_] = (samples != before).any(axis=2)
        return (samples, touched) if touched.any() else None

    def _parts(self, segment: Segment) -> Iterator[tuple[slice, tuple[slice, slice]]]:
        """Rows of a segment, and the rows and columns of the picture that they show."""
        height, width = self.picture.stored.shape[:2]
        columns = _scaled(segment.columns, width / self.page.width, width)
        times = height / self.page.height
        few = max(int(AT_ONCE / (times * (columns.stop - columns.start))), 1)
        high = segment.rows.stop - segment.rows.start
        for first in range(0, high, few):
            rows = slice(first, min(first + few, high))
            top = segment.rows.start
            yield rows, (_scaled(slice(top + rows.start, top + rows.stop), times, height), columns)

    def _change(self, box: tuple[slice, slice], size: tuple[int, ...]) -> NDArray[np.float32] | None:
        """[*size, 3] the change of a part of the picture, shrunk; None where there is none."""
        change = self.change_of(self.picture, *box)
        return None if change is None else _shrunk(change, size)


def _scaled(span: slice, times: float, most: int) -> slice:
    """Rows or columns of the picture that those of a page show."""
    first = min(round(span.start * times), most - 1)
    return slice(first, max(min(round(span.stop * times), most), first + 1))


def _shrunk(samples: Array, size: tuple[int, ...]) -> Array:
    """[*size, 3] means of an array's parts."""
    done: Array = cv2.resize(np.ascontiguousarray(samples), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return done


def _sums(before: Array, shown: Array) -> NDArray[np.float64]:
    """[5] number, sums and sums of squares of levels, which add; for `_alike`."""
    x = before.astype(np.float64)
    d = shown.astype(np.float64) - x
    return np.array([x.size, x.sum(), (x * x).sum(), d.sum(), (d * d).sum()])


def _alike(sums: NDArray[np.float64], shift: float, share: float) -> bool:
    """Whether levels differ by no more than a shift and a share of their standard deviation."""
    number, x, xx, d, dd = sums / max(sums[0], 1)
    if not number:
        return True
    contrast = max(xx - x * x, NOISE**2)
    return bool(abs(d) <= shift and dd - d * d <= share**2 * contrast)
