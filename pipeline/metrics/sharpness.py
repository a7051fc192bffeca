"""Sharpness of a face without a reference."""

import cv2
import numpy as np
from numpy.typing import NDArray


def sharpness(face: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the luminance, [S, S, 3] uint8 RGB → 0 (flat) and up.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000).
    """
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
