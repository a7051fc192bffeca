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

# Longest side at which a picture is looked at, pixels, larger ones being shrunk for it; then it is looked at in half
# the size, until its longest side is SHORTEST or less: a wide crack of a large scan is narrow there, as in training.
LONGEST, SHORTEST = 1536, 512
# Levels of 255 from which a pixel is a scratch, and that one of its pixels has to reach.
LIKELY, SURE = 140, 220
# Scratches whose bounding box is smaller than this in both directions are dust, highlights or noise: they stay.
LEAST_EXTENT = 6
# Width by which a scratch grows on all sides, for its soft edges. All in pixels of the picture as it is looked at.
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

    A picture of any size costs at most a third more than one of LONGEST x LONGEST pixels, but for its resizing.
    """
    height, width = picture.shape[:2]
    hole: Hole = np.zeros((height, width), bool)
    around = np.ones((2 * GROWTH + 1,) * 2, np.uint8)
    for longest in _sizes(max(height, width)):
        ratio = longest / max(height, width)
        size = max(round(width * ratio), 1), max(round(height * ratio), 1)
        if size != picture.shape[1::-1]:
            # each size from the one before, which is at most twice as large but for the first
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        found = cv2.dilate(_connected(network(picture)), around)
        hole |= cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) >= 128
    return hole


def _sizes(longest: int) -> list[int]:
    """The longest sides at which a picture with this one is looked at, largest first."""
    sizes = [min(longest, LONGEST)]
    while sizes[-1] > SHORTEST:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


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
