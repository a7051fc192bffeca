"""Rotated faces: recognised by the fit of their landmarks, and detected again in the rotated picture."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.detect import (
    Detector,
    Face,
    Selection,
    box_size,
    by_size,
    distinct,
    overlap,
    shrink_to,
)
from pipeline.faces.geometry import UnusableLandmarks, are_distinct, fit_landmarks, warp_crop
from pipeline.faces.tiles import find_faces

Pixels = NDArray[np.uint8]

# Limits for landmarks of a correctly detected face: rotation in degrees, and residual. Of 1744 upright faces of LFW,
# FairFace and London, profiles included, none is rotated by more than 34.2 degrees (99.5 %: 18.6). The median residual
# is .013, the 97.8th percentile .050; above .060 (24 faces) are only faces cut by the border or seen from behind. A
# portrait rotated by 60 to 180 degrees is detected as rotated by 55 or more, with a residual of .043 to .092: residuals
# alone cannot separate it from a profile.
MOST_TURNED, MOST_MISFIT = 35.0, 0.06
# Stricter residual for a face detected only in the rotated whole picture, and for a tilted one that is not detected in
# its rotated surroundings: .035 is the median at 45 degrees.
GOOD_FIT = 0.035
# Minimum IoU of a face's box before and after rotation.
SAME_PLACE = 0.2
# Side of the rotated surroundings of a face, and longer side of its box in them, pixels.
SURROUNDINGS, FACE_THERE = 384, 128.0
# Longer side at which a picture without faces is searched rotated: half the cost of SEARCH_SIDE.
TURNED_SIDE = 768


def is_usable(face: Face) -> bool:
    """Whether a face's box is finite and its landmarks are distinct."""
    return bool(np.isfinite(face.box).all()) and are_distinct(face.landmarks)


def upright(detector: Detector, picture: Pixels, face: Face) -> Face | str:
    """The face itself where it is upright; else as detected upright, or the reason why it is not restored.

    The surroundings of a rotated face are rotated back by the angle of its landmarks, and by quarter turns where
    nothing is found. An upright face that does not fit is not searched again: it is cut off, or seen from behind.
    """
    try:
        fit = fit_landmarks(face.landmarks)
    except UnusableLandmarks:
        return "its landmarks do not fit a face: they coincide"
    for turns in ([fit.turn], [90.0, 180.0, 270.0]) if abs(fit.turn) > MOST_TURNED else ():
        again = [f for turn in turns for f in _detect_turned(detector, picture, face, turn)]
        if again:
            # landmarks of a face that is still tilted are a little off: rotate by the rest, too
            better = _detect_turned(detector, picture, face, fit_landmarks(_best(again).landmarks).turn)
            return _best([*better] or again)
    if fit.residual <= (MOST_MISFIT if abs(fit.turn) <= MOST_TURNED else GOOD_FIT):
        return face
    return f"its landmarks do not fit a face (residual {fit.residual:.3f}, turned by {fit.turn:.0f} degrees)"


def _best(faces: Sequence[Face]) -> Face:
    return min(faces, key=lambda f: (-f.score, f.box))


def _detect_turned(detector: Detector, picture: Pixels, face: Face, turn: float) -> Iterator[Face]:
    """Detections of a face in its surroundings, rotated clockwise by `turn` degrees, in picture coordinates."""
    x0, y0, x1, y1 = face.box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    scale = FACE_THERE / max(*box_size(face), 1.0)
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    rotation = np.array([[c, -s], [s, c]])
    # detectors measure from pixel corners, crops from pixel centres
    to_turned = np.column_stack([rotation, SURROUNDINGS / 2 - rotation @ middle])
    to_middles = to_turned.copy()
    to_middles[:, 2] += rotation @ np.full(2, 0.5) - 0.5
    surroundings = warp_crop(picture, to_middles, SURROUNDINGS, "fine")
    for found in detector(surroundings):
        back = turned_back(found, to_turned, picture.shape)
        if _is_upright(found, MOST_MISFIT) and overlap(back.box, face.box) > SAME_PLACE:
            yield back


def _is_upright(face: Face, most_misfit: float) -> bool:
    """Whether a face's landmarks fit an upright one."""
    try:
        fit = fit_landmarks(face.landmarks)
    except UnusableLandmarks:
        return False
    return abs(fit.turn) <= MOST_TURNED and fit.residual <= most_misfit


def turned_back(face: Face, to_turned: NDArray[np.float64], shape: tuple[int, ...]) -> Face:
    """A face detected in a rotated picture, in coordinates of the original. to_turned: 2x3 similarity from that.

    The box keeps its size and stays axis-aligned, with the sides swapped by a quarter turn. shape: the original's.
    """
    back = np.linalg.inv(np.vstack([to_turned, [0, 0, 1]]))[:2]
    x0, y0, x1, y1 = face.box
    middle = back[:, :2] @ [(x0 + x1) / 2, (y0 + y1) / 2] + back[:, 2]
    half = np.array(box_size(face)) / 2 * np.hypot(back[0, 0], back[1, 0])
    if abs(back[1, 0]) > abs(back[0, 0]):
        half = half[::-1]
    limits = np.array([shape[1], shape[0]])
    low, high = np.clip(middle - half, 0, limits), np.clip(middle + half, 0, limits)
    landmarks = face.landmarks.astype(np.float64) @ back[:, :2].T + back[:, 2]
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Face(box, landmarks.astype(np.float32), face.score)


def most_turned(faces: Sequence[tuple[Face, bool]]) -> int:
    """The anticlockwise quarter turns that make most of the faces upright; 0 where most are.

    faces: each with whether it was detected rotated.
    """
    quarters = Counter(
        round(-fit_landmarks(f.landmarks).turn / 90) % 4 if turned else 0 for f, turned in faces
    )
    return max(quarters, key=lambda q: (quarters[q], -q), default=0)


def quarter_with_faces(detector: Detector, picture: Pixels, selection: Selection) -> int:
    """The anticlockwise quarter turns with the best detections, 0 where there are none."""
    small, scale = shrink_to(picture, TURNED_SIDE)
    best, most = 0, 0.0
    for quarter in (1, 2, 3):
        faces = detector(np.ascontiguousarray(np.rot90(small, quarter)))
        good = [
            f for f in faces if min(box_size(f)) >= selection.min_face * scale and _is_upright(f, GOOD_FIT)
        ]
        score = sum(f.score for f in distinct(good, selection.max_overlap))
        if score > most:
            best, most = quarter, score
    return best


def faces_turned(detector: Detector, picture: Pixels, selection: Selection, quarter: int) -> list[Face]:
    """The faces that are upright in the picture after `quarter` anticlockwise quarter turns, largest first."""
    height, width = picture.shape[:2]
    to_turned = {
        1: np.array([[0.0, 1, 0], [-1, 0, width]]),
        2: np.array([[-1.0, 0, width], [0, -1, height]]),
        3: np.array([[0.0, -1, height], [1, 0, 0]]),
    }[quarter]
    faces = find_faces(detector, np.ascontiguousarray(np.rot90(picture, quarter)), selection)
    upright_faces = [turned_back(f, to_turned, picture.shape) for f in faces if _is_upright(f, GOOD_FIT)]
    return by_size(distinct(upright_faces, selection.max_overlap))
