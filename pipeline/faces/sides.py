"""Which side the crop of a face has: the preset's, or a larger one where the face has detail that only that holds.

A network may serve crops of several sides. One of the preset's side loses what is finer than its pixels; a larger one
shows damage of the same picture wider, in pixels, than the network was trained for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame, crop_scale, warp_crop
from pipeline.faces.sharpness import crispness


@dataclass(frozen=True)
class LargerSide:
    """A side beside the preset's, and the least of a face that has it."""

    # pixels
    side: int
    # pixels of the picture for one of a crop of the preset's side (geometry.crop_scale)
    above_scale: float
    # sharpness.crispness of the crop of this side
    above_crispness: float


@dataclass(frozen=True)
class Cut:
    """The crop of a face."""

    # [S, S, 3] uint8
    crop: NDArray[np.uint8]
    # 2x3, from the picture to the crop
    to_crop: NDArray[np.float64]
    crispness: float

    @property
    def side(self) -> int:
        """S, pixels."""
        return len(self.crop)


def cut_crop(
    picture: NDArray[np.uint8], to_crop: NDArray[np.float64], frame: CropFrame, larger: Sequence[LargerSide]
) -> Cut:
    """The crop of a face from [H, W, 3] uint8: of the last of the larger sides that fits it, else of the frame's.

    to_crop: the 2x3 similarity to a crop of the frame.
    """
    scale = crop_scale(to_crop)
    for one in reversed(larger):
        if scale >= one.above_scale:
            cut = _cut(picture, resized(to_crop, one.side / frame.side), frame.of(one.side))
            if cut.crispness >= one.above_crispness:
                return cut
    return _cut(picture, to_crop, frame)


def resized(to_crop: NDArray[np.float64], times: float) -> NDArray[np.float64]:
    """The 2x3 similarity to a crop of the same region with `times` as many pixels to a side."""
    shift = (times - 1) / 2  # pixel centres
    matrix: NDArray[np.float64] = to_crop * times
    matrix[:, 2] += shift
    return matrix


def _cut(picture: NDArray[np.uint8], to_crop: NDArray[np.float64], frame: CropFrame) -> Cut:
    crop = warp_crop(picture, to_crop, frame.side, frame.resampling)
    return Cut(crop, to_crop, round(crispness(crop), 6))
