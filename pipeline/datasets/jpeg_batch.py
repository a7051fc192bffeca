"""A JPEG round trip of many pictures at once, on any device: the steps of libjpeg without its entropy coding.

Source: ITU-T T.81, annex K (quantisation tables); libjpeg 6b (quality scale, chroma sampling, "fancy" upsampling). The
DCT is in float32, so that a few pixels differ from libjpeg's integer DCT by one level.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# A canvas is a multiple of this: a chroma block at 4:2:0 covers as many pixels.
MCU = 16

# Quantisation steps at quality 50, in rows of rising vertical frequency (T.81, tables K.1 and K.2).
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def jpeg_round_trip(
    pictures: Tensor, sides: Tensor, qualities: NDArray[np.int64], shared_chroma: NDArray[np.bool_]
) -> Tensor:
    """[B, 3, C, C] float32 RGB of whole levels, 0..255 → the same pictures after coding and decoding.

    C is a multiple of MCU; picture b fills the first sides[b] rows and columns, and what lies beyond is replaced.
    qualities: [B] JPEG qualities, 1..100. shared_chroma: [B] 4:2:0, otherwise 4:4:4. sides: [B] int64 on the device.
    """
    device = pictures.device
    luma, chroma = _to_ycc(_repeat_edge(pictures, sides)).split((1, 2), dim=1)
    luma = _quantised(luma, _steps(LUMA_STEPS, qualities, device))
    steps = _steps(CHROMA_STEPS, qualities, device)
    shared, full = (
        torch.from_numpy(np.flatnonzero(c)).to(device, non_blocking=True)
        for c in (shared_chroma, ~shared_chroma)
    )
    coded = torch.empty_like(chroma)
    if len(full):
        coded[full] = _quantised(chroma[full], steps[full])
    if len(shared):
        halved = _quantised(_halve(chroma[shared]), steps[shared])
        coded[shared] = _double(_repeat_edge(halved, (sides[shared] + 1) // 2))
    return _to_rgb(torch.cat([luma, coded], 1))


def _quantised(plane: Tensor, steps: Tensor) -> Tensor:
    """[B, K, H, W] levels → the same after DCT, quantisation by [B, 64] steps, and back; H and W multiples of 8."""
    count, planes, height, width = plane.shape
    blocks = (plane - 128).view(count, planes, height // 8, 8, width // 8, 8).transpose(3, 4)
    dct = _dct(plane.device)
    coefficients = blocks.reshape(count, -1, 64) @ dct.T
    steps = steps[:, None]
    decoded = coefficients.div_(steps).round_().mul_(steps) @ dct
    levels = decoded.add_(128).round_().clamp_(0, 255)
    return levels.view(count, planes, height // 8, width // 8, 8, 8).transpose(3, 4).reshape(plane.shape)


@lru_cache
def _dct(device: torch.device) -> Tensor:
    """[64, 64] the orthonormal DCT of an 8x8 block in rows."""
    k, n = np.mgrid[:8, :8]
    rows = np.cos((2 * n + 1) * k * np.pi / 16) / 2
    rows[0] /= np.sqrt(2)
    return torch.from_numpy(np.kron(rows, rows).astype(np.float32)).to(device)


def _steps(table: tuple[tuple[int, ...], ...], qualities: NDArray[np.int64], device: torch.device) -> Tensor:
    """[B, 64] quantisation steps by libjpeg's quality scale."""
    scale = np.where(qualities < 50, 5000 // np.maximum(qualities, 1), 200 - 2 * qualities)
    steps = np.clip((np.asarray(table).reshape(1, 64) * scale[:, None] + 50) // 100, 1, 255)
    return torch.from_numpy(steps.astype(np.float32)).to(device, non_blocking=True)


def _repeat_edge(pictures: Tensor, sides: Tensor) -> Tensor:
    """Each picture's last row and column repeated to the end of the canvas, as libjpeg fills its blocks."""
    canvas = pictures.shape[-1]
    index = torch.minimum(torch.arange(canvas, device=sides.device), sides[:, None] - 1)[:, None]
    rows = torch.take_along_dim(pictures, index[..., None], 2)
    return torch.take_along_dim(rows, index[:, :, None], 3)


def _halve(chroma: Tensor) -> Tensor:
    """Means of 2x2 pixels; half levels are rounded up and down by turns, as in libjpeg."""
    bias = 0.25 + 0.25 * (torch.arange(chroma.shape[-1] // 2, device=chroma.device) % 2)
    return (F.avg_pool2d(chroma, 2) + bias).floor_()


def _double(chroma: Tensor) -> Tensor:
    """Twice the size by a triangle filter: each pixel takes 3/4 of its own sample and 1/4 of the next nearer one."""
    for dim in (2, 3):
        last = chroma.shape[dim] - 1
        before = torch.cat([chroma.narrow(dim, 0, 1), chroma.narrow(dim, 0, last)], dim)
        after = torch.cat([chroma.narrow(dim, 1, last), chroma.narrow(dim, last, 1)], dim)
        both = torch.stack([0.75 * chroma + 0.25 * before, 0.75 * chroma + 0.25 * after], dim + 1)
        chroma = both.flatten(dim, dim + 1)
    return chroma.round_()


def _to_ycc(rgb: Tensor) -> Tensor:
    """[B, 3, H, W] levels → whole levels of Y, Cb and Cr (BT.601, full range)."""
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    ycc = torch.stack([luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402], 1)
    return ycc.round_().clamp_(0, 255)


def _to_rgb(ycc: Tensor) -> Tensor:
    """[B, 3, H, W] Y, Cb and Cr → whole levels of RGB."""
    luma, blue, red = ycc[:, 0], ycc[:, 1] - 128, ycc[:, 2] - 128
    green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return torch.stack([luma + 1.402 * red, green, luma + 1.772 * blue], 1).round_().clamp_(0, 255)
