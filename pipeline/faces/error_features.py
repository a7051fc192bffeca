"""Measurements of a face from which the error of its estimate may be predicted without the truth.

Each depends on the face and its file alone. The first is δ (diffusion/treatment.py), which decides a face's treatment;
`python -m jobs.calibrate --fit error` says what the others add to it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.faces.colour import LUMA
from pipeline.faces.gates import noise
from pipeline.faces.sharpness import crispness, sharpness

Crop = NDArray[np.uint8]
Inside = NDArray[np.bool_]
# least and most logarithm of a measurement, its weight, and that of its square
Term = tuple[float, float, float, float]

# The bands of a correction part at this share of the side, the standard deviation of a Gaussian.
BAND = 1 / 32
# Fine detail is what a Gaussian of this standard deviation takes away, pixels.
DETAIL = 1.0
# The measurements by what they add to δ.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "bands of the correction": ("change_low", "change_fine"),
    "chroma of the correction": ("change_chroma",),
    "crispness": ("crispness",),
    "blur": ("sharpness",),
    "noise": ("noise", "noise_half"),
    "contrast": ("contrast",),
    "detail of the estimate": ("detail",),
    "scale": ("scale",),
    "JPEG": ("coarseness",),
}
FEATURES = ("change", *(name for group in GROUPS.values() for name in group))
# Those of the crop: the others are of the file that it came from.
OF_CROP = tuple(name for name in FEATURES if name not in ("scale", "coarseness"))
# Added to each before its logarithm is taken, in its own unit: below it a measurement is rounding.
LEAST: Mapping[str, float] = {
    "change": 0.02, "change_low": 0.01, "change_fine": 0.01, "change_chroma": 0.01, "crispness": 0.01,
    "sharpness": 0.1, "noise": 0.05, "noise_half": 0.05, "contrast": 0.1, "detail": 0.01, "scale": 0.0,
    "coarseness": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class ErrorModel:
    """log error = offset + the sum of a · x + b · x², x the logarithm of a measurement within the range of the fit."""

    offset: float
    # least and most x, a and b, by the measurement's name
    terms: Mapping[str, Term]

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "ErrorModel":
        """That of a preset's [error]. Raises ValueError, a sentence, where it is none."""
        terms = {name: tuple(value) for name, value in table.items() if name != "offset" and _is_term(value)}
        offset = table.get("offset")
        if not _is_number(offset) or len(terms) != len(table) - 1 or not set(terms) <= set(FEATURES):
            raise ValueError(
                "[error] must hold offset and, by the name of a measurement, its least and greatest logarithm, its "
                f"weight and that of its square; the measurements are {', '.join(FEATURES)}, got {dict(table)}"
            )
        return cls(float(table["offset"]), {name: (a, b, c, d) for name, (a, b, c, d) in terms.items()})

    @property
    def as_table(self) -> dict[str, Any]:
        """As a preset's [error] has it."""
        return {"offset": round(self.offset, 4)} | {
            name: [round(v, 4) for v in term] for name, term in self.terms.items()
        }

    def error(self, crop: Crop, estimated: Crop, change: float, scale: float, inside: Inside | None) -> float:
        """The predicted error of a face, levels, rounded to a thousandth; see `error_features`. inside: None is all."""
        inside = np.ones(crop.shape[:2], bool) if inside is None else inside
        features = error_features(crop, estimated, change, scale, None, inside)
        return round(math.exp(self(features)), 3)

    def __call__(self, features: Mapping[str, float]) -> float:
        """The natural logarithm of the predicted error in levels."""
        total = self.offset
        for name, (least, most, weight, of_square) in self.terms.items():
            x = min(max(features[name], least), most)
            total += weight * x + of_square * x * x
        return total


def _is_term(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def error_features(
    crop: Crop, estimated: Crop, change: float, scale: float, quality: float | None, inside: Inside
) -> dict[str, float]:
    """The measurements of one face by name, in the order of FEATURES; logarithms, natural.

    crop: [S, S, 3] uint8 RGB as it came; estimated: the estimator's picture of it. change: δ, levels. scale: pixels of
    the picture for one of the crop (geometry.crop_scale). quality: of the JPEG that the picture came from, 1 to 100;
    None: no JPEG, measured as 100. inside: [S, S], True where the crop shows the picture.
    """
    inside = inside if inside.any() else np.ones_like(inside)
    correction = estimated.astype(np.float32) - crop
    luma, came, found = _luma(correction), _luma(crop), _luma(estimated)
    low = _blurred(luma, len(crop) * BAND)
    full, half = noise(crop)
    values = {
        "change": change,
        "change_low": _mean(low, inside),
        "change_fine": _mean(luma - low, inside),
        "change_chroma": _mean((correction - luma[..., None]).transpose(2, 0, 1), inside),
        "crispness": crispness(crop),
        "sharpness": sharpness(crop),
        "noise": full,
        "noise_half": half,
        "contrast": float(came[inside].std()),
        "detail": _mean(found - _blurred(found, DETAIL), inside),
        "scale": scale,
        "coarseness": 100 - (100 if quality is None else quality),
    }
    return {name: round(math.log(values[name] + LEAST[name]), 4) for name in FEATURES}


def _luma(picture: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(picture.astype(np.float32) @ LUMA, np.float32)


def _mean(values: NDArray[np.float32], inside: Inside) -> float:
    """Mean of the magnitudes inside; values: [..., S, S]."""
    return float(np.abs(values[..., inside]).mean())


def _blurred(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).astype(
        np.float32, copy=False
    )
