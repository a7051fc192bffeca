"""A picture to paste into, stored as float only around its faces."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Rows and columns of a picture.
Box = tuple[slice, slice]


class Canvas:
    """[H, W, 3] float32, 0..255: a picture's rgb with edits inside the given boxes.

    rgb: uint8, the pixels outside of the boxes. replaced: rgb is not the original picture: every pixel counts as
    edited. Used by `images.encode` and the paste functions of faces.geometry.
    """

    def __init__(self, rgb: NDArray[np.uint8], boxes: Iterable[Box], replaced: bool = False) -> None:
        self._rgb, self._replaced = rgb, replaced
        self._edited = [(box, rgb[box].astype(np.float32)) for box in disjoint(boxes)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, 3."""
        return self._rgb.shape

    def __getitem__(self, wanted: Box) -> NDArray[np.float32]:
        """A writable view of the pixels of a box inside one of the given boxes. Raises LookupError for any other."""
        for box, pixels in self._edited:
            if all(w.start >= h.start and w.stop <= h.stop for w, h in zip(wanted, box, strict=True)):
                return pixels[_within(wanted, box)]
        raise LookupError(
            f"expected a box inside one of the canvas, got {wanted}; give it to the constructor"
        )

    def part(self, rows: slice, columns: slice) -> NDArray[np.float32] | None:
        """The pixels of any box, as a copy; None where the original picture is unedited there."""
        wanted = (rows, columns)
        meeting = [(box, pixels) for box, pixels in self._edited if _meet(box, wanted)]
        if not meeting and not self._replaced:
            return None
        copied = self._rgb[wanted].astype(np.float32)
        for box, pixels in meeting:
            shared = (_shared(box[0], rows), _shared(box[1], columns))
            copied[_within(shared, wanted)] = pixels[_within(shared, box)]
        return copied

    def undo(self, where: NDArray[np.bool_]) -> None:
        """Restore the original pixels where `where`, [H, W], is True."""
        for box, pixels in self._edited:
            pixels[where[box]] = self._rgb[box][where[box]]


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
