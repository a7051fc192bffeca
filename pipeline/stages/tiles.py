"""Pictures of faces for people: a face as it came and as it was delivered, side by side, and what was tried with it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame, enlarge_crop, warp_crop
from pipeline.io import images
from pipeline.records.rows import FaceRecord

Pixels = NDArray[np.uint8]

# A tile of the review page shows so many times more of the picture than a crop does, at the picture's own size within
# these bounds, in pixels.
AROUND = 1.5
LEAST_SIDE, MOST_SIDE = 96, 640
QUALITY = 90


def tile_matrix(
    affine: Sequence[float], frame: CropFrame, side: int, around: float = AROUND
) -> NDArray[np.float64]:
    """The 2x3 similarity from the picture to a square tile around a crop's middle.

    affine: from the picture to the crop, row by row. around: by how much the tile shows more than the crop.
    """
    scale = side / (frame.side * around)
    middle, shift = (frame.side - 1) / 2, (side - 1) / 2
    to_tile = np.array([[scale, 0, shift - scale * middle], [0, scale, shift - scale * middle]])
    matrix: NDArray[np.float64] = to_tile @ np.vstack([np.array(affine).reshape(2, 3), [0, 0, 1]])
    return matrix


def cut_pair(
    before: Pixels, delivered: Pixels, matrix: NDArray[np.float64], side: int
) -> tuple[Pixels, Pixels]:
    """The tile of a picture as it came and as it was delivered, [side, side, 3] each.

    before, delivered: [H, W, 3] uint8 RGB. What is delivered may be larger than the picture; one of another shape is a
    face that was enlarged by itself.
    """
    times = delivered.shape[0] // before.shape[0]
    tile = warp_crop(before, matrix, side, "fine")
    if times and delivered.shape[:2] == (before.shape[0] * times, before.shape[1] * times):
        return tile, warp_crop(delivered, enlarge_crop(matrix, times), side, "fine")
    return tile, images.resize(delivered, side)


def tile_side(scale: float, frame: CropFrame) -> int:
    """Pixels of a review tile's side. scale: picture pixels per crop pixel."""
    return int(np.clip(round(frame.side * scale * AROUND), LEAST_SIDE, MOST_SIDE))


def review_tile(before: Pixels, delivered: Pixels, face: FaceRecord, frame: CropFrame) -> bytes:
    """JPEG of two tiles side by side: the face with what is around it, as it came and as it was delivered."""
    frame = frame.of(face.side)
    side = tile_side(face.scale, frame)
    pair = cut_pair(before, delivered, tile_matrix(face.affine, frame, side), side)
    return images.encode_jpeg(np.concatenate(pair, axis=1), QUALITY)


def review_panels(crops: Sequence[Pixels]) -> bytes:
    """JPEG of crops of one side, [S, S, 3] each, side by side."""
    return images.encode_jpeg(np.concatenate(crops, axis=1), QUALITY)


def tile_name(place: int, face: int) -> str:
    """The file of a face's tile below its unit's folder."""
    return f"{place:04d}-{face:02d}.jpg"


def panels_name(place: int, face: int) -> str:
    """The file of what was tried with a face."""
    return f"{place:04d}-{face:02d}-more.jpg"
