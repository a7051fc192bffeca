"""The paper's synthetic degradation: blur → shrink → noise → JPEG → back to size.

Source: DifFace (arXiv 2212.06512), section 4.1 (training ranges, at 512 px) and its CelebA-Test grid. For a
smaller side S the blur widths and the downsampling factors are scaled by S/512, so that the degraded face keeps
the same number of pixels.
"""

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.io.images import jpeg_round_trip

KERNEL = 41
# The paper's CelebA-Test grid: JPEG quality, noise, σ_x, θ and downsampling factor; 4,000 combinations.
TEST_GRID = tuple(
    product(
        (30, 40, 50, 60, 70),
        (1, 5, 10, 15, 20),
        (4, 8, 12, 16),
        (0.0, 0.25 * np.pi, 0.5 * np.pi, 0.75 * np.pi),
        range(4, 41, 4),
    )
)


@dataclass(frozen=True)
class Degradation:
    """One degradation. Blur widths and the downsampling factor refer to a 512 px face."""

    sigma_x: float
    sigma_y: float
    # orientation of the blur, radians
    theta: float
    # downsampling factor; below 1 enlarges
    scale: float
    # standard deviation of the noise, on the 0..255 scale
    noise: float
    # JPEG quality, 1..100
    jpeg: int
    # grey: both the face and its target
    grey: bool = False


def draw_degradation(rng: np.random.Generator) -> Degradation:
    """A degradation from the training ranges of the paper."""
    sigma_x, sigma_y = rng.uniform(0.1, 15, size=2)
    isotropic = rng.random() < 0.5
    return Degradation(
        sigma_x=sigma_x,
        sigma_y=sigma_x if isotropic else sigma_y,
        theta=0.0 if isotropic else rng.uniform(0, np.pi),
        scale=rng.uniform(0.8, 32),
        noise=rng.uniform(0, 20),
        jpeg=int(rng.integers(30, 101)),
        grey=bool(rng.random() < 0.01),
    )


def grid_degradation(number: int, seed: int) -> Degradation:
    """The degradation of face `number` of a test set: each combination of TEST_GRID once in 4,000 faces, σ_y random."""
    cycle, place = divmod(number, len(TEST_GRID))
    order = np.random.default_rng([seed, 2, cycle]).permutation(len(TEST_GRID))
    jpeg, noise, sigma_x, theta, scale = TEST_GRID[order[place]]
    sigma_y = np.random.default_rng([seed, 3, number]).uniform(4, 16)
    return Degradation(float(sigma_x), sigma_y, float(theta), float(scale), float(noise), int(jpeg))


def degrade(
    face: NDArray[np.uint8], how: Degradation, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """[S, S, 3] uint8 RGB → (degraded, target), both of the same shape. rng draws the noise only."""
    side = face.shape[0]
    ratio = side / 512
    target = to_grey(face) if how.grey else face
    blurred = cv2.filter2D(
        target.astype(np.float32), -1, blur_kernel(how, ratio), borderType=cv2.BORDER_REFLECT_101
    )
    factor = how.scale * ratio if how.scale > 1 else how.scale
    small_side = max(round(side / max(factor, 0.8)), 1)
    small = cv2.resize(blurred, (small_side, small_side), interpolation=cv2.INTER_LINEAR)
    noisy = small + rng.normal(0, how.noise, small.shape)
    coded = jpeg_round_trip(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), how.jpeg)
    back = cv2.resize(coded, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return to_grey(back) if how.grey else back, target


def blur_kernel(how: Degradation, ratio: float) -> NDArray[np.float32]:
    """A normalised Gaussian kernel of odd side, KERNEL scaled by `ratio`."""
    half = max(round(KERNEL // 2 * ratio), 2)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    u = x * np.cos(how.theta) + y * np.sin(how.theta)
    v = -x * np.sin(how.theta) + y * np.cos(how.theta)
    widths = (max(how.sigma_x * ratio, 0.05), max(how.sigma_y * ratio, 0.05))
    kernel = np.exp(-0.5 * ((u / widths[0]) ** 2 + (v / widths[1]) ** 2))
    normalised: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return normalised


def to_grey(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The face's luminance in all three channels."""
    return np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(
        np.uint8, copy=False
    )
