"""A picture to paste into, stored as float only around its faces."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import in_window
from pipeline.faces.pasting import Pixels, place_crop

# Rows and columns of a picture.
Box = tuple[slice, slice]


# Changes the pixels of a window of the picture, [h, w, 3] float32, in place: given these, where the window lies, and
# the 2x3 similarity from it to a crop.
Paste = Callable[[Pixels, Box, NDArray[np.float64]], None]
# A box of more pixels holds none of them: they are made anew wherever a part is asked for. One that a face fills would
# take 12 bytes a pixel, and as much again three times over while the face is pasted.
MOST_HELD = 1 << 24


class _Large(NamedTuple):
    """A box whose pixels are not held."""

    box: Box
    # what is done to them, in order, given a window of it
    edits: list[Callable[[NDArray[np.float32], Box], None]]


class Canvas:
    """[H, W, 3] float32, 0..255: a picture's rgb with edits inside the given boxes.

    rgb: uint8, the pixels outside of the boxes. replaced: rgb is not the original picture: every pixel counts as
    edited. Used by `images.encode` and the paste functions of faces.geometry.
    """

    def __init__(self, rgb: NDArray[np.uint8], boxes: Iterable[Box], replaced: bool = False) -> None:
        self._rgb, self._replaced = rgb, replaced
        apart = disjoint(boxes)
        self._edited = [(box, rgb[box].astype(np.float32)) for box in apart if _pixels(box) <= MOST_HELD]
        self._large = [_Large(box, []) for box in apart if _pixels(box) > MOST_HELD]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, 3."""
        return self._rgb.shape

    def __getitem__(self, wanted: Box) -> NDArray[np.float32]:
        """A writable view of the pixels of a box inside one of the given boxes. Raises LookupError for any other."""
        for box, pixels in self._edited:
            if _is_inside(wanted, box):
                return pixels[_within(wanted, box)]
        raise LookupError(
            f"expected a box inside one of the canvas, got {wanted}; give it to the constructor"
        )

    def paste(self, to_crop: NDArray[np.floating], side: int, paste: Paste) -> None:
        """Let `paste` change the pixels that a crop covers, which lie inside one of the given boxes.

        to_crop: the 2x3 similarity from the picture to the crop. In a large box it happens whenever a part is taken.
        """
        placing = place_crop(to_crop, side, self.shape[1], self.shape[0])
        if placing is None:
            return
        for large in self._large:
            if _is_inside(placing.box, large.box):
                large.edits.append(
                    lambda pixels, box: paste(pixels, box, in_window(to_crop, box[1].start, box[0].start))
                )
                return
        whole = (slice(0, self.shape[0]), slice(0, self.shape[1]))
        paste(self, whole, np.asarray(to_crop, dtype=np.float64))

    def part(self, rows: slice, columns: slice) -> NDArray[np.float32] | None:
        """The pixels of any box, as a copy; None where the original picture is unedited there."""
        wanted = (rows, columns)
        meeting = [(box, pixels) for box, pixels in self._edited if _meet(box, wanted)]
        large = [one for one in self._large if _meet(one.box, wanted)]
        if not meeting and not large and not self._replaced:
            return None
        copied = self._rgb[wanted].astype(np.float32)
        for box, pixels in meeting:
            shared = (_shared(box[0], rows), _shared(box[1], columns))
            copied[_within(shared, wanted)] = pixels[_within(shared, box)]
        for box, edits in large:
            shared = (_shared(box[0], rows), _shared(box[1], columns))
            for edit in edits:
                edit(copied[_within(shared, wanted)], shared)
        return copied

    def undo(self, where: NDArray[np.bool_]) -> None:
        """Restore the original pixels where `where`, [H, W], is True."""
        for box, pixels in self._edited:
            pixels[where[box]] = self._rgb[box][where[box]]
        for large in self._large:
            large.edits.append(partial(_undo, self._rgb, where))


def _undo(rgb: NDArray[np.uint8], where: NDArray[np.bool_], pixels: NDArray[np.float32], box: Box) -> None:
    pixels[where[box]] = rgb[box][where[box]]


def disjoint(boxes: Iterable[Box]) -> list[Box]:
    """Disjoint boxes that cover the given ones: overlapping boxes are merged into their bounding box."""
    merged: list[Box] = []
    for new in boxes:
        box = new
        while meeting := [other for other in merged if _meet(box, other)]:
            merged = [other for other in merged if other not in meeting]
            box = _around([box, *meeting])
        merged.append(box)
    return merged


def _pixels(box: Box) -> int:
    return int((box[0].stop - box[0].start) * (box[1].stop - box[1].start))


def _is_inside(wanted: Box, box: Box) -> bool:
    return all(w.start >= h.start and w.stop <= h.stop for w, h in zip(wanted, box, strict=True))


def _meet(a: Box, b: Box) -> bool:
    return all(x.start < y.stop and y.start < x.stop for x, y in zip(a, b, strict=True))


def _around(boxes: list[Box]) -> Box:
    rows, columns = zip(*boxes, strict=True)
    return _span(rows), _span(columns)


def _span(lines: Iterable[slice]) -> slice:
    lines = list(lines)
    return slice(min(s.start for s in lines), max(s.stop for s in lines))


def _shared(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def _within(inner: Box, outer: Box) -> Box:
    """A box in the coordinates of an enclosing one."""
    rows, columns = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return rows, columns
