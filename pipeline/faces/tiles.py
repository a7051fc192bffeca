"""Faces of any size in a picture of any size: the whole is searched, then tiles of it at finer scales."""

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

# Shorter side of the smallest box that a detector finds for sure, pixels of what it looks at. CenterFace finds all of
# 135 LFW portraits shrunk to 16 px, 88 % at 14, 79 % at 12, 36 % at 10, and none at 8, at its own score floor.
DETECTABLE = 16.0
# Longer side of a tile, a multiple of the 32 that CenterFace rounds to.
TILE_SIDE, ROUNDED_TO = 1024, 32
# How many times finer a level of tiles is than the one before, at most: overlaps grow with it.
MOST_FINER = 6.0
# A face's distance from the inner borders of its tile, as a share of its box: nearer, it may be cut.
CLEARANCE = 0.1
# Two boxes of different levels are one face and a part of it where they share more than this of the smaller box.
MOST_CONTAINED = 0.6
# Below this range of its values a tile shows nothing.
LEAST_CONTRAST = 8


def find_faces(detector: Detector, picture: Pixels, selection: Selection) -> list[Face]:
    """The detections in a picture, [H, W, 3] uint8 RGB, in no particular order, some of them the same face.

    It is searched whole, as the detector does, and then in tiles at ever finer scales until a face of --min-face is as
    large as DETECTABLE. A picture up to SEARCH_SIDE has no tiles, nor one in which --min-face is that large already.
    CenterFace takes .27 s for a million pixels on one core; with the default --min-face of 16 a picture of 12 Mpx
    costs about 4 s and one of 48 Mpx about 18 s, with 32 a quarter of that. Flat tiles cost nothing.
    """
    found = detector(picture)
    coarser = min(SEARCH_SIDE / max(picture.shape[:2]), 1.0)
    for scale in tile_scales(picture.shape[0], picture.shape[1], selection.min_face):
        tiled = list(_search_tiles(detector, picture, scale, math.ceil(2 * DETECTABLE * scale / coarser)))
        found, coarser = without_parts(found, distinct(tiled, selection.max_overlap)), scale
    return found


def tile_scales(height: int, width: int, min_face: float) -> list[float]:
    """Scales at which a picture is searched in tiles, the finest last; none where searching it whole is enough."""
    whole = min(SEARCH_SIDE / max(height, width), 1.0)
    finest = min(DETECTABLE / max(min_face, DETECTABLE), 1.0)
    if whole >= finest:
        return []
    levels = math.ceil(math.log(finest / whole) / math.log(MOST_FINER))
    return [finest if i == levels else whole * (finest / whole) ** (i / levels) for i in range(1, levels + 1)]


def tile_spans(length: int, least_overlap: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles along one side of a picture: of one length, TILE_SIDE at most, evenly spread."""
    if length <= TILE_SIDE:
        return [(0, length)]
    count = math.ceil((length - least_overlap) / (TILE_SIDE - least_overlap))
    side = math.ceil((length + (count - 1) * least_overlap) / count / ROUNDED_TO) * ROUNDED_TO
    side = min(side, TILE_SIDE)
    begins = [i * (length - side) // (count - 1) for i in range(count)]
    return [(begin, begin + side) for begin in begins]


def _search_tiles(detector: Detector, picture: Pixels, scale: float, least_overlap: int) -> Iterator[Face]:
    """Faces found in tiles of the picture at a scale that lie wholly inside their tile.

    The overlap is twice the shorter side of the largest face that the coarser level can miss, so that each such face
    lies wholly in a tile. Larger ones are left to that level, whose view of them is better.
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
    """The tile with black at its right and bottom up to whole multiples: a detector would stretch it to these."""
    missing = [-side % ROUNDED_TO for side in tile.shape[:2]]
    return np.ascontiguousarray(np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0))))


def _is_clear(face: Face, borders: tuple[float, float, float, float]) -> bool:
    """Whether a face keeps clear of its tile's borders, left, top, right, bottom: infinite at the picture's own."""
    x, y = (CLEARANCE * side for side in box_size(face))
    x0, y0, x1, y1 = face.box
    left, top, right, bottom = borders
    return x0 - x >= left and y0 - y >= top and x1 + x <= right and y1 + y <= bottom


def _moved(face: Face, left: int, top: int, size: tuple[int, int]) -> Face:
    """A face of the tile that begins there, in the coordinates of the whole, whose width and height are `size`."""
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
    """Faces of two levels, best first, without those that share most of the smaller box with a better one of the other.

    Two faces of one level stay, however they lie.
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
