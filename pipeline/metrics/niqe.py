"""No-reference image quality: NIQE, the distance of a picture's statistics from those of undistorted photographs.

Source: Mittal, Soundararajan and Bovik, "Making a Completely Blind Image Quality Analyzer" (IEEE SPL 2013). The model
of undistorted photographs is that of the authors' software release, in `presets/weights/niqe_pristine.safetensors`.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from pipeline.metrics.quality import SIGMA, WINDOW, Grey, asymmetric_gaussian

# side of a block, pixels
BLOCK = 96
# Y of YCbCr (ITU-R BT.601, 16 to 235), which the authors' model was made with
LUMA, BLACK = np.array([65.481, 128.553, 24.966]) / 255, 16
# pairs of neighbours: to the right, below, and along both diagonals
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
# contrast below which a pixel is flat
FLAT = 1e-6
# MATLAB's imresize by one half: bicubic, widened to eight pixels against aliasing
HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256


class Niqe:
    """[H, W, 3] uint8 RGB → about 2 (natural) to 20 and more (distorted).

    nan where the picture holds fewer than two whole blocks of 96 x 96 pixels with contrast, for which the covariance
    is not defined. Rows and columns beyond the last whole block are ignored.
    """

    def __init__(self, file: Path) -> None:
        from safetensors.numpy import load_file

        numbers = load_file(file)
        self._mean, self._covariance = numbers["mean"], numbers["covariance"]

    def __call__(self, picture: NDArray[np.uint8]) -> float:
        found = features(picture)
        whole = found[np.isfinite(found).all(axis=1)]
        if len(whole) < 2:
            return float("nan")
        away = self._mean - np.array([np.mean(f[np.isfinite(f)]) for f in found.T])
        pooled = (self._covariance + np.cov(whole, rowvar=False)) / 2
        return float(np.sqrt(away @ np.linalg.pinv(pooled) @ away))  # Eq. (10)


def features(picture: NDArray[np.uint8]) -> Grey:
    """[N, 36] statistics of local contrast of each block at full and at half size; nan where a block is flat."""
    rows, columns = (side // BLOCK for side in picture.shape[:2])
    grey = np.rint(picture[: rows * BLOCK, : columns * BLOCK].astype(np.float64) @ LUMA + BLACK)
    if not grey.size:
        return np.empty((0, 36))
    scales: list[Grey] = []
    for side in (BLOCK, BLOCK // 2):
        contrast = normalised(grey)
        blocks = contrast.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(-1, side, side)
        scales.append(np.array([block_features(block) for block in blocks]))
        grey = halved(grey)
    return np.concatenate(scales, axis=1)


def block_features(contrast: Grey) -> list[float]:
    """18 statistics of a block: of its contrast, and of the products of neighbours, which wrap around its border."""
    shape, left, right = fitted(contrast)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = fitted(contrast * np.roll(contrast, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # Eq. (8)
        found += [shape, mean, left, right]
    return found


def fitted(values: Grey) -> tuple[float, float, float]:
    """Shape and both scales of the asymmetric generalised Gaussian with these moments, Eq. (7)."""
    shape, left, right = asymmetric_gaussian(values, zero_is_above=False)
    shape = round(shape, 3)
    scale = float(np.sqrt(gamma(1 / shape) / gamma(3 / shape)))
    return shape, left * scale, right * scale


def normalised(grey: Grey) -> Grey:
    """Mean-subtracted, contrast-normalised luminance: Eq. (1) with C = 1."""
    mean = cv2.GaussianBlur(grey, WINDOW, SIGMA, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(grey * grey, WINDOW, SIGMA, borderType=cv2.BORDER_REPLICATE)
    contrast: Grey = (grey - mean) / (np.sqrt(np.abs(square - mean * mean)) + 1)
    # where the picture is flat, the sign of what rounding leaves must not count
    contrast[np.abs(contrast) < FLAT] = 0
    return contrast


def halved(grey: Grey) -> Grey:
    """The picture at half its size; even sides."""
    # the kernel's eight pixels lie about the middle of each pair; the filter's anchor is the first of that pair
    smooth = cv2.sepFilter2D(grey, -1, HALVING, HALVING, anchor=(3, 3), borderType=cv2.BORDER_REFLECT)
    return smooth[::2, ::2].astype(np.float64)
