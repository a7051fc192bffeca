"""A photograph and a degraded copy of it, for metrics."""

import numpy as np
from skimage import data

# [128, 96, 3] uint8 each
PICTURE = data.astronaut()[40:168, 160:256]
_NOISE = np.random.default_rng(0).integers(0, 30, PICTURE.shape)
DEGRADED = (PICTURE // 2 + 40 + _NOISE).astype(np.uint8)
