"""Faces that do not stand upright: seen by how their landmarks fit a face, and searched again in the turned picture."""

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

# Landmarks of a face that is seen right. Of 1744 upright faces of LFW, FairFace and London, profiles included, none is
# turned by more than 34.2 degrees (99.5 %: 18.6). Their residual has .013 at the median and .050 at the 97.8th
# percentile; above .060 (24 faces) are only faces cut by the border and those seen from behind. A portrait that is
# turned by 60 to 180 degrees is seen as turned by 55 at least, with a residual of .043 to .092: residuals alone
# can not tell it from a profile.
MOST_TURNED, MOST_MISFIT = 35.0, 0.06
# Residual of a face found in the picture turned as a whole, where little else speaks for it, and of a tilted one that
# its turned surroundings do not show: .035 is the median at 45 degrees.
GOOD_FIT = 0.035
# Boxes of a face as it was found and as it is found turned overlap by more than this share of their union.
SAME_PLACE = 0.2
# Side of the turned surroundings of a face, and of the longer side of its box in it, pixels.
SURROUNDINGS, FACE_THERE = 384, 128.0
# Where no face is found the picture is searched turned, too, at this longer side: it costs half as much as SEARCH_SIDE.
TURNED_SIDE = 768


def is_usable(face: Face) -> bool:
    """Whether a face has a box and landmarks that say where it lies."""
    return bool(np.isfinite(face.box).all()) and are_distinct(face.landmarks)


def upright(detector: Detector, picture: Pixels, face: Face) -> Face | str:
    """The very face where its landmarks are an upright one's; else as it is seen upright, or why it is left.

    The surroundings of one that is turned are turned back by what its landmarks say, and by quarters where that finds
    nothing. One that stands but does not fit is not searched: it is cut, or seen from behind.
    """
    try:
        fit = fit_landmarks(face.landmarks)
    except UnusableLandmarks:
        return "its landmarks do not fit a face: they coincide"
    for turns in ([fit.turn], [90.0, 180.0, 270.0]) if abs(fit.turn) > MOST_TURNED else ():
        again = [f for turn in turns for f in _seen_turned(detector, picture, face, turn)]
        if again:
            # what is still tilted there has landmarks that are a little off
            better = _seen_turned(detector, picture, face, fit_landmarks(_best(again).landmarks).turn)
            return _best([*better] or again)
    if fit.residual <= (MOST_MISFIT if abs(fit.turn) <= MOST_TURNED else GOOD_FIT):
        return face
    return f"its landmarks do not fit a face (residual {fit.residual:.3f}, turned by {fit.turn:.0f} degrees)"


def _best(faces: Sequence[Face]) -> Face:
    return min(faces, key=lambda f: (-f.score, f.box))


def _seen_turned(detector: Detector, picture: Pixels, face: Face, turn: float) -> Iterator[Face]:
    """What a detector finds of a face in its surroundings, turned clockwise by so many degrees."""
    x0, y0, x1, y1 = face.box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    scale = FACE_THERE / max(*box_size(face), 1.0)
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    rotation = np.array([[c, -s], [s, c]])
    # detectors count from the pixels' corners, crops from their middles
    to_turned = np.column_stack([rotation, SURROUNDINGS / 2 - rotation @ middle])
    to_middles = to_turned.copy()
    to_middles[:, 2] += rotation @ np.full(2, 0.5) - 0.5
    surroundings = warp_crop(picture, to_middles, SURROUNDINGS, "fine")
    for found in detector(surroundings):
        back = turned_back(found, to_turned, picture.shape)
        if _stands(found, MOST_MISFIT) and overlap(back.box, face.box) > SAME_PLACE:
            yield back


def _stands(face: Face, most_misfit: float) -> bool:
    """Whether a face's landmarks are those of an upright one."""
    try:
        fit = fit_landmarks(face.landmarks)
    except UnusableLandmarks:
        return False
    return abs(fit.turn) <= MOST_TURNED and fit.residual <= most_misfit


def turned_back(face: Face, to_turned: NDArray[np.float64], shape: tuple[int, ...]) -> Face:
    """A face found in a turned picture, in the picture of this shape that `to_turned`, a 2x3 similarity, turned.

    Its box keeps its size: it stands on the side that is nearest to where the face stands.
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
    """By how many quarters anticlockwise most of the faces were turned upright; 0 where most stood.

    faces: each with whether it was found turned.
    """
    quarters = Counter(
        round(-fit_landmarks(f.landmarks).turn / 90) % 4 if turned else 0 for f, turned in faces
    )
    return max(quarters, key=lambda q: (quarters[q], -q), default=0)


def quarter_with_faces(detector: Detector, picture: Pixels, selection: Selection) -> int:
    """By how many quarters the picture is turned for the best faces, 0 where no quarter shows any."""
    small, scale = shrink_to(picture, TURNED_SIDE)
    best, most = 0, 0.0
    for quarter in (1, 2, 3):
        faces = detector(np.ascontiguousarray(np.rot90(small, quarter)))
        good = [f for f in faces if min(box_size(f)) >= selection.min_face * scale and _stands(f, GOOD_FIT)]
        score = sum(f.score for f in distinct(good, selection.max_overlap))
        if score > most:
            best, most = quarter, score
    return best


def faces_turned(detector: Detector, picture: Pixels, selection: Selection, quarter: int) -> list[Face]:
    """The faces that stand upright in a picture turned anticlockwise by so many quarters, largest first."""
    height, width = picture.shape[:2]
    to_turned = {
        1: np.array([[0.0, 1, 0], [-1, 0, width]]),
        2: np.array([[-1.0, 0, width], [0, -1, height]]),
        3: np.array([[0.0, -1, height], [1, 0, 0]]),
    }[quarter]
    faces = find_faces(detector, np.ascontiguousarray(np.rot90(picture, quarter)), selection)
    standing = [turned_back(f, to_turned, picture.shape) for f in faces if _stands(f, GOOD_FIT)]
    return by_size(distinct(standing, selection.max_overlap))
