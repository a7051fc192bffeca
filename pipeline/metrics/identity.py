"""Whose face it is, and where its parts lie: angles between embeddings, distances between landmarks.

Embedding and landmarks are dlib's, in the files that `face_recognition_models` carries (both CC0), run by `dlib-bin`.
"""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame
from pipeline.io import images
from pipeline.io.weights import WeightsError

# Side at which landmarks are told, and to which smaller and larger crops are brought first.
SIDE = 512
# Where dlib's own detector sees the face of an aligned crop, at that side: left, top, right, bottom. Median over faces
# of LFW; aligned crops need no search.
FACE_BOX = (95, 164, 405, 439)
FFHQ = CropFrame(SIDE)
LANDMARKS_FILE = "shape_predictor_68_face_landmarks.dat"
EMBEDDING_FILE = "dlib_face_recognition_resnet_model_v1.dat"


def find_models() -> Path:
    """The folder of dlib's model files. Raises WeightsError where a package is missing."""
    # its own import wants pkg_resources, which newer setuptools do not have
    found = find_spec("face_recognition_models")
    if found is None or found.origin is None or find_spec("dlib") is None:
        raise WeightsError("identity and landmarks want the packages dlib-bin and face-recognition-models")
    return Path(found.origin).with_name("models")


class FaceReader:
    """Landmarks and embedding of crops of one frame; one call at a time, on the CPU."""

    def __init__(self, models: Path, frame: CropFrame | None = None) -> None:
        import dlib

        self._landmarks: Any = dlib.shape_predictor(str(models / LANDMARKS_FILE))
        self._embedding: Any = dlib.face_recognition_model_v1(str(models / EMBEDDING_FILE))
        # of the frame at side SIDE
        self._frame = replace(frame or FFHQ, side=SIDE)
        corners = self._frame.from_ffhq(np.array(FACE_BOX, dtype=np.float64).reshape(2, 2))
        self._box: Any = dlib.rectangle(*(round(float(v)) for v in corners.ravel()))

    def landmarks(self, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[S, S, 3] uint8 RGB → the 68 points of iBUG 300-W, [68, 2] x and y in pixels of FFHQ's frame of side 512."""
        parts = self._landmarks(_at_side(crop), self._box).parts()
        return self._frame.to_ffhq(np.array([(p.x, p.y) for p in parts], dtype=np.float64))

    def embedding(self, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[S, S, 3] uint8 RGB → [128], near for faces of one person."""
        large = _at_side(crop)
        parts = self._landmarks(large, self._box)
        return np.array(self._embedding.compute_face_descriptor(large, parts), dtype=np.float64)


def angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Degrees between two embeddings; nan for one of length 0.

    The paper's IDS is this angle between ArcFace's embeddings; dlib's give smaller ones, so that values compare among
    ours only. On 60 pairs of LFW at 64 px: 17 ± 3 for one person, 33 ± 4 for two.
    """
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    if not lengths > 0:
        return float("nan")
    return float(np.degrees(np.arccos(np.clip(a @ b / lengths, -1, 1))))


def landmark_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean distance of corresponding points, in pixels of a crop of side 512."""
    return float(np.linalg.norm(a - b, axis=1).mean())


def _at_side(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(crop if len(crop) == SIDE else images.resize(crop, SIDE))
