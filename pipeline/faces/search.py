"""Every face of a picture: those to restore, and those that are not, with the reason.

Stages detect faces through this module: a `Detector` alone shrinks large pictures and mistakes rotated faces for
upright ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.detect import (
    Detector,
    Face,
    Selection,
    box_area,
    box_size,
    by_size,
    distinct,
    overlap,
    overlaps,
    shared_area,
)
from pipeline.faces.poses import SAME_PLACE, faces_turned, is_usable, most_turned, quarter_with_faces, upright
from pipeline.faces.tiles import find_faces

# A detection below this fraction of --min-face is noise, and not counted.
LEAST_COUNTED = 0.5
# A face below --min-face with more than this share of its area in a larger one is a part of it.
MOST_CONTAINED = 0.6

Left = Literal["small", "surplus", "unfit"]


@dataclass(frozen=True)
class Found:
    """One face of a picture, and why it is not restored."""

    face: Face
    # empty for a face to restore
    left: Left | Literal[""] = ""
    # the reason as text
    why: str = ""


def search(detector: Detector, picture: NDArray[np.uint8], selection: Selection) -> list[Found]:
    """Every face of a picture, [H, W, 3] uint8 RGB: those to restore, largest first, then those excluded by options.

    A face whose landmarks do not fit ("unfit") is listed among the first, in the order of size, so that it changes no
    other face's index; so is one that is detected again in the rotated picture. Where no face can be restored, the
    picture is searched in all quarter turns; where most faces were rotated by the same quarter turn, in that one. Faces
    detected only there come after the upright ones.

    Excluded by options: beyond --max-faces ("surplus"), then below --min-face ("small") down to LEAST_COUNTED of it.
    Detections without usable landmarks are dropped. The result depends on the picture, the detector and the selection
    alone.
    """
    found = [f for f in find_faces(detector, picture, selection) if is_usable(f)]
    large, small = choose(found, selection)
    chosen = large[: selection.max_faces]
    seen = [(face, upright(detector, picture, face)) for face in chosen]
    good = [(after, after is not before) for before, after in seen if isinstance(after, Face)]
    quarter = most_turned(good) if good else quarter_with_faces(detector, picture, selection)
    turned = faces_turned(detector, picture, selection, quarter) if quarter else []
    first = [
        Found(after) if isinstance(after, Face) else _found_turned(before, after, turned)
        for before, after in seen
    ]
    first = [f for i, f in enumerate(first) if _is_new(f.face, [g.face for g in first[:i]], selection)]
    more, smaller = choose([f for f in turned if _is_new(f, [g.face for g in first], selection)], selection)
    places = max(selection.max_faces - len(first), 0)
    first += map(Found, more[:places])
    known = [f.face for f in first]
    beyond = f"beyond --max-faces {selection.max_faces}, which takes the largest"
    surplus = [f for f in large[selection.max_faces :] if _is_new(f, known, selection)] + more[places:]
    left = [Found(f, "surplus", beyond) for f in surplus]
    for face in small + [f for f in smaller if _is_new(f, small, selection)]:
        if _is_new(face, known, selection):
            size = min(box_size(face))
            why = f"smaller than --min-face: {size:.1f} of {selection.min_face:g} px"
            left.append(Found(face, "small", why))
    return first + left


def choose(faces: Sequence[Face], selection: Selection) -> tuple[list[Face], list[Face]]:
    """The distinct faces of at least --min-face, and those below it, each largest first.

    Of those below, parts of a larger face and noise below LEAST_COUNTED are dropped.
    """
    large = by_size(
        distinct([f for f in faces if min(box_size(f)) >= selection.min_face], selection.max_overlap)
    )
    least = LEAST_COUNTED * selection.min_face
    smaller = [f for f in faces if least <= min(box_size(f)) < selection.min_face]
    taken = np.array([f.box for f in large], dtype=np.float64).reshape(-1, 4)
    small = []
    for face in by_size(distinct(smaller, selection.max_overlap)):
        box = np.array(face.box, dtype=np.float64)
        if not (shared_area(box, taken) > MOST_CONTAINED * box_area(box)).any():
            small.append(face)
    return large, small


def _found_turned(face: Face, why: str, turned: Sequence[Face]) -> Found:
    """A face that no rotation of its surroundings makes upright: as detected in the rotated picture, or unfit."""
    there = [f for f in turned if overlap(f.box, face.box) > SAME_PLACE]
    return Found(there[0]) if there else Found(face, "unfit", why)


def _is_new(face: Face, known: Sequence[Face], selection: Selection) -> bool:
    """Whether a face overlaps none of the known ones."""
    boxes = np.array([f.box for f in known], dtype=np.float64).reshape(-1, 4)
    return not (overlaps(np.array(face.box, dtype=np.float64), boxes) > selection.max_overlap).any()
