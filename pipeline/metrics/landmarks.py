"""Landmarks of a face, and distances between them: the points of MediaPipe's face mesh, or the 68 of dlib."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame, warp_crop
from pipeline.io import images
from pipeline.io.weights import WeightsError

# Side of FFHQ's frame whose pixels are the unit of coordinates, and side to which crops are resized for dlib.
SIDE = 512
FFHQ = CropFrame(SIDE)

# [S, S, 3] uint8 RGB crop → points [N, 2], x and y in pixels of FFHQ's frame of side SIDE
LandmarkReader = Callable[[NDArray[np.uint8]], NDArray[np.float64]]

# What the mesh sees of an aligned face: about 1.5 times the box around its points, as MediaPipe places it in a video.
# The box is the median over 80 faces of LFW and of the London set. The points are the mean over several such views,
# slightly blurred: they repeat better than those of one (docs/metrics.md).
VIEWS = tuple(CropFrame(192, zoom=zoom, centre=(0.4975, 0.581)) for zoom in (0.9, 0.96, 1.03, 1.1))
# standard deviation of that blur, pixels of a view
BLUR = 1.1

# Box of the face in an aligned crop of side SIDE by dlib's detector: left, top, right, bottom. Median over faces of
# LFW; aligned crops need no detection.
DLIB_BOX = (95, 164, 405, 439)
DLIB_FILE = "shape_predictor_68_face_landmarks.dat"


class MeshLandmarks:
    """The 468 points of MediaPipe's face mesh of crops of one frame. Thread-safe if the network is."""

    def __init__(self, network: Callable[[NDArray[np.uint8]], NDArray[np.float64]], frame: CropFrame) -> None:
        """network: that of `load_mesh`."""
        self._network, self._frame = network, frame

    def __call__(self, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        frame = replace(self._frame, side=len(crop))
        seen = [warp_crop(crop, view.of_crop(frame), view.side) for view in VIEWS]
        found = self._network(np.stack([cv2.GaussianBlur(one, (0, 0), BLUR) for one in seen]))
        # the network counts from the corner of the first pixel on, and frames from its centre
        places = [(p - 0.5, FFHQ.of_crop(view)) for p, view in zip(found, VIEWS, strict=True)]
        return np.asarray(np.mean([p @ m[:, :2].T + m[:, 2] for p, m in places], axis=0))


class Dlib68Landmarks:
    """The 68 points of iBUG 300-W of crops of one frame, by dlib; one call at a time, on the CPU.

    The data that dlib's model was trained on exclude commercial use (docs/weights.md).
    """

    def __init__(self, models: Path, frame: CropFrame) -> None:
        import dlib

        self._landmarks: Any = dlib.shape_predictor(str(models / DLIB_FILE))
        # of the frame at side SIDE
        self._frame = replace(frame, side=SIDE)
        corners = self._frame.from_ffhq(np.array(DLIB_BOX, dtype=np.float64).reshape(2, 2))
        self._box: Any = dlib.rectangle(*(round(float(v)) for v in corners.ravel()))

    def __call__(self, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        resized = np.ascontiguousarray(crop if len(crop) == SIDE else images.resize(crop, SIDE))
        parts = self._landmarks(resized, self._box).parts()
        return self._frame.to_ffhq(np.array([(p.x, p.y) for p in parts], dtype=np.float64))


def find_dlib_models() -> Path:
    """The folder of dlib's model files. Raises WeightsError where a package is missing."""
    # not imported: it needs pkg_resources, which newer versions of setuptools lack
    found = find_spec("face_recognition_models")
    if found is None or found.origin is None or find_spec("dlib") is None:
        raise WeightsError(
            "it needs the packages dlib-bin and face-recognition-models; install them as difface-pipeline[dlib68] "
            "where the terms of dlib's 68 landmarks allow your use (docs/weights.md)"
        )
    return Path(found.origin).with_name("models")


def landmark_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean distance of corresponding points, in pixels at side 512."""
    return float(np.linalg.norm(a - b, axis=1).mean())
