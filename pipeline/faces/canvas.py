"""A picture to paste into, of which only the surroundings of its faces are held as floating point numbers."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Rows and columns of a picture.
Box = tuple[slice, slice]


class Canvas:
    """[H, W, 3] float32, 0..255: a picture's rgb with edits inside the given boxes.

    rgb: uint8, what lies outside of the boxes. anew: it is not the picture's own, so that every pixel counts as edited.
    Serves `images.encode`, and the pasting functions of faces.geometry.
    """

    def __init__(self, rgb: NDArray[np.uint8], boxes: Iterable[Box], anew: bool = False) -> None:
        self._rgb, self._anew = rgb, anew
        self._held = [(box, rgb[box].astype(np.float32)) for box in disjoint(boxes)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, 3."""
        return self._rgb.shape

    def __getitem__(self, wanted: Box) -> NDArray[np.float32]:
        """The pixels of a box that lies in one of those given, to read and to write. Raises LookupError elsewhere."""
        for box, pixels in self._held:
            if all(w.start >= h.start and w.stop <= h.stop for w, h in zip(wanted, box, strict=True)):
                return pixels[_within(wanted, box)]
        raise LookupError(f"a box inside one of the canvas was wanted, got {wanted}; give it when making one")

    def part(self, rows: slice, columns: slice) -> NDArray[np.float32] | None:
        """The pixels of any box, as a copy; None where it is the picture's own and meets none of those given."""
        wanted = (rows, columns)
        meeting = [(box, pixels) for box, pixels in self._held if _meet(box, wanted)]
        if not meeting and not self._anew:
            return None
        copied = self._rgb[wanted].astype(np.float32)
        for box, pixels in meeting:
            shared = (_shared(box[0], rows), _shared(box[1], columns))
            copied[_within(shared, wanted)] = pixels[_within(shared, box)]
        return copied

    def undo(self, where: NDArray[np.bool_]) -> None:
        """Take the edits back where `where`, [H, W], is True."""
        for box, pixels in self._held:
            pixels[where[box]] = self._rgb[box][where[box]]


def disjoint(boxes: Iterable[Box]) -> list[Box]:
    """Boxes that cover the given ones, of which no two share a pixel; those that meet become one around both."""
    apart: list[Box] = []
    for new in boxes:
        box = new
        while meeting := [other for other in apart if _meet(box, other)]:
            apart = [other for other in apart if other not in meeting]
            box = _around([box, *meeting])
        apart.append(box)
    return apart


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
    """A box in the coordinates of one around it."""
    rows, columns = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return rows, columns
