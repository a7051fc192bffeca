"""No-reference image quality: BRISQUE.

Source: Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain" (IEEE TIP 2012), with
the regression of the package `brisque` 0.2.0, whose coefficients are in `presets/weights/brisque_live.safetensors`.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from pipeline.io.weights import Resolved, resolve

BRISQUE_FILE = "brisque_live.safetensors"

Grey = NDArray[np.float64]

# channel weights of skimage.color.rgb2gray, with which the regression was trained
LUMA = (0.2125, 0.7154, 0.0721)
WINDOW, SIGMA = (7, 7), 7 / 6
# shapes of the generalised Gaussian, and their ratios of moments, which decrease with the shape
SHAPES: Grey = np.arange(0.2, 10.001, 0.001)
RATIOS: Grey = gamma(1 / SHAPES) * gamma(3 / SHAPES) / gamma(2 / SHAPES) ** 2


def find_brisque(weights_dir: str | None = None) -> Resolved:
    """The regression's file. Raises WeightsError."""
    return resolve(BRISQUE_FILE, weights_dir=weights_dir)


class Brisque:
    """[H, W, 3] uint8 RGB → about 0 (natural) to 100 (heavily distorted), nan for a picture without contrast.

    Trained on whole photographs: use its values on faces for comparison only.
    """

    def __init__(self, file: Path) -> None:
        from safetensors.numpy import load_file

        numbers = {name: values.astype(np.float64) for name, values in load_file(file).items()}
        self._support, self._weight = numbers["support"], numbers["weight"]
        self._least, self._most = numbers["least"], numbers["most"]
        self._gamma, self._offset = float(numbers["gamma"][0]), float(numbers["offset"][0])

    def __call__(self, picture: NDArray[np.uint8]) -> float:
        values = features(picture)
        if not np.isfinite(values).all():
            return float("nan")
        scaled = 2 * (values - self._least) / (self._most - self._least) - 1
        near = np.exp(-self._gamma * np.square(self._support - scaled).sum(axis=1))
        return float(self._weight @ near + self._offset)


def features(picture: NDArray[np.uint8]) -> Grey:
    """[36] statistics of local contrast at full and at half size; not finite for a flat picture."""
    grey: Grey = picture.astype(np.float64) @ np.array(LUMA)
    found: list[float] = []
    for _ in range(2):
        contrast = normalised(grey)
        shape, left, right = asymmetric_gaussian(contrast)
        found += [shape, (left**2 + right**2) / 2]
        for product in neighbours(contrast):
            shape, left, right = asymmetric_gaussian(product)
            scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
            mean = (right - left) * scale * gamma(2 / shape) / gamma(1 / shape)
            found += [shape, mean, left**2, right**2]
        grey = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC).astype(np.float64)
    return np.array(found)


def normalised(grey: Grey) -> Grey:
    """Mean-subtracted, contrast-normalised luminance: Eq. (1) with C = 1."""
    mean = cv2.GaussianBlur(grey, WINDOW, SIGMA, borderType=cv2.BORDER_CONSTANT)
    square = cv2.GaussianBlur(grey * grey, WINDOW, SIGMA, borderType=cv2.BORDER_CONSTANT)
    contrast: Grey = (grey - mean) / (np.sqrt(np.abs(square - mean * mean)) + 1)
    return contrast


def neighbours(contrast: Grey) -> tuple[Grey, Grey, Grey, Grey]:
    """Products of adjacent pixels: to the right, below, and along both diagonals, Eq. (7) to (10)."""
    right, below = contrast[:, :-1] * contrast[:, 1:], contrast[:-1] * contrast[1:]
    return right, below, contrast[:-1, :-1] * contrast[1:, 1:], contrast[1:, :-1] * contrast[:-1, 1:]


def asymmetric_gaussian(values: Grey, zero_is_above: bool = True) -> tuple[float, float, float]:
    """Shape and both standard deviations of the generalised Gaussian with these moments (Lasmar et al. 2009).

    nan where the values do not lie on both sides of 0. zero_is_above: values of exactly 0 count into the right
    deviation, as BRISQUE has it, or into none, as NIQE has it.
    """
    below, above = values[values < 0], values[values >= 0 if zero_is_above else values > 0]
    if not below.size or not above.any():
        return float("nan"), float("nan"), float("nan")
    left, right = np.sqrt(np.square(below).mean()), np.sqrt(np.square(above).mean())
    skew = left / right
    ratio = np.square(values).mean() / np.square(np.abs(values).mean())
    ratio *= (skew**2 + 1) ** 2 / ((skew**3 + 1) * (skew + 1))
    # np.interp needs ascending abscissae
    return float(np.interp(ratio, RATIOS[::-1], SHAPES[::-1])), float(left), float(right)
