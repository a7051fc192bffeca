"""The 68 landmarks of a face, and distances between them: dlib's, from the package `face_recognition_models`."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame
from pipeline.io import images
from pipeline.io.weights import WeightsError

# Side to which crops are resized before landmarks are detected, and unit of their coordinates.
SIDE = 512
# Box of the face in an aligned crop of that side by dlib's detector: left, top, right, bottom. Median over faces of
# LFW; aligned crops need no detection.
FACE_BOX = (95, 164, 405, 439)
FFHQ = CropFrame(SIDE)
LANDMARKS_FILE = "shape_predictor_68_face_landmarks.dat"


def find_models() -> Path:
    """The folder of dlib's model files. Raises WeightsError where a package is missing."""
    # not imported: it needs pkg_resources, which newer versions of setuptools lack
    found = find_spec("face_recognition_models")
    if found is None or found.origin is None or find_spec("dlib") is None:
        raise WeightsError("landmarks need the packages dlib-bin and face-recognition-models")
    return Path(found.origin).with_name("models")


class LandmarkReader:
    """Landmarks of crops of one frame; one call at a time, on the CPU."""

    def __init__(self, models: Path, frame: CropFrame | None = None) -> None:
        import dlib

        self._landmarks: Any = dlib.shape_predictor(str(models / LANDMARKS_FILE))
        # of the frame at side SIDE
        self._frame = replace(frame or FFHQ, side=SIDE)
        corners = self._frame.from_ffhq(np.array(FACE_BOX, dtype=np.float64).reshape(2, 2))
        self._box: Any = dlib.rectangle(*(round(float(v)) for v in corners.ravel()))

    def landmarks(self, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[S, S, 3] uint8 RGB → the 68 points of iBUG 300-W, [68, 2] x and y in pixels of FFHQ's frame of side 512."""
        parts = self._landmarks(_at_side(crop), self._box).parts()
        return self._frame.to_ffhq(np.array([(p.x, p.y) for p in parts], dtype=np.float64))


def landmark_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean distance of corresponding points, in pixels at side 512."""
    return float(np.linalg.norm(a - b, axis=1).mean())


def _at_side(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(crop if len(crop) == SIDE else images.resize(crop, SIDE))
