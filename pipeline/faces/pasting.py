"""Crops pasted into the picture that they were cut from: feathered, as they are or as their change alone.

Pure array operations, as in geometry.py, whose coordinates they share.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import covered_box, crop_scale, inside_picture

Edge = Literal["feathered", "sharp", "none"]


class Pixels(Protocol):
    """[H, W, 3] float32, 0..255: an array, or an object that stores parts of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, 3."""

    def __getitem__(self, box: tuple[slice, slice], /) -> Any:
        """A writable view of the pixels of a box."""


def feather_mask(side: int) -> NDArray[np.float32]:
    """[side, side] float32 weight of the restored crop: 1 inside, falling smoothly to exactly 0 at the border."""
    edge = max(side // 8, 1)
    ramp = np.clip((np.arange(side) + 0.5) / edge, 0, 1)
    ramp = np.minimum(ramp, ramp[::-1])
    smooth = ramp * ramp * (3 - 2 * ramp)
    smooth[0] = smooth[-1] = 0
    mask: NDArray[np.float32] = np.outer(smooth, smooth).astype(np.float32)
    return mask


def detail_weight(scale: float) -> float:
    """Share of the picture's own fine detail that a paste keeps: 0 up to a scale of 1, rising to 1 at a scale of 2.

    A crop smaller than the face lacks its finest detail; there the paste adds the *change* made by the restoration
    instead of covering a sharper picture with an enlarged crop.
    """
    return float(np.clip(scale - 1, 0, 1))


def paste_strength(crispness: float, scale: float) -> float:
    """Share of a restoration that is pasted, from the crop's crispness (metrics.sharpness) and its scale.

    1 for a blurred face of up to three times the crop's side, falling to 0.2 for a face that is sharp already or much
    larger than the crop: it has little to gain and much to lose.
    """
    by_crispness = np.interp(crispness, (0.75, 1.1), (1.0, 0.2))
    by_scale = np.interp(scale, (3.0, 6.0), (1.0, 0.3))
    return round(max(float(by_crispness * by_scale), 0.2), 6)


@dataclass(frozen=True)
class Placing:
    """Where a crop lies in a picture: the box of pixels that it covers, and the transform to it."""

    # ends excluded
    x0: int
    y0: int
    x1: int
    y1: int
    # 2x3, from the crop to the box
    to_box: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the box."""
        return self.x1 - self.x0, self.y1 - self.y0

    @property
    def box(self) -> tuple[slice, slice]:
        """The box's rows and columns."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def back(self, crop: NDArray[np.float32]) -> NDArray[np.float32]:
        """A crop, [S, S, C] float32, warped to the box's pixels."""
        warped: NDArray[np.float32] = cv2.warpAffine(
            crop, self.to_box, self.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.float32, copy=False)
        return warped

    def mask(self, side: int, edge: Edge) -> NDArray[Any]:
        """[H, W, 1] the crop's weight at the box's pixels; [1, 1, 1] of value 1 for edge "none"."""
        if edge == "none":
            return np.ones((1, 1, 1), np.float32)
        weights = feather_mask(side) if edge == "feathered" else np.ones((side, side), np.float32)
        warped: NDArray[Any] = cv2.warpAffine(
            weights, self.to_box, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
        return warped[..., None]


def place_crop(to_crop: NDArray[np.floating], side: int, width: int, height: int) -> Placing | None:
    """Where a crop lies in a picture of this size; None where it covers no pixel of it."""
    to_picture: NDArray[Any] = cv2.invertAffineTransform(np.asarray(to_crop, dtype=np.float64))
    x0, y0, x1, y1 = covered_box(to_picture, side, width, height)
    if x0 >= x1 or y0 >= y1:
        return None
    to_picture[:, 2] -= (x0, y0)
    return Placing(x0, y0, x1, y1, to_picture)


def paste_face(
    picture: Pixels,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    to_crop: NDArray[np.floating],
    keep_detail: float | None = None,
    strength: float = 1.0,
    edge: Edge = "feathered",
) -> None:
    """Blend a restored crop into `picture` ([H, W, 3] float32, 0..255 scale) in place, as in the paper.

    before, after: [S, S, 3] uint8, the crop and its restoration. `keep_detail` in [0, 1]: share of the
    picture's own detail that is kept; None takes `detail_weight` of the crop's scale. `strength` in [0, 1]: share of
    the restoration that is applied. edge: the crop fades out towards its border, or ends sharply; pixels outside are
    not changed. "none": the crop covers the whole picture.
    """
    side = before.shape[0]
    height, width = picture.shape[:2]
    placing = place_crop(to_crop, side, width, height)
    if placing is None:
        return
    keep = detail_weight(crop_scale(to_crop)) if keep_detail is None else keep_detail
    here = picture[placing.box]
    new = placing.back(after.astype(np.float32))
    if keep:
        # in place, as all of these are as large as the face is in the picture
        detail = placing.back(before.astype(np.float32))
        np.subtract(here, detail, out=detail)
        detail *= keep
        new += detail
    np.clip(new, 0, 255, out=new)
    new -= here
    new *= strength * placing.mask(side, edge)
    here += new


def paste_change(
    edited: Pixels,
    picture: NDArray[np.uint8],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    to_crop: NDArray[np.floating],
    strength: float = 1.0,
    edge: Edge = "feathered",
) -> None:
    """Blend `picture` and the change of a crop into `edited`, both [H, W, 3], 0..255 scale, in place.

    A single face gives picture + mask * (after - before): detail finer than the crop's pixels is kept, and an unchanged
    crop changes nothing. Where faces overlap, the one pasted later covers the other. Crop pixels beyond the picture's
    border are mirrored content and are ignored. before, after, strength, edge: as for `paste_face`.
    """
    change = change_inside(before, after, to_crop, picture.shape)
    if change is not None:
        add_change(edited, picture, change, to_crop, strength, edge)


def change_inside(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    to_crop: NDArray[np.floating],
    size: tuple[int, ...],
) -> NDArray[np.float32] | None:
    """[S, S, 3] float32, what a crop's restoration adds, for `add_change`; None where the crop misses the picture.

    size: the picture's height and width. Crop pixels beyond its border take the value of the nearest one inside.
    """
    inside = inside_picture(to_crop, before.shape[0], size[1], size[0])
    if not inside.any():
        return None
    change = after.astype(np.float32) - before
    if not inside.all():
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        change = change[tuple(nearest)]
    return change


def add_change(
    edited: Pixels,
    picture: NDArray[np.uint8],
    change: NDArray[np.float32],
    to_crop: NDArray[np.floating],
    strength: float = 1.0,
    edge: Edge = "feathered",
) -> None:
    """`paste_change` with the change of a crop as `change_inside` gives it, in place."""
    side = change.shape[0]
    placing = place_crop(to_crop, side, picture.shape[1], picture.shape[0])
    if placing is None:
        return
    here = edited[placing.box]
    new = placing.back(change)
    new *= strength
    new += picture[placing.box]
    new -= here
    new *= placing.mask(side, edge)
    here += new


def put_back(edited: Pixels, picture: NDArray[np.uint8], to_crop: NDArray[np.floating], side: int) -> None:
    """Blend the picture's own pixels into `edited` where a face's crop of `side` lies, feathered, in place.

    Both are [H, W, 3], 0..255 scale.
    """
    placing = place_crop(to_crop, side, edited.shape[1], edited.shape[0])
    if placing is not None:
        here = edited[placing.box]
        here += placing.mask(side, "feathered") * (picture[placing.box] - here)


def leave_untouched(
    edited: Pixels, picture: NDArray[np.uint8], to_crop: NDArray[np.floating], side: int
) -> None:
    """`put_back`, which gives the very pixels of the picture wherever the crop has its whole weight."""
    put_back(edited, picture, to_crop, side)
    placing = place_crop(to_crop, side, edited.shape[1], edited.shape[0])
    if placing is not None:
        whole = placing.mask(side, "feathered")[..., 0] > 1 - 1e-4
        edited[placing.box][whole] = picture[placing.box][whole]
