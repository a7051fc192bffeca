"""Five landmarks → similarity → crop in a preset's frame, and the inverse: feathered paste into the picture.

Pure array operations: no detector, no files. Coordinates are pixels, x to the right, y down, with pixel
centres at integers (OpenCV's convention).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

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


Edge = Literal["feathered", "sharp", "none"]
# How a crop is sampled: "linear" at the picture's scale; "fine" at twice the crop's side, cubic where that enlarges.
Resampling = Literal["linear", "fine"]
# Largest side at which a crop is sampled before it is averaged; a larger face is shrunk beforehand.
MOST_SAMPLED = 4096


class Pixels(Protocol):
    """[H, W, 3] float32, 0..255: an array, or an object that stores parts of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, 3."""

    def __getitem__(self, box: tuple[slice, slice], /) -> Any:
        """A writable view of the pixels of a box."""


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


def enlarge_crop(to_crop: NDArray[np.floating], times: int) -> NDArray[np.float64]:
    """The 2x3 similarity to the same crop from the picture enlarged by a factor of `times`."""
    shift = (1 / times - 1) / 2  # pixel centres: (x + 0.5) / times - 0.5
    smaller = np.array([[1 / times, 0, shift], [0, 1 / times, shift], [0, 0, 1]])
    matrix: NDArray[np.float64] = np.asarray(to_crop, dtype=np.float64) @ smaller
    return matrix


def covered_box(
    to_picture: NDArray[np.floating], side: int, width: int, height: int
) -> tuple[int, int, int, int]:
    """The pixels that a crop of `side` covers, as x0, y0, x1, y1 (ends excluded), clipped to the picture."""
    corners = np.array([(0, 0), (side - 1, 0), (0, side - 1), (side - 1, side - 1)], dtype=np.float64)
    reached = corners @ to_picture[:, :2].T + to_picture[:, 2]
    x0, y0 = np.floor(reached.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(reached.max(axis=0)).astype(int) + 2
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)
