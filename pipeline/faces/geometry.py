"""Five landmarks → similarity → crop in a preset's frame.

Pure array operations: no detector, no files. Coordinates are pixels, x to the right, y down, with pixel
centres at integers (OpenCV's convention).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

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


# How a crop is sampled: "linear" at the picture's scale; "fine" at twice the crop's side, cubic where that enlarges.
Resampling = Literal["linear", "fine"]
# Largest side at which a crop is sampled before it is averaged; a larger face is shrunk beforehand.
MOST_SAMPLED = 4096


class UnusableLandmarks(ValueError):
    """Landmarks that determine no similarity: they coincide, or are not finite."""


@dataclass(frozen=True)
class CropFrame:
    """The region around a face that a crop shows, and how it is sampled. The defaults are FFHQ's frame."""

    # pixels
    side: int
    # magnification relative to FFHQ's frame
    zoom: float = 1.0
    # point of FFHQ's frame at the centre of this one, x and y in units of the side
    centre: tuple[float, float] = (0.5, 0.5)
    resampling: Resampling = "linear"

    @classmethod
    def from_table(cls, side: int, table: Mapping[str, Any]) -> "CropFrame":
        """The frame given by a preset's side and its [crop] table."""
        x, y = table.get("centre", (0.5, 0.5))
        return cls(side, **{**table, "centre": (float(x), float(y))})

    def of(self, side: int) -> "CropFrame":
        """The same region in crops of another side, pixels; 0: of this one."""
        return replace(self, side=side) if side else self

    @property
    def is_ffhq(self) -> bool:
        """Whether it shows the region of FFHQ's aligned pictures."""
        return self.zoom == 1.0 and tuple(self.centre) == (0.5, 0.5)

    @property
    def template(self) -> NDArray[np.float64]:
        """[5, 2] the landmarks of FFHQ's template, in pixels of this crop."""
        scale = self.side / 512
        return self.from_ffhq(
            FFHQ_TEMPLATE_512 * scale + (scale - 1) / 2
        )  # pixel centres: (x + 0.5) * scale - 0.5

    def from_ffhq(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of FFHQ's frame of the same side, [..., 2] pixels, in pixels of this one."""
        return np.asarray(points, dtype=np.float64) * self.zoom + self._shift

    def to_ffhq(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of this crop, [..., 2] pixels, in pixels of FFHQ's frame of the same side."""
        return (np.asarray(points, dtype=np.float64) - self._shift) / self.zoom

    def of_ffhq_picture(self, width: int) -> NDArray[np.float64]:
        """The 2x3 similarity from an FFHQ-aligned picture, `width` pixels to a side, to this crop."""
        return self.of_crop(CropFrame(width))

    def of_crop(self, other: "CropFrame") -> NDArray[np.float64]:
        """The 2x3 similarity from a crop of another frame to this crop."""
        ratio = self.side / other.side
        scale = self.zoom * ratio / other.zoom
        x, y = self.zoom * ((ratio - 1) / 2 - other._shift * ratio / other.zoom) + self._shift
        return np.array([[scale, 0, x], [0, scale, y]])

    @property
    def _shift(self) -> NDArray[np.float64]:
        """(u - centre) * zoom + 0.5 in units of the side, as an offset of zoomed pixel coordinates."""
        middle = np.asarray(self.centre, dtype=np.float64) * self.side - 0.5
        return (self.side - 1) / 2 - middle * self.zoom


def face_to_crop(landmarks: NDArray[np.floating], frame: CropFrame) -> NDArray[np.float64]:
    """The 2x3 similarity from picture coordinates to coordinates of a crop of this frame.

    landmarks: [5, 2] in the template's order. The least-squares similarity of Umeyama (1991). Raises
    UnusableLandmarks when the points determine no similarity.
    """
    template = frame.template
    points = np.asarray(landmarks, dtype=np.float64)
    if not are_distinct(points):
        raise UnusableLandmarks(f"expected five distinct finite landmarks, got {points.round(1).tolist()}")
    from skimage.transform import SimilarityTransform

    fit = SimilarityTransform.from_estimate(points, template)
    if not fit:
        raise UnusableLandmarks(f"no similarity fits the landmarks {points.round(1).tolist()}: {fit}")
    matrix: NDArray[np.float64] = fit.params[:2]
    return matrix


@dataclass(frozen=True)
class Fit:
    """How well five landmarks match those of an upright face."""

    # RMS distance from the template after the best similarity, as a fraction of the side of FFHQ's frame
    residual: float
    # rotation of the similarity in degrees, -180..180, clockwise in the picture; about 0 for an upright face
    turn: float


def fit_landmarks(landmarks: NDArray[np.floating]) -> Fit:
    """The fit of five landmarks, [5, 2] in the template's order. Raises UnusableLandmarks as `face_to_crop`."""
    frame = CropFrame(512)
    to_crop = face_to_crop(landmarks, frame)
    residuals = np.asarray(landmarks, dtype=np.float64) @ to_crop[:, :2].T + to_crop[:, 2] - frame.template
    turn = np.degrees(np.arctan2(to_crop[1, 0], to_crop[0, 0]))
    return Fit(float(np.sqrt((residuals**2).sum(axis=1).mean())) / frame.side, float(turn))


def box_to_crop(box: tuple[float, float, float, float], frame: CropFrame) -> NDArray[np.float64]:
    """The upright 2x3 similarity from a picture to a crop of this frame, from a face's box, x0 y0 x1 y1, alone.

    An approximation for faces whose landmarks are unusable. CenterFace's boxes are .56 of FFHQ's frame wide and .68
    high, centred on (.50, .57): medians over 1600 upright faces of LFW and FairFace.
    """
    x0, y0, x1, y1 = box
    scale = 0.68 * frame.side / max((y1 - y0), (x1 - x0), 1.0)
    point = np.array([0.5, 0.57]) * frame.side - 0.5 - scale * np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    matrix: NDArray[np.float64] = np.column_stack([np.eye(2) * scale * frame.zoom, frame.from_ffhq(point)])
    return matrix


def around_box(box: Sequence[float], side: int) -> NDArray[np.float64]:
    """The upright 2x3 similarity from a picture to a crop around a box, x0 y0 x1 y1, which has full weight there."""
    x0, y0, x1, y1 = box
    scale = 0.72 * side / max(y1 - y0, x1 - x0, 1.0)  # `feather_mask` fades over an eighth at each side
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    matrix: NDArray[np.float64] = np.column_stack([np.eye(2) * scale, (side - 1) / 2 - scale * middle])
    return matrix


def are_distinct(landmarks: NDArray[np.floating]) -> bool:
    """Whether landmarks, [5, 2], are finite, and not all within one pixel."""
    return bool(np.isfinite(landmarks).all() and np.ptp(landmarks, axis=0).max() >= 1)


def in_window(to_crop: NDArray[np.floating], x0: int, y0: int) -> NDArray[np.float64]:
    """The 2x3 similarity to the same crop from the part of a picture that begins at x0, y0."""
    moved = np.array(to_crop, dtype=np.float64)
    moved[:, 2] += moved[:, :2] @ (x0, y0)
    return moved


def crop_scale(to_crop: NDArray[np.floating]) -> float:
    """Picture pixels per crop pixel: above 1 the crop is smaller than the face it shows."""
    return float(1 / np.hypot(to_crop[0, 0], to_crop[1, 0]))


def warp_crop(
    picture: NDArray[np.uint8],
    to_crop: NDArray[np.floating],
    side: int,
    resampling: Resampling = "linear",
) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 → [side, side, 3] uint8 crop, mirrored beyond the picture's border.

    A face larger than the crop is first sampled at an integer multiple of the side and then averaged, so that
    shrinking does not alias. "fine" samples at twice the side or more, cubic where that enlarges; a face larger than
    MOST_SAMPLED is shrunk first.
    """
    scale, most = crop_scale(to_crop), max(MOST_SAMPLED // side, 1)
    fine = resampling == "fine"
    if fine and scale > most:
        picture, to_crop = _shrunk(picture, to_crop, int(np.ceil(scale / most)))
        scale = crop_scale(to_crop)
    k = min(max(2 if fine else 1, int(np.ceil(scale))), most)
    finer = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2]]) @ np.vstack([to_crop, [0, 0, 1]])
    flags = cv2.INTER_CUBIC if fine and scale < 1 else cv2.INTER_LINEAR
    big = cv2.warpAffine(picture, finer, (side * k, side * k), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    crop = big if k == 1 else cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA)
    return crop.astype(np.uint8, copy=False)


def _shrunk(
    picture: NDArray[np.uint8], to_crop: NDArray[np.floating], times: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture shrunk by averaging by a factor of `times`, and the similarity from it to the same crop."""
    height, width = picture.shape[:2]
    size = (max(width // times, 1), max(height // times, 1))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    x, y = width / size[0], height / size[1]
    back = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return small, np.asarray(to_crop, dtype=np.float64) @ back


def inside_picture(to_crop: NDArray[np.floating], side: int, width: int, height: int) -> NDArray[np.bool_]:
    """[side, side], True where the centre of a crop's pixel lies inside the picture."""
    to_picture = cv2.invertAffineTransform(np.asarray(to_crop, dtype=np.float64))
    y, x = np.mgrid[:side, :side]
    across, down = (row[0] * x + row[1] * y + row[2] for row in np.asarray(to_picture))
    inside: NDArray[np.bool_] = (
        (across >= -0.5) & (across <= width - 0.5) & (down >= -0.5) & (down <= height - 0.5)
    )
    return inside


def enlarge_crop(to_crop: NDArray[np.floating], times: int) -> NDArray[np.float64]:
    """The 2x3 similarity to the same crop from the picture enlarged by a factor of `times`."""
    return resize_crop(to_crop, times, times)


def resize_crop(to_crop: NDArray[np.floating], across: float, down: float) -> NDArray[np.float64]:
    """The 2x3 matrix to the same crop from the picture resized by these factors of its width and height."""
    x, y = 1 / across, 1 / down
    # pixel centres: (x + 0.5) / across - 0.5
    back = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return np.asarray(np.asarray(to_crop, dtype=np.float64) @ back, np.float64)


def covered_box(
    to_picture: NDArray[np.floating], side: int, width: int, height: int
) -> tuple[int, int, int, int]:
    """The pixels that a crop of `side` covers, as x0, y0, x1, y1 (ends excluded), clipped to the picture."""
    corners = np.array([(0, 0), (side - 1, 0), (0, side - 1), (side - 1, side - 1)], dtype=np.float64)
    reached = corners @ to_picture[:, :2].T + to_picture[:, 2]
    x0, y0 = np.floor(reached.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(reached.max(axis=0)).astype(int) + 2
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)
