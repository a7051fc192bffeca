"""Multi-scale detection: the whole picture is searched, then tiles of it at finer scales."""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.faces.detect import (
    SEARCH_SIDE,
    Detector,
    Face,
    Selection,
    box_area,
    box_size,
    distinct,
    shared_area,
)

Pixels = NDArray[np.uint8]

# Shorter side of the smallest box that is detected reliably, pixels of the searched image. CenterFace detects all of
# 135 LFW portraits shrunk to 16 px, 88 % at 14, 79 % at 12, 36 % at 10, and none at 8, at its default threshold.
DETECTABLE = 16.0
# Longer side of a tile, a multiple of the 32 that CenterFace rounds to.
TILE_SIDE, ROUNDED_TO = 1024, 32
# Largest scale factor between two levels of tiles: the tiles' overlap grows with it.
MOST_FINER = 6.0
# Minimum distance of a face from the inner borders of its tile, as a fraction of its box: nearer, it may be cut off.
CLEARANCE = 0.1
# Of two boxes of different levels that share more than this of the smaller one, one is a part of the other.
MOST_CONTAINED = 0.6
# A tile whose values span less than this is flat, and skipped.
LEAST_CONTRAST = 8


def find_faces(detector: Detector, picture: Pixels, selection: Selection) -> list[Face]:
    """The detections in a picture, [H, W, 3] uint8 RGB, in no particular order, possibly with duplicates.

    The picture is searched as a whole and then in tiles at increasing scales until a face of --min-face has DETECTABLE
    pixels. A picture up to SEARCH_SIDE needs no tiles, nor one in which --min-face is that large already. CenterFace
    takes .27 s per megapixel on one core; with the default --min-face of 16 a picture of 12 Mpx takes about 4 s and one
    of 48 Mpx about 18 s, with 32 a quarter of that. Flat tiles are skipped.
    """
    found = detector(picture)
    coarser = min(SEARCH_SIDE / max(picture.shape[:2]), 1.0)
    for scale in tile_scales(picture.shape[0], picture.shape[1], selection.min_face):
        tiled = list(_search_tiles(detector, picture, scale, math.ceil(2 * DETECTABLE * scale / coarser)))
        found, coarser = without_parts(found, distinct(tiled, selection.max_overlap)), scale
    return found


def tile_scales(height: int, width: int, min_face: float) -> list[float]:
    """Scales at which a picture is searched in tiles, the finest last; empty where the whole picture is enough."""
    whole = min(SEARCH_SIDE / max(height, width), 1.0)
    finest = min(DETECTABLE / max(min_face, DETECTABLE), 1.0)
    if whole >= finest:
        return []
    levels = math.ceil(math.log(finest / whole) / math.log(MOST_FINER))
    return [finest if i == levels else whole * (finest / whole) ** (i / levels) for i in range(1, levels + 1)]


def tile_spans(length: int, least_overlap: int) -> list[tuple[int, int]]:
    """Start and end of the tiles along one side of a picture: of equal length, at most TILE_SIDE, evenly spaced."""
    if length <= TILE_SIDE:
        return [(0, length)]
    count = math.ceil((length - least_overlap) / (TILE_SIDE - least_overlap))
    side = math.ceil((length + (count - 1) * least_overlap) / count / ROUNDED_TO) * ROUNDED_TO
    side = min(side, TILE_SIDE)
    begins = [i * (length - side) // (count - 1) for i in range(count)]
    return [(begin, begin + side) for begin in begins]


def _search_tiles(detector: Detector, picture: Pixels, scale: float, least_overlap: int) -> Iterator[Face]:
    """Faces that lie completely inside a tile of the picture at this scale.

    The overlap is twice the shorter side of the largest face that the coarser level can miss, so that each such face
    lies completely in some tile. Larger ones are taken from that level, which shows them better.
    """
    height, width = picture.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    scaled = picture
    if scale < 1:
        scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    for top, bottom in tile_spans(size[1], least_overlap):
        for left, right in tile_spans(size[0], least_overlap):
            tile = scaled[top:bottom, left:right]
            if np.ptp(tile) < LEAST_CONTRAST:
                continue
            borders = (
                left if left > 0 else -np.inf,
                top if top > 0 else -np.inf,
                right if right < size[0] else np.inf,
                bottom if bottom < size[1] else np.inf,
            )
            for face in detector(_rounded_up(tile)):
                moved = _moved(face, left, top, size)
                if max(box_size(moved)) <= least_overlap and _is_clear(moved, borders):
                    yield _scaled(moved, size[0] / width, size[1] / height)


def _rounded_up(tile: Pixels) -> Pixels:
    """The tile padded with black at the right and bottom to multiples of ROUNDED_TO: a detector would stretch it."""
    missing = [-side % ROUNDED_TO for side in tile.shape[:2]]
    return np.ascontiguousarray(np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0))))


def _is_clear(face: Face, borders: tuple[float, float, float, float]) -> bool:
    """Whether a face is clear of its tile's borders, left, top, right, bottom: infinite at the picture's own border."""
    x, y = (CLEARANCE * side for side in box_size(face))
    x0, y0, x1, y1 = face.box
    left, top, right, bottom = borders
    return x0 - x >= left and y0 - y >= top and x1 + x <= right and y1 + y <= bottom


def _moved(face: Face, left: int, top: int, size: tuple[int, int]) -> Face:
    """A face of the tile at (left, top), in the coordinates of the whole picture of width and height `size`."""
    x0, y0, x1, y1 = face.box
    width, height = size
    return Face(
        box=(min(x0 + left, width), min(y0 + top, height), min(x1 + left, width), min(y1 + top, height)),
        landmarks=face.landmarks + np.array([left, top], dtype=np.float32),
        score=face.score,
    )


def _scaled(face: Face, x: float, y: float) -> Face:
    """A face of a picture that was scaled by these factors, in the coordinates of the picture."""
    x0, y0, x1, y1 = face.box
    return Face(
        box=(x0 / x, y0 / y, x1 / x, y1 / y),
        landmarks=np.divide(face.landmarks, np.array([x, y]), dtype=np.float32, casting="same_kind"),
        score=face.score,
    )


def without_parts(coarse: Sequence[Face], fine: Sequence[Face]) -> list[Face]:
    """Faces of two levels, best first, without those that share most of the smaller box with a better one of the other
    level. Faces of one level are not compared.
    """
    every = sorted(
        [*((f, 0) for f in coarse), *((f, 1) for f in fine)], key=lambda e: (-e[0].score, e[1], e[0].box)
    )
    boxes = np.array([f.box for f, _ in every], dtype=np.float64).reshape(-1, 4)
    kept: tuple[list[int], list[int]] = ([], [])
    for i, (_, level) in enumerate(every):
        others = boxes[kept[1 - level]]
        smaller = np.minimum(box_area(boxes[i]), box_area(others))
        if not (shared_area(boxes[i], others) > MOST_CONTAINED * smaller).any():
            kept[level].append(i)
    return [every[i][0] for i in sorted([*kept[0], *kept[1]])]
