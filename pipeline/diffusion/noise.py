"""Noise that belongs to a face: Philox4x32-10 counters turned into normal numbers.

A value depends on (run seed, sha256 of the source image, face index, step, position) and on nothing else: not on
the batch, the worker, the clock or the device. Integer arithmetic is exact on every device; the normal transform
runs in float64 and is rounded once to float32.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Step tags that are not steps of the chain.
DRAW_X_N = 0xFFFFFFFF

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


@dataclass(frozen=True)
class NoiseKey:
    """What makes a face's noise its own: 128 bits of a digest, as four 32-bit words."""

    words: tuple[int, int, int, int]


def noise_key(seed: int, image_sha256: str, face: int) -> NoiseKey:
    """The key of one face. image_sha256: hexadecimal digest of the source image's bytes."""
    digest = hashlib.sha256(f"{seed}:{image_sha256}:{face}".encode()).digest()
    a, b, c, d = (int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return NoiseKey((a, b, c, d))


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32 on int64 tensors that hold unsigned 32-bit words; shapes broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = _multiply(c0, _M0)
        hi1, lo1 = _multiply(c2, _M1)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def _multiply(word: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32x32-bit product. The int64 product wraps; its bits are right all the same."""
    product = word * by
    return (product >> 32) & _MASK, product & _MASK


def normal_noise(keys: Tensor, steps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[B, *shape] float32 standard normal noise.

    keys: [B, 4] int64 words of each face's NoiseKey. steps: [B] int64 step tags. Box-Muller on pairs of
    32-bit words.
    """
    count = math.prod(shape)
    blocks = torch.arange((count + 3) // 4, dtype=torch.int64, device=keys.device)[None]
    k = keys[:, :, None]
    words = philox4x32((blocks, steps[:, None], k[:, 2], k[:, 3]), (k[:, 0], k[:, 1]))
    u = [(w.double() + 0.5) * 2.0**-32 for w in words]
    values = []
    for radius, angle in ((u[0], u[1]), (u[2], u[3])):
        r = (-2 * radius.log()).sqrt()
        values += [r * (2 * math.pi * angle).cos(), r * (2 * math.pi * angle).sin()]
    flat = torch.stack(values, dim=-1).reshape(keys.shape[0], -1)[:, :count]
    return flat.float().reshape(keys.shape[0], *shape)


def key_tensor(keys: list[NoiseKey], device: torch.device | str = "cpu") -> Tensor:
    """[B, 4] int64, what `normal_noise` takes."""
    return torch.tensor([k.words for k in keys], dtype=torch.int64, device=device)
