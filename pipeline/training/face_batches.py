"""Batches for the portrait networks, made on the training's own device from crops that lie in its memory.

Batch k depends on (seed, k) and the faces alone, so that a resumed training sees the same batches.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.degradation_batch import degrade_batch, draw_portrait_degradations, to_grey
from pipeline.datasets.packed_faces import PackedFaces

Batch = dict[str, Tensor]
# Standard deviations of a copy's turn (degrees), scale (logarithm) and shift (of the side).
TURN, SCALE, SHIFT = 3.0, 0.04, 0.015
# Share of the faces that are turned and scaled. The others move by whole pixels, so that they stay sharp.
RESAMPLED = 0.5


class FaceBatches:
    """Number of a batch → `hq` [B, 3, S, S] float32 in [0, 1], `mask` [B, 1, S, S], and `lq` where it is degraded.

    mask: 1 where the crop shows its picture, 0 elsewhere. `seed`: of the randomness of the batch's loss.
    """

    def __init__(
        self, faces: PackedFaces, batch: int, seed: int, device: torch.device, degraded: bool = True
    ) -> None:
        self.batch, self.seed, self.device, self.degraded = batch, seed, device, degraded
        self.side, self.margin = faces.side, faces.margin
        self._crops = torch.from_numpy(faces.crops).permute(0, 3, 1, 2).contiguous().to(device)
        self._inside = torch.from_numpy(faces.inside)[:, None].to(device)

    @torch.no_grad()
    def __call__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, number])
        seed = int(rng.integers(1 << 62))
        index = torch.from_numpy(rng.integers(len(self._crops), size=self.batch)).to(self.device)
        grid = self._grid(rng)
        crops = F.grid_sample(
            self._crops[index].float(), grid, mode="bicubic", padding_mode="reflection", align_corners=True
        )
        inside = F.grid_sample(self._inside[index].float(), grid, align_corners=True) > 0.98
        faces = toned(crops.round_().clamp_(0, 255), rng)
        batch = {"mask": inside.float(), "seed": torch.tensor(seed)}
        if self.degraded:
            how = draw_portrait_degradations(rng, self.batch, self.side)
            noise = torch.Generator(self.device).manual_seed(seed)
            degraded, faces = degrade_batch(faces, how, noise)
            batch["lq"] = degraded / 255
        return batch | {"hq": faces / 255}

    def _grid(self, rng: np.random.Generator) -> Tensor:
        """[B, S, S, 2] where each pixel of a copy lies in its crop, in grid_sample's coordinates."""
        count, width = self.batch, self.side + 2 * self.margin
        turn, scale = np.radians(rng.normal(0, TURN, count)), np.exp(rng.normal(0, SCALE, count))
        shift = rng.normal(0, SHIFT, (count, 2)) * self.side
        whole = rng.random(count) >= RESAMPLED
        turn[whole], scale[whole] = 0, 1
        shift[whole] = np.clip(np.rint(shift[whole]), -self.margin, self.margin)
        mirror = np.where(rng.random(count) < 0.5, -1, 1)
        cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
        rows = np.stack([mirror * cos, -mirror * sin, shift[:, 0], sin, cos, shift[:, 1]], 1).reshape(
            -1, 2, 3
        )
        offset = torch.arange(self.side, device=self.device) - (self.side - 1) / 2
        y, x = torch.meshgrid(offset, offset, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)
        to_crop = torch.from_numpy((rows / ((width - 1) / 2)).astype(np.float32)).to(self.device)
        return (points @ to_crop.mT).view(count, self.side, self.side, 2)


def toned(faces: Tensor, rng: np.random.Generator) -> Tensor:
    """Some faces grey, tinted, or of another contrast, as archives have them; [B, 3, S, S] levels, 0..255."""
    count = len(faces)
    draw = rng.random(count)
    grey, tinted = draw < 0.22, draw < 0.09
    printed = rng.random(count) < 0.3
    warm, lift = rng.uniform(0, 0.18, count), rng.uniform(0, 12, count)
    gain = np.where(tinted[:, None], 1 + warm[:, None] * np.array([1, 0.1, -1.2]), 1)
    offset = np.where(tinted, lift, 0)[:, None] * np.ones(3)
    contrast, brightness = rng.uniform(0.7, 1.1, count), rng.uniform(-15, 15, count)
    contrast, brightness = np.where(printed, contrast, 1)[:, None], np.where(printed, brightness, 0)[:, None]
    gain, offset = gain * contrast, (offset - 128) * contrast + 128 + brightness
    if grey.any():
        index = torch.from_numpy(np.flatnonzero(grey)).to(faces.device)
        faces[index] = to_grey(faces[index])
    return (faces * _per_channel(gain, faces) + _per_channel(offset, faces)).round_().clamp_(0, 255)


def _per_channel(values: NDArray[np.float64], faces: Tensor) -> Tensor:
    """[B, 3] as [B, 3, 1, 1] on the faces' device."""
    return torch.from_numpy(values.astype(np.float32)).to(faces.device)[:, :, None, None]
