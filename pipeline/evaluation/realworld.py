"""Realistic damage at five levels from none to heavy: blur → shrink → noise → JPEG → back to size.

The mildest degradation of the paper's grid is worse than most real photographs. All values are in pixels of the
photograph.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Resizing = Literal["linear", "cubic", "area"]


@dataclass(frozen=True)
class Level:
    """The mean damage of a level."""

    # standard deviation of the blur, pixels
    blur: float
    shrink: float
    # standard deviation of the noise, on the 0..255 scale
    noise: float
    # JPEG quality
    quality: float


# Level → its damage; None: no damage.
LEVELS: Mapping[str, Level | None] = {
    "clean": None,
    "slight": Level(blur=0.6, shrink=1.3, noise=2, quality=92),
    "mild": Level(blur=1.0, shrink=2.0, noise=4, quality=85),
    "medium": Level(blur=1.5, shrink=3.5, noise=8, quality=70),
    "heavy": Level(blur=2.5, shrink=6.0, noise=12, quality=50),
}
# Each picture's values are its level's times a factor from JITTER, clipped to RANGES.
JITTER = (0.8, 1.2)
RANGES: Mapping[str, tuple[float, float]] = {
    "blur": (0, 2.5),
    "shrink": (1, 6),
    "noise": (0, 12),
    "quality": (50, 98),
}
# Probabilities of the random choices.
ISOTROPIC, GREY_NOISE, GRAIN, SHARED_CHROMA = 0.5, 0.4, 0.25, 0.6
INTERPOLATIONS: Mapping[Resizing, int] = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
# No area interpolation for enlarging: it repeats pixels, which is not realistic.
DOWN: tuple[Resizing, ...] = ("linear", "cubic", "area")
UP: tuple[Resizing, ...] = ("linear", "cubic")
# Minimum shorter side of a shrunk picture.
LEAST_SIDE = 8


@dataclass(frozen=True)
class Damage:
    """The damage of one photograph."""

    # standard deviations of the blur along and across `angle` (radians), pixels
    blur: float
    blur_across: float
    angle: float
    # factor by which it is shrunk
    shrink: float
    down: Resizing
    up: Resizing
    # noise of the shrunk picture: standard deviation, whether all channels share it, and grain size (0: none)
    noise: float
    grey_noise: bool
    grain: float
    # JPEG quality, and whether chroma is subsampled (4:2:0, otherwise 4:4:4)
    quality: int
    shared_chroma: bool


def generator(seed: int, number: int, level: str) -> np.random.Generator:
    """The random generator of picture `number` at a level, independent of other levels and pictures."""
    return np.random.default_rng([seed, 5, number, list(LEVELS).index(level)])


def draw_damage(level: Level, rng: np.random.Generator) -> Damage:
    """The damage of one picture at a level."""
    drawn = {
        name: float(np.clip(getattr(level, name) * rng.uniform(*JITTER), *RANGES[name])) for name in RANGES
    }
    blur = drawn["blur"]
    isotropic = rng.random() < ISOTROPIC
    across, angle = rng.uniform(0.3, 1) * blur, rng.uniform(0, math.pi)
    grain = rng.uniform(0.5, 1.2)
    return Damage(
        blur=blur,
        blur_across=blur if isotropic else across,
        angle=0.0 if isotropic else angle,
        shrink=drawn["shrink"],
        down=DOWN[int(rng.integers(len(DOWN)))],
        up=UP[int(rng.integers(len(UP)))],
        noise=drawn["noise"],
        grey_noise=bool(rng.random() < GREY_NOISE),
        grain=grain if rng.random() < GRAIN else 0.0,
        quality=round(drawn["quality"]),
        shared_chroma=bool(rng.random() < SHARED_CHROMA),
    )


def damage(picture: Pixels, how: Damage, rng: np.random.Generator) -> Pixels:
    """[H, W, 3] uint8 RGB → the same shape, damaged. rng draws the noise only."""
    return enlarged(decode_jpeg(damaged_file(picture, how, rng)), how, *picture.shape[:2])


def enlarged(small: Pixels, how: Damage, height: int, width: int) -> Pixels:
    """A damaged picture at its size again."""
    back: Pixels = cv2.resize(small, (width, height), interpolation=INTERPOLATIONS[how.up]).astype(
        np.uint8, copy=False
    )
    return back


def damaged_file(picture: Pixels, how: Damage, rng: np.random.Generator) -> bytes:
    """The JPEG of a damaged picture before it is enlarged to its size again. rng draws the noise only."""
    height, width = picture.shape[:2]
    blurred = cv2.filter2D(
        picture.astype(np.float32), -1, blur_kernel(how), borderType=cv2.BORDER_REFLECT_101
    )
    size = tuple(max(round(n / how.shrink), min(n, LEAST_SIDE)) for n in (width, height))
    small = cv2.resize(blurred, size, interpolation=INTERPOLATIONS[how.down])
    noisy = small + np.float32(how.noise) * _noise(small.shape, how, rng)
    return encode_jpeg(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), how.quality, how.shared_chroma)


def blur_kernel(how: Damage) -> NDArray[np.float32]:
    """A normalised Gaussian kernel of odd side that reaches three standard deviations."""
    half = math.ceil(3 * how.blur)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    u = x * math.cos(how.angle) + y * math.sin(how.angle)
    v = -x * math.sin(how.angle) + y * math.cos(how.angle)
    # below a tenth of a pixel the kernel is a single pixel, and the exponents would overflow
    along, across = max(how.blur, 0.1), max(how.blur_across, 0.1)
    kernel = np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
    normalised: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return normalised


def _noise(shape: tuple[int, ...], how: Damage, rng: np.random.Generator) -> NDArray[np.float32]:
    """[h, w, 3 or 1] of mean 0 and standard deviation 1."""
    channels = 1 if how.grey_noise else 3
    noise = rng.standard_normal((*shape[:2], channels), dtype=np.float32)
    if how.grain:
        noise = cv2.GaussianBlur(noise, (0, 0), how.grain).reshape(noise.shape).astype(np.float32, copy=False)
        noise /= noise.std() + np.float32(1e-6)
    return noise


def encode_jpeg(picture: Pixels, quality: int, shared_chroma: bool) -> bytes:
    """[H, W, 3] uint8 RGB as a JPEG, 4:2:0 or 4:4:4."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if shared_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, coded = cv2.imencode(".jpg", picture[..., ::-1], options)
    return coded.tobytes()


def decode_jpeg(data: bytes) -> Pixels:
    """[H, W, 3] uint8 RGB of what `encode_jpeg` made."""
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert back is not None  # it was encoded just now
    return np.ascontiguousarray(back[..., ::-1], np.uint8)
