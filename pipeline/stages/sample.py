"""A few faces of each unit, side by side, for the run's contact sheet."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import images

Pixels = NDArray[np.uint8]

STRIP_FACES = 12
# pixels: a strip's tiles are never smaller, and never larger
TILE_SMALLEST, TILE_LARGEST = 128, 256


def sample_strip(faces: Sequence[tuple[Pixels, Pixels, Pixels]]) -> bytes:
    """At most twelve faces as a JPEG: a row per face, its before, estimator and restored tiles side by side.

    faces: [S, S, 3] uint8 RGB crops; of more than twelve some are chosen by their content. Tiles are as large as the
    crop, within 128 and 256 px; same faces, same bytes. Raises ValueError when there are none.
    """
    if not faces:
        raise ValueError("a sample strip needs a face, and got none; write no strip for a unit without faces")
    by_hash = sorted(range(len(faces)), key=lambda i: hashlib.sha256(faces[i][0].tobytes()).digest())
    chosen = [faces[i] for i in sorted(by_hash[:STRIP_FACES])]
    side = min(max(TILE_SMALLEST, *(len(tile) for face in chosen for tile in face)), TILE_LARGEST)
    rows = [np.concatenate([images.resize(tile, side) for tile in face], axis=1) for face in chosen]
    return images.encode_jpeg(np.concatenate(rows), quality=92)
