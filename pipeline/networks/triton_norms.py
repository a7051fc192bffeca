"""Group norm with an affine per timestep (FiLM) and SiLU as Triton operators on NHWC activations.

Two passes over memory: moments of tiles, then their affine and the activation. PyTorch's own group norm on a GPU takes
NCHW only, so that in channels_last every norm costs two copies, an affine and a SiLU of its own.

A face's bits depend on the face and its shape, never on the batch: a program belongs to one face, tile sizes come from
`tiling` and nothing else, no kernel is chosen by timing, nothing is added atomically, and sums are two-stage in a fixed
order.

The kernels need a CUDA device, or Triton's interpreter on a CPU: TRITON_INTERPRET=1 before Triton is imported. Not
every build of PyTorch has Triton, so that this file is imported where it is used.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = bool(triton.knobs.runtime.interpret)

# Bytes that a program loads at once: 64 for each thread of its four warps.
_TILE_BYTES = 8192
# Tiles that a face is divided into for its moments, at most: enough to occupy a GPU with one face, few enough for one
# program to combine those of a group.
_MOST_TILES = 256
# How kernels are compiled. Multiply-adds are not fused, which Triton's versions decide differently.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


@dataclass(frozen=True)
class Tiling:
    """How the activations of one face are divided among programs."""

    # channels of a program; divides those of the tensor
    block: int
    # pixels of one load
    rows: int
    # loads of a program that takes moments
    steps: int
    # such programs for each block of channels
    tiles: int


@cache
def tiling(pixels: int, channels: int, element_size: int) -> Tiling:
    """The tiles of a face of so many pixels. channels: a common divisor of all sources' widths; sizes in bytes."""
    block = min(channels & -channels, 256)
    rows = min(_TILE_BYTES // (block * element_size), triton.next_power_of_2(pixels))
    steps = triton.next_power_of_2(triton.cdiv(pixels, rows * _MOST_TILES))
    return Tiling(block, rows, steps, triton.cdiv(pixels, rows * steps))


# -- kernels: activations [B, HW, C]; a program's face is the last axis of its grid ------------------------------------


@triton.jit
def _moments(
    x, moments, HW: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of each channel in a tile, to [B, tiles, 2, C] float32.

    The source [B, HW, WIDTH] is the channels from FIRST on. Deviations are from the tile's first pixel, so that nothing
    is lost where a channel is far from zero.
    """
    tile, face = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = x + face * HW * WIDTH
    start = tile * ROWS * STEPS
    origin = tl.load(source + start * WIDTH + c).to(tl.float32)
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for step in range(STEPS):
        p = start + step * ROWS + tl.arange(0, ROWS)
        inside = (p < HW)[:, None]
        v = tl.load(source + p[:, None] * WIDTH + c[None, :], mask=inside, other=0.0).to(tl.float32)
        v = tl.where(inside, v - origin[None, :], 0.0)
        sums += v
        squares += v * v
    total = tl.sum(sums, 0)
    mean = total / tl.minimum(HW - start, ROWS * STEPS).to(tl.float32)
    target = moments + (face * tl.num_programs(0) + tile) * 2 * C + FIRST + c
    tl.store(target, origin + mean)
    tl.store(target + C, tl.sum(squares, 0) - total * mean)


@triton.jit
def _affine(
    moments, weight, shift, rows, before, affine, eps, HW: tl.constexpr, C: tl.constexpr, GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr, TILES_PADDED: tl.constexpr,
    BY_ROW: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Factor and offset of each channel of a group, to [B, 2, C] float32: norm, affine and bias in one."""
    group, face = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tile = tl.arange(0, TILES_PADDED)[:, None]
    k = tl.arange(0, GROUP_PADDED)
    c = group * GROUP + k
    present = (tile < TILES) & (k < GROUP)[None, :]
    source = moments + (face * TILES + tile) * 2 * C + c[None, :]
    mean = tl.load(source, mask=present, other=0.0)
    squares = tl.load(source + C, mask=present, other=0.0)
    bias = tl.zeros((GROUP_PADDED,), tl.float32)
    if BIASED:
        bias = tl.load(before + c, mask=k < GROUP, other=0.0).to(tl.float32)
    mean += bias[None, :]
    pixels = tl.where(present, tl.minimum(HW - tile * TILE, TILE), 0).to(tl.float32)
    whole = tl.sum(tl.sum(pixels * mean, 1), 0) / (HW * GROUP)
    away = mean - whole
    variance = tl.sum(tl.sum(squares + pixels * away * away, 1), 0) / (HW * GROUP)
    deviation = tl.sqrt(tl.maximum(variance, 0.0) + eps)
    row = face * 0
    if BY_ROW:
        row = tl.load(rows + face)
    factor = tl.load(weight + row * C + c, mask=k < GROUP, other=0.0).to(tl.float32) / deviation
    offset = tl.load(shift + row * C + c, mask=k < GROUP, other=0.0).to(tl.float32)
    target = affine + face * 2 * C + c
    tl.store(target, factor, mask=k < GROUP)
    tl.store(target + C, offset + (bias - whole) * factor, mask=k < GROUP)


@triton.jit
def _apply(
    x, affine, y, HW: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Factor, offset and activation of a tile; the source [B, HW, WIDTH] is the channels from FIRST on."""
    face = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (p < HW)[:, None]
    source = x + face * HW * WIDTH
    v = tl.load(source + p[:, None] * WIDTH + c[None, :], mask=inside, other=0.0).to(tl.float32)
    coefficients = affine + face * 2 * C + FIRST + c
    v = v * tl.load(coefficients)[None, :] + tl.load(coefficients + C)[None, :]
    if SILU:
        v = v * tl.sigmoid(v)
    target = y + face * HW * C + FIRST
    tl.store(target + p[:, None] * C + c[None, :], v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _add(one, two, three, bias, y, count, C: tl.constexpr, BLOCK: tl.constexpr, THIRD: tl.constexpr):
    """The sum of two or three tensors and a bias by channel, rounded once."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    v = tl.load(one + i, mask=inside, other=0.0).to(tl.float32)
    v += tl.load(two + i, mask=inside, other=0.0).to(tl.float32)
    if THIRD:
        v += tl.load(three + i, mask=inside, other=0.0).to(tl.float32)
    v += tl.load(bias + i % C).to(tl.float32)
    tl.store(y + i, v.to(y.dtype.element_ty), mask=inside)


# -- operators: opaque to torch.compile, and captured by CUDA graphs like any other ------------------------------------


@torch.library.custom_op("difface::group_norm", mutates_args=())
def group_norm(
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    shift: Tensor,
    rows: Tensor | None,
    bias: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    """act(norm([x, skip] + bias) · weight + shift): [B, C, H, W] channels_last, in the number type of x.

    x: [B, C1, H, W] and skip: [B, C2, H, W] or None, read as one channel axis of C = C1 + C2. weight and shift: [C], or
    [K, C] tables of which rows ([B] int64) gives each face its own. bias: [C], added before the norm. Statistics and
    arithmetic are float32. float16, bfloat16 or float32.
    """
    sources = [s.contiguous(memory_format=torch.channels_last) for s in (x, skip) if s is not None]
    widths = [s.shape[1] for s in sources]
    b, channels, pixels = len(x), sum(widths), x.shape[2] * x.shape[3]
    of = tiling(pixels, math.gcd(*widths), x.element_size())
    moments = torch.empty(b, of.tiles, 2, channels, device=x.device)
    affine = torch.empty(b, 2, channels, device=x.device)
    y = _output(x, channels)
    group = channels // groups
    with torch.cuda.device_of(x):
        for first, width, source in zip((0, widths[0]), widths, sources, strict=False):
            _moments[of.tiles, width // of.block, b](
                source, moments, pixels, first, width, channels, of.block, of.rows, of.steps, **_OPTIONS
            )
        _affine[groups, b](
            moments, weight.contiguous(), shift.contiguous(), moments if rows is None else rows,
            moments if bias is None else bias, affine, eps, pixels, channels, group, triton.next_power_of_2(group),
            of.rows * of.steps, of.tiles, triton.next_power_of_2(of.tiles), rows is not None, bias is not None,
            **_OPTIONS,
        )  # fmt: skip
        for first, width, source in zip((0, widths[0]), widths, sources, strict=False):
            _apply[triton.cdiv(pixels, of.rows), width // of.block, b](
                source, affine, y, pixels, first, width, channels, of.block, of.rows, silu, **_OPTIONS
            )
    return y


@torch.library.custom_op("difface::add_biased", mutates_args=())
def add_biased(one: Tensor, two: Tensor, three: Tensor | None, bias: Tensor) -> Tensor:
    """one + two (+ three) + bias, all [B, C, H, W] but the bias, [C]: channels_last, in float32 and rounded once."""
    terms = [v.contiguous(memory_format=torch.channels_last) for v in (one, two, three) if v is not None]
    y = _output(one, one.shape[1])
    block = _TILE_BYTES // one.element_size()
    with torch.cuda.device_of(one):
        _add[(triton.cdiv(y.numel(), block),)](
            terms[0], terms[1], terms[-1], bias, y, y.numel(), one.shape[1], block, three is not None,
            **_OPTIONS,
        )  # fmt: skip
    return y


@group_norm.register_fake
def _(x, skip, weight, shift, rows, bias, groups, eps, silu):
    return _output(x, x.shape[1] + (0 if skip is None else skip.shape[1]))


@add_biased.register_fake
def _(one, two, three, bias):
    return _output(one, one.shape[1])


def _output(like: Tensor, channels: int) -> Tensor:
    """[B, channels, H, W] channels_last, not initialised."""
    b, _, height, width = like.shape
    return torch.empty(
        b, channels, height, width, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
