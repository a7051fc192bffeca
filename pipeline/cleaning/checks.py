"""Measurements of a picture, independent of the policy: verdicts are computed from them without reading it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.faces.detect import Face, box_size
from pipeline.faces.geometry import CropFrame, UnusableLandmarks, crop_scale, face_to_crop, warp_crop
from pipeline.faces.sharpness import crispness, sharpness

# Incremented when the same picture gives other numbers.
MEASURES_VERSION = 2
# A face is prominent from this fraction of the largest one's side.
PROMINENT = 0.5
NOT_MEASURED = float("nan")


@dataclass(frozen=True)
class Measures:
    """The measurements of one picture; those of faces are nan without a face."""

    width: int
    height: int
    # fractions of white: the 99th and the 5th percentile of grey
    light: float
    dark: float
    # entropy of the grey values, bits, 0..8
    entropy: float
    # perceptual hash, 64 bits, DCT of the picture at 32x32
    phash: int
    faces: int
    # of the largest face: shorter side of its box in pixels, and the detector's score
    face_size: float
    face_score: float
    # of the prominent face farthest from the frame: distance of box and frame as a fraction of the box's side
    face_margin: float
    # picture pixels per crop pixel, and variance of the Laplacian of its crop
    face_scale: float
    face_sharpness: float
    # of the least crisp prominent face
    face_crispness: float


def measure(picture: NDArray[np.uint8], faces: Sequence[Face], side: int) -> Measures:
    """The measurements of a picture, [H, W, 3] uint8 RGB, with its faces, largest first. side: of the aligned crops."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    shares = np.bincount(grey.ravel(), minlength=256) / grey.size
    height, width = grey.shape
    return Measures(
        width=width,
        height=height,
        light=_percentile(shares, 0.99),
        dark=_percentile(shares, 0.05),
        entropy=round(_bits(shares), 4),
        phash=perceptual_hash(grey),
        faces=len(faces),
        **measure_faces(picture, faces, side),
    )


def _percentile(shares: NDArray[np.float64], share: float) -> float:
    """The grey value, as a fraction of white, that this share of the pixels does not exceed."""
    return round(int(np.searchsorted(np.cumsum(shares), share - 1e-9)) / 255, 4)


def _bits(shares: NDArray[np.float64]) -> float:
    """Shannon entropy in bits."""
    present = shares[shares > 0]
    return float(-(present * np.log2(present)).sum())


def perceptual_hash(grey: NDArray[Any]) -> int:
    """imagehash's pHash of [H, W] uint8, as a 64-bit integer."""
    return int(str(imagehash.phash(Image.fromarray(grey))), 16)


def measure_faces(picture: NDArray[np.uint8], faces: Sequence[Face], side: int) -> dict[str, float]:
    """The measurements of the faces of a picture, largest first."""
    names = ("face_size", "face_score", "face_margin", "face_scale", "face_sharpness", "face_crispness")
    if not faces:
        return dict.fromkeys(names, NOT_MEASURED)
    largest = min(box_size(faces[0]))
    prominent = [f for f in faces if min(box_size(f)) >= PROMINENT * largest]
    crops = [(warp_crop(picture, m, side), crop_scale(m)) for m in (to_crop(f, side) for f in prominent)]
    values = (
        largest,
        faces[0].score,
        max(frame_margin(f, picture.shape) for f in prominent),
        crops[0][1],
        sharpness(crops[0][0]),
        min(crispness(crop) for crop, _ in crops),
    )
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


def to_crop(face: Face, side: int) -> NDArray[np.float64]:
    """The similarity from picture to aligned crop. Raises UnusableLandmarks."""
    return face_to_crop(face.landmarks, CropFrame(side))


def usable(face: Face, side: int) -> bool:
    """Whether a face can be aligned."""
    try:
        to_crop(face, side)
    except UnusableLandmarks:
        return False
    return True


def frame_margin(face: Face, shape: Sequence[int]) -> float:
    """The smallest distance between a face's box and its picture's frame, as a fraction of the box's shorter side.

    0 for a box that touches the frame, negative for one that extends beyond it.
    """
    height, width = shape[:2]
    x0, y0, x1, y1 = face.box
    return float(min(x0, y0, width - x1, height - y1) / max(min(box_size(face)), 1e-6))
