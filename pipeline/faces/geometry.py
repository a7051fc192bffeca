"""Five landmarks → similarity → FFHQ crop, and the way back: feathered paste into the picture.

Pure array mathematics: no detector, no files. Coordinates are pixels, x to the right, y down, with pixel
centres at integers (OpenCV's convention).
"""

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform

# Left eye, right eye (as seen in the picture), nose tip, left and right mouth corner of the FFHQ template at 512 px,
# from facexlib's face restoration helper.
FFHQ_TEMPLATE_512: NDArray[np.float64] = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)


Edge = Literal["feathered", "sharp", "none"]


class UnusableLandmarks(ValueError):
    """Landmarks that fix no similarity: they coincide, or are not finite."""


def face_to_crop(landmarks: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """The 2x3 similarity that carries picture coordinates to crop coordinates.

    landmarks: [5, 2] in the template's order. side: crop side S in pixels. The least-squares similarity of
    Umeyama (1991). Raises UnusableLandmarks when the points fix no similarity.
    """
    scale = side / 512
    template = FFHQ_TEMPLATE_512 * scale + (scale - 1) / 2  # pixel centres: (x + 0.5) * scale - 0.5
    points = np.asarray(landmarks, dtype=np.float64)
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() < 1:
        raise UnusableLandmarks(f"five distinct finite landmarks wanted, got {points.round(1).tolist()}")
    fit = SimilarityTransform.from_estimate(points, template)
    if not fit:
        raise UnusableLandmarks(f"no similarity fits the landmarks {points.round(1).tolist()}: {fit}")
    matrix: NDArray[np.float64] = fit.params[:2]
    return matrix


def crop_scale(to_crop: NDArray[np.floating]) -> float:
    """Picture pixels per crop pixel: above 1 the crop is smaller than the face it shows."""
    return float(1 / np.hypot(to_crop[0, 0], to_crop[1, 0]))


def warp_crop(picture: NDArray[np.uint8], to_crop: NDArray[np.floating], side: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 → [side, side, 3] uint8 crop, mirrored beyond the picture's border.

    A face larger than the crop is first sampled at a whole multiple of the side and then averaged, so that
    shrinking does not alias.
    """
    k = min(max(1, int(np.ceil(crop_scale(to_crop)))), max(4096 // side, 1))
    finer = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2]]) @ np.vstack([to_crop, [0, 0, 1]])
    size = (side * k, side * k)
    big = cv2.warpAffine(picture, finer, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    crop = big if k == 1 else cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA)
    return crop.astype(np.uint8, copy=False)


def feather_mask(side: int) -> NDArray[np.float32]:
    """[side, side] float32 weight of the restored crop: 1 inside, a smooth fall to exactly 0 at the border."""
    edge = max(side // 8, 1)
    ramp = np.clip((np.arange(side) + 0.5) / edge, 0, 1)
    ramp = np.minimum(ramp, ramp[::-1])
    smooth = ramp * ramp * (3 - 2 * ramp)
    smooth[0] = smooth[-1] = 0
    mask: NDArray[np.float32] = np.outer(smooth, smooth).astype(np.float32)
    return mask


def detail_weight(scale: float) -> float:
    """How much of the picture's own fine detail a paste keeps, from the crop's scale: 0 up to 1, 1 from 2 on.

    A crop that shows the face smaller than the picture does cannot carry its finest detail; there the paste
    adds the *change* the restoration made instead of laying an enlarged crop over a sharper picture.
    """
    return float(np.clip(scale - 1, 0, 1))


def paste_strength(crispness: float, scale: float) -> float:
    """Share of a restoration that is pasted, from the crop's crispness (metrics.sharpness) and its scale.

    1 for a blurred face of up to three times the crop's side. A face that is sharp already, or much larger than the
    crop, has little to gain and much to lose: there the share falls to 0.2.
    """
    by_crispness = np.interp(crispness, (0.75, 1.1), (1.0, 0.2))
    by_scale = np.interp(scale, (3.0, 6.0), (1.0, 0.3))
    return round(max(float(by_crispness * by_scale), 0.2), 6)


def paste_face(
    picture: NDArray[np.float32],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    to_crop: NDArray[np.floating],
    keep_detail: float | None = None,
    strength: float = 1.0,
    edge: Edge = "feathered",
) -> None:
    """Blend a restored crop into `picture` ([H, W, 3] float32, 0..255 scale) in place.

    before, after: [S, S, 3] uint8, the crop and its restoration. `keep_detail` in [0, 1] fixes the share of
    the picture's own detail that stays; None takes `detail_weight` of the crop's scale. `strength` in [0, 1] is the
    share of the restoration that is taken. edge: the crop fades out within itself, or ends where it ends; pixels
    beyond are not touched. "none": the crop covers the picture whole.
    """
    side = before.shape[0]
    height, width = picture.shape[:2]
    keep = detail_weight(crop_scale(to_crop)) if keep_detail is None else keep_detail
    to_picture: NDArray[Any] = cv2.invertAffineTransform(np.asarray(to_crop, dtype=np.float64))
    x0, y0, x1, y1 = covered_box(to_picture, side, width, height)
    if x0 >= x1 or y0 >= y1:
        return
    local = to_picture.copy()
    local[:, 2] -= (x0, y0)
    size = (x1 - x0, y1 - y0)

    def back(image: NDArray[np.float32]) -> NDArray[np.float32]:
        warped: NDArray[np.float32] = cv2.warpAffine(
            image, local, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.float32, copy=False)
        return warped

    mask: NDArray[Any] = np.ones((1, 1, 1), np.float32)
    if edge != "none":
        weights = feather_mask(side) if edge == "feathered" else np.ones((side, side), np.float32)
        mask = cv2.warpAffine(weights, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[
            ..., None
        ]
    here = picture[y0:y1, x0:x1]
    new = back(after.astype(np.float32))
    if keep:
        new = new + keep * (here - back(before.astype(np.float32)))
    here += strength * mask * (np.clip(new, 0, 255) - here)


def put_back(
    edited: NDArray[np.float32], picture: NDArray[np.uint8], to_crop: NDArray[np.floating], side: int
) -> None:
    """Blend the picture's own pixels into `edited` where a face's crop of `side` lies, feathered, in place.

    Both are [H, W, 3], 0..255 scale.
    """
    height, width = edited.shape[:2]
    to_picture: NDArray[Any] = cv2.invertAffineTransform(np.asarray(to_crop, dtype=np.float64))
    x0, y0, x1, y1 = covered_box(to_picture, side, width, height)
    if x0 >= x1 or y0 >= y1:
        return
    to_picture[:, 2] -= (x0, y0)
    mask = cv2.warpAffine(feather_mask(side), to_picture, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    here = edited[y0:y1, x0:x1]
    here += mask[..., None] * (picture[y0:y1, x0:x1] - here)


def enlarge_crop(to_crop: NDArray[np.floating], times: int) -> NDArray[np.float64]:
    """The 2x3 similarity to the same crop from a picture that is so many times larger in both directions."""
    shift = (1 / times - 1) / 2  # pixel centres: (x + 0.5) / times - 0.5
    smaller = np.array([[1 / times, 0, shift], [0, 1 / times, shift], [0, 0, 1]])
    matrix: NDArray[np.float64] = np.asarray(to_crop, dtype=np.float64) @ smaller
    return matrix


def covered_box(
    to_picture: NDArray[np.floating], side: int, width: int, height: int
) -> tuple[int, int, int, int]:
    """The picture's pixels that a crop of `side` can reach, as x0, y0, x1, y1 (ends excluded), inside the picture."""
    corners = np.array([(0, 0), (side - 1, 0), (0, side - 1), (side - 1, side - 1)], dtype=np.float64)
    reached = corners @ to_picture[:, :2].T + to_picture[:, 2]
    x0, y0 = np.floor(reached.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(reached.max(axis=0)).astype(int) + 2
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)
