"""The degradations of degradation.py and of the portrait networks' training, for a batch of faces on any device.

Blur → shrink → noise → JPEG → back to size, with values of its own for each face. The values are drawn on the CPU; the
pixels never leave the device. Resizing multiplies by the matrix that OpenCV's own resizing comes to, and blurs are
products of Fourier transforms, whose cost does not depend on their width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.degradation import KERNEL, Degradation
from pipeline.datasets.jpeg_batch import MCU, jpeg_round_trip

LINEAR, CUBIC, AREA = 0, 1, 2
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)
# Faces of similar shrunken sides that are computed together, by the device's type: few fit a CPU's cache.
TOGETHER = {"cpu": 8}
TOGETHER_ELSEWHERE = 64
# The least side of a shrunken face, pixels.
LEAST_SIDE = 8
# Below this width a blur changes nothing.
NO_BLUR = 0.1

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class BatchDegradation:
    """The degradations of B faces: arrays [B] on the host. Lengths are in pixels of the face."""

    # standard deviations along and across `angle` (radians); the kernel is cut off beyond `reach`. All 0: no blur
    blur: Numbers
    blur_across: Numbers
    angle: Numbers
    reach: Whole
    # length and angle of a motion blur before the other; 0: none
    motion: Numbers
    motion_angle: Numbers
    # side of the shrunken face, and how it is made and enlarged again: indices into INTERPOLATIONS
    side: Whole
    down: Whole
    up: Whole
    # standard deviation of the noise (0..255 scale), whether all channels share it, width of its grain (0: none)
    noise: Numbers
    grey_noise: Flags
    grain: Numbers
    # JPEG quality, 0: none; whether chroma is subsampled
    quality: Whole
    shared_chroma: Flags
    # grey: both the face and its target
    grey: Flags

    def __len__(self) -> int:
        return len(self.blur)

    def of(self, index: NDArray[np.intp]) -> "BatchDegradation":
        """Those of some faces."""
        return BatchDegradation(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def from_paper(hows: Sequence[Degradation], side: int) -> BatchDegradation:
    """The paper's degradations of faces of this side, as degradation.degrade applies them."""
    ratio, count = side / 512, len(hows)

    def column(name: str) -> NDArray[Any]:
        return np.array([getattr(how, name) for how in hows])

    scale = column("scale").astype(np.float64)
    factor = np.maximum(np.where(scale > 1, scale * ratio, scale), 0.8)
    none, linear = np.zeros(count), np.full(count, LINEAR)
    return BatchDegradation(
        blur=np.maximum(column("sigma_x") * ratio, 0.05),
        blur_across=np.maximum(column("sigma_y") * ratio, 0.05),
        angle=column("theta").astype(np.float64),
        reach=np.full(count, max(round(KERNEL // 2 * ratio), 2)),
        motion=none,
        motion_angle=none,
        side=np.maximum(np.rint(side / factor), 1).astype(np.int64),
        down=linear,
        up=linear,
        noise=column("noise").astype(np.float64),
        grey_noise=np.zeros(count, bool),
        grain=none,
        quality=column("jpeg").astype(np.int64),
        shared_chroma=np.ones(count, bool),
        grey=column("grey").astype(bool),
    )


def draw_portrait_degradations(rng: np.random.Generator, count: int, side: int) -> BatchDegradation:
    """Degradations from none (6 %) to beyond the paper's: those the portrait networks are trained on, at 128 px.

    One draw of hardness a face decides how far each component may go, and each is applied to four faces of five.
    """
    hard = rng.random(count)
    damaged = rng.random(count) >= 0.06
    on = (rng.random((4, count)) < 0.8) & damaged
    blur = np.where(on[0], rng.uniform(0, 0.3 + 4.5 * hard), 0)
    blur[blur <= NO_BLUR] = 0
    isotropic = rng.random(count) < 0.5
    shrink = np.where(on[1], np.exp(rng.uniform(0, np.log1p(9 * hard))), 1)
    moves = damaged & (rng.random(count) < 0.1)
    return BatchDegradation(
        blur=blur,
        blur_across=np.where(isotropic, blur, blur * rng.uniform(0.3, 1, count)),
        angle=rng.uniform(0, np.pi, count),
        reach=np.ceil(3 * blur).astype(np.int64),
        motion=np.where(moves, rng.uniform(1, 3 + 10 * hard), 0),
        motion_angle=rng.uniform(0, np.pi, count),
        side=np.maximum(np.rint(side / shrink), min(LEAST_SIDE, side)).astype(np.int64),
        down=rng.integers(3, size=count),
        up=rng.integers(2, size=count),
        noise=np.where(on[2], rng.uniform(0, 2 + 20 * hard), 0),
        grey_noise=rng.random(count) < 0.4,
        grain=np.where(rng.random(count) < 0.25, rng.uniform(0.5, 1.2, count), 0),
        quality=np.where(on[3], rng.uniform(98 - 65 * hard, 98), 0).astype(np.int64),
        shared_chroma=rng.random(count) < 0.6,
        grey=np.zeros(count, bool),
    )


def degrade_batch(
    faces: Tensor, how: BatchDegradation, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """[B, 3, S, S] float32 RGB of whole levels, 0..255 → (degraded, targets), both of the same kind.

    generator: of the noise, on the faces' device.
    """
    targets = faces
    if how.grey.any():
        targets = faces.clone()
        index = _index(how.grey, faces.device)
        targets[index] = to_grey(targets[index])
    degraded = torch.empty_like(faces)
    for chosen in _similar(how.side, TOGETHER.get(faces.device.type, TOGETHER_ELSEWHERE)):
        index = _sent(chosen, faces.device)
        degraded[index] = _degrade(targets[index], how.of(chosen), generator)
    if how.grey.any():
        index = _index(how.grey, faces.device)
        degraded[index] = to_grey(degraded[index])
    return degraded, targets


def to_grey(faces: Tensor) -> Tensor:
    """[B, 3, S, S] levels → the luma's whole level in all three channels."""
    red, green, blue = faces.split(1, dim=1)
    luma: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma.round_().expand_as(faces)


def _similar(sides: Whole, together: int) -> Iterator[NDArray[np.intp]]:
    """Indices of faces of similar shrunken sides, `together` at a time."""
    order = np.argsort(sides, kind="stable")
    return (order[i : i + together] for i in range(0, len(order), together))


def _degrade(faces: Tensor, how: BatchDegradation, generator: torch.Generator | None) -> Tensor:
    """Faces that are computed together, [B, 3, S, S] levels; their shrunken forms share a canvas."""
    device, side = faces.device, faces.shape[-1]
    canvas = -(-int(how.side.max()) // MCU) * MCU
    x = _blurred(faces, how)
    resized = canvas != side or bool((how.side != side).any())
    if resized:
        down = _resizing(how.down, how.side, side, canvas, device)
        x = down @ x @ down.mT
    if how.noise.any():
        x = x + _noise(how, canvas, device, generator)
    x = x.round().clamp_(0, 255)
    if how.quality.any():
        coded = np.flatnonzero(how.quality)
        index, sides = _sent(coded, device), _sent(how.side[coded], device)
        x[index] = jpeg_round_trip(x[index], sides, how.quality[coded], how.shared_chroma[coded])
    if resized:
        up = _resizing(how.up, how.side, side, canvas, device, enlarge=True)
        x = (up @ x @ up.mT).round_().clamp_(0, 255)
    return x


def _blurred(faces: Tensor, how: BatchDegradation) -> Tensor:
    """Motion blur and Gaussian blur in one product of Fourier transforms; the faces mirror at their borders."""
    blurs = (how.reach > 0) | (how.motion > 0)
    if not blurs.any():
        return faces
    some, index, side = how.of(np.flatnonzero(blurs)), _index(blurs, faces.device), faces.shape[-1]
    # no face mirrors more often than once
    widest = min(int(some.reach.max()), side - 1)
    longest = min(int(np.ceil(some.motion.max() / 2 + 1)) if some.motion.any() else 0, side - 1 - widest)
    reach = widest + longest
    # what wraps around falls on the first 2 * reach rows and columns, which are cut off
    size = (side + 2 * reach,) * 2
    spectrum = torch.fft.rfft2(F.pad(faces[index], (reach,) * 4, mode="reflect"))
    if widest:
        spectrum *= torch.fft.rfft2(_gaussians(some, widest, faces.device), s=size)[:, None]
    if longest:
        spectrum *= torch.fft.rfft2(_strokes(some, longest, faces.device), s=size)[:, None]
    blurred = faces.clone()
    blurred[index] = torch.fft.irfft2(spectrum, s=size)[..., 2 * reach :, 2 * reach :]
    return blurred


def _gaussians(how: BatchDegradation, reach: int, device: torch.device) -> Tensor:
    """[B, 2 reach + 1, 2 reach + 1] normalised kernels, each cut off beyond its own reach."""
    along, across = _turned(how.angle, reach, device)
    widths = [np.maximum(w, NO_BLUR / 2) for w in (how.blur, how.blur_across)]
    sigma, sigma_across = (_column(w, device) for w in widths)
    kernels = torch.exp(-0.5 * ((along / sigma) ** 2 + (across / sigma_across) ** 2))
    offset = torch.arange(-reach, reach + 1, device=device).abs()
    inside = torch.maximum(offset[:, None], offset) <= _column(how.reach, device)
    kernels = kernels * inside
    return kernels / kernels.sum((1, 2), keepdim=True)


def _strokes(how: BatchDegradation, reach: int, device: torch.device) -> Tensor:
    """[B, 2 reach + 1, 2 reach + 1] normalised lines through the middle, one pixel wide with soft edges."""
    along, across = _turned(how.motion_angle, reach, device)
    beyond = (along.abs() - _column(how.motion / 2, device)).clamp(min=0)
    kernels = (1 - torch.hypot(beyond, across)).clamp(min=0)
    # the nearest thing to a picture that does not move
    kernels[:, reach, reach] = kernels[:, reach, reach].clamp(min=1e-3)
    return kernels / kernels.sum((1, 2), keepdim=True)


def _turned(angle: Numbers, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixel offsets along and across a direction, [B, 2 reach + 1, 2 reach + 1]."""
    offset = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    cos, sin = _column(np.cos(angle), device), _column(np.sin(angle), device)
    return offset * cos + offset[:, None] * sin, offset[:, None] * cos - offset * sin


def _noise(
    how: BatchDegradation, canvas: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """[B, 3, canvas, canvas] noise of each face's own width and grain."""
    noise = torch.randn((len(how), 3, canvas, canvas), generator=generator, device=device)
    index = _index(how.grey_noise, device)
    noise[index] = noise[index][:, :1].expand(-1, 3, -1, -1)
    if how.grain.any():
        index, sides = _index(how.grain > 0, device), how.side[how.grain > 0]
        smooth = _smoothing(_column(how.grain[how.grain > 0], device), canvas)[:, None]
        grains = smooth @ noise[index] @ smooth.mT
        # the standard deviation is 1 within the picture
        within = torch.arange(canvas, device=device) < _column(sides, device)[:, :1]
        within = (within & within.mT)[:, None]
        count = (3 * within.sum((1, 2, 3), keepdim=True)).float()
        mean = (grains * within).sum((1, 2, 3), keepdim=True) / count
        variance = ((grains - mean).square() * within).sum((1, 2, 3), keepdim=True) / count
        noise[index] = grains / (variance.sqrt() + 1e-6)
    return noise * _column(how.noise, device)[..., None]


def _smoothing(sigma: Tensor, size: int) -> Tensor:
    """[B, size, size] matrices that blur a column by Gaussians of these widths, [B, 1, 1]."""
    offset = torch.arange(size, device=sigma.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((offset - offset[:, None]) / sigma) ** 2)
    return weights / weights.sum(2, keepdim=True)


def _resizing(
    kinds: Whole, sides: Whole, side: int, canvas: int, device: torch.device, enlarge: bool = False
) -> Tensor:
    """[B, 1, canvas, side] matrices that shrink a column to each face's own side; enlarge: the way back."""
    most = -(-max(side, canvas) // MCU) * MCU
    table = _resizing_table(side, most, enlarge, device)
    rows = table[_sent(kinds * (most + 1) + sides, device)][:, None]
    return rows[..., :canvas] if enlarge else rows[:, :, :canvas]


@lru_cache(maxsize=8)
def _resizing_table(side: int, most: int, enlarge: bool, device: torch.device) -> Tensor:
    """The matrix of every interpolation (in order) to or from 0..most pixels, zeros beyond them."""
    shape = (side, most) if enlarge else (most, side)
    table = np.zeros((len(INTERPOLATIONS), most + 1, *shape), np.float32)
    for kind, interpolation in enumerate(INTERPOLATIONS):
        for n in range(1, most + 1):
            before, after = (n, side) if enlarge else (side, n)
            # a unit matrix, resized down its columns alone
            unit = np.eye(before, dtype=np.float32)
            matrix = cv2.resize(unit, (before, after), interpolation=interpolation)
            table[kind, n, :after, :before] = matrix
    return torch.from_numpy(table.reshape(-1, *shape)).to(device)


def _index(chosen: Flags, device: torch.device) -> Tensor:
    """Where a flag is set, as indices on the device."""
    return _sent(np.flatnonzero(chosen), device)


def _column(values: NDArray[Any], device: torch.device) -> Tensor:
    """[B] numbers as [B, 1, 1] float32 on the device."""
    return _sent(values.astype(np.float32), device)[:, None, None]


def _sent(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array on the device, without waiting for the work that is queued there."""
    return torch.from_numpy(values).to(device, non_blocking=True)
