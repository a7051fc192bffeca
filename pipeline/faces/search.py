"""Every face of a picture: those to restore, and those that are left as they are, with the reason.

The way for the stages to find faces: a `Detector` alone sees large pictures shrunk, and takes a face that lies on its
side for an upright one.
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

# A detection below this share of --min-face is noise, and not counted.
LEAST_COUNTED = 0.5
# A face below --min-face that lies in a larger one by more than this share is a part of it.
MOST_CONTAINED = 0.6

Left = Literal["small", "surplus", "unfit"]


@dataclass(frozen=True)
class Found:
    """One face of a picture, and why it is left as it is."""

    face: Face
    # empty for a face to restore
    left: Left | Literal[""] = ""
    # a sentence for people
    why: str = ""


def search(detector: Detector, picture: NDArray[np.uint8], selection: Selection) -> list[Found]:
    """Every face of a picture, [H, W, 3] uint8 RGB: those to restore, largest first, then those left by choice.

    A face whose landmarks fit no face ("unfit") stands among the first, at the place that its size gives it, so that it
    shifts no other face's number; and so does one that is found again in the turned picture. Where no face can be
    restored the picture is searched turned by quarters, and where most faces were turned by the same quarter, it is
    searched turned by that; faces found there alone come after those that stand.

    Left by choice: beyond --max-faces ("surplus"), then below --min-face ("small") down to LEAST_COUNTED of it. What
    has no usable landmarks is no face. The result depends on the picture, the detector and the selection alone.
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
    """The distinct faces from --min-face on, and those below it, each largest first.

    Of those below, the ones that lie in a larger face are parts of it, and those below LEAST_COUNTED are noise; both
    are dropped.
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
    """A face that stands in no surroundings of its own: as the turned picture shows it, or left."""
    there = [f for f in turned if overlap(f.box, face.box) > SAME_PLACE]
    return Found(there[0]) if there else Found(face, "unfit", why)


def _is_new(face: Face, known: Sequence[Face], selection: Selection) -> bool:
    """Whether a face is none of the known ones."""
    boxes = np.array([f.box for f in known], dtype=np.float64).reshape(-1, 4)
    return not (overlaps(np.array(face.box, dtype=np.float64), boxes) > selection.max_overlap).any()
