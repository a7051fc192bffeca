"""The holes of a picture that its mask names, and the scratches that a network finds where --mask says so.

Both the stage that cuts faces and the one that pastes them ask for them: a mask depends on the picture alone.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.io.images import Picture
from pipeline.io.masks import SCRATCHES, Hole, find_hole
from pipeline.io.units import Address, Unit
from pipeline.io.weights import resolve_mask

# Longest side at which a picture is looked at, pixels; larger ones are shrunk for it.
LONGEST = 1536
# Levels of 255 from which a pixel is a scratch, and that one of its pixels has to reach.
LIKELY, SURE = 115, 178
# Scratches whose bounding box is smaller than this in both directions are dust, highlights or noise: they stay.
LEAST_EXTENT = 6
# Width by which a scratch grows on all sides, for its soft edges; all in pixels of the picture as it is looked at.
GROWTH = 1


def holes_of(choice: str, picture: Picture, address: Address, unit: Unit, max_pixels: int) -> Hole:
    """[H, W] of the upright picture, True in its holes. choice: as --mask. Raises what `find_hole` raises."""
    if choice == SCRATCHES:
        return find_scratches(picture.rgb, load_network())
    return find_hole(choice, picture, address, unit, max_pixels)


@lru_cache(maxsize=1)
def load_network() -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """The network, once per worker process: [H, W, 3] uint8 RGB → [H, W] uint8, 255 for certainty."""
    from pipeline.networks.scratch_net import load_scratch_net

    return load_scratch_net(resolve_mask(SCRATCHES).path)


def find_scratches(
    picture: NDArray[np.uint8], network: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> Hole:
    """[H, W, 3] uint8 RGB → [H, W], True on scratches, cracks and flakes and a little around them.

    A picture of any size costs at most what one of LONGEST x LONGEST pixels does, but for its resizing.
    """
    height, width = picture.shape[:2]
    shrinking = max(height, width) / LONGEST
    seen = picture
    if shrinking > 1:
        size = max(round(width / shrinking), 1), max(round(height / shrinking), 1)
        seen = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    found = _connected(network(seen))
    around = np.ones((2 * GROWTH + 1,) * 2, np.uint8)
    mask = cv2.dilate(found, around)
    if shrinking > 1:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    hole: Hole = mask >= 128
    return hole


def _connected(likelihood: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """255 where likely pixels hang together, reach far enough, and one of them is sure; 0 elsewhere."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((likelihood >= LIKELY).astype(np.uint8))
    kept = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1) >= LEAST_EXTENT
    is_sure = np.zeros(len(boxes), bool)
    is_sure[labels[likelihood >= SURE]] = True
    kept &= is_sure
    kept[0] = False  # what lies around
    found: NDArray[np.uint8] = np.where(kept, np.uint8(255), np.uint8(0))[labels]
    return found
