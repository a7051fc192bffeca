"""How a training is doing, seen on a batch that never changes: its loss, and a grid to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.diffusion.difface import enter_chain, face_noise, from_signed, reverse_chain
from pipeline.diffusion.noise import DRAW_X_N, noise_key
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.training.loop import Objective
from pipeline.training.samples import FaceAddress, FaceSamples, Spoil, stack, to_picture

# Faces shown in a grid.
SHOWN = 8
# Sample numbers of the fixed batch: far from those of any training, whose noise a sample's number decides.
FIRST = 1 << 48


class Preview(Protocol):
    """Makes the columns of the grid."""

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
        """Columns, each [B, 3, S, S] in [0, 1]."""


@dataclass(frozen=True)
class EstimatorPreview:
    """degraded | estimated | truth."""

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
        return [batch["lq"][:, :3], network(batch["lq"]).float(), batch["hq"]]


@dataclass(frozen=True)
class PriorPreview:
    """noised to step N | walked back in a few steps | truth."""

    # N: original step number; the kept step at or below it is taken
    start_step: int
    # respacing of the walk back
    steps: str = "ddim20"

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
        faces = batch["hq"]
        schedule = make_schedule(self.steps)
        start = int(schedule.t[max(int(np.searchsorted(schedule.t, self.start_step, side="right")) - 1, 1)])
        chain = chain_from(schedule, start)
        keys = [noise_key(0, "preview", i) for i in range(len(faces))]
        noise = face_noise(keys, faces.shape[-1], faces.device)
        x_n = enter_chain(faces, schedule, chain, noise(DRAW_X_N))
        x_0 = reverse_chain(x_n, network, schedule, chain, 0.0, noise)
        return [from_signed(x_n), from_signed(x_0), faces]


class FixedBatch:
    """The same faces, degradations, timesteps and noises at every validation."""

    def __init__(
        self, faces: Sequence[FaceAddress], side: int, seed: int, spoil: Spoil | None, count: int
    ) -> None:
        samples = FaceSamples(faces, side, seed, spoil, flip=False)
        self._samples = [samples[FIRST + i] for i in range(min(count, len(faces)))]

    def loss(self, network: nn.Module, objective: Objective, device: torch.device, batch: int) -> float:
        """The objective's mean over the faces. `batch` faces go through the network at a time."""
        network.eval()
        total = 0.0
        for i in range(0, len(self._samples), batch):
            part = self._samples[i : i + batch]
            with torch.no_grad():
                total += float(objective(network, self._batch(part, device))) * len(part)
        return total / len(self._samples)

    def grid(self, network: nn.Module, preview: Preview, device: torch.device) -> NDArray[np.uint8]:
        """[rows * S, columns * S, 3] uint8: one row per face."""
        network.eval()
        with torch.no_grad():
            columns = preview(network, self._batch(self._samples[:SHOWN], device))
        rows = [
            np.concatenate([to_picture(tile) for tile in tiles], axis=1)
            for tiles in zip(*columns, strict=True)
        ]
        return np.concatenate(rows, axis=0)

    @staticmethod
    def _batch(samples: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
        return {name: values.to(device) for name, values in stack(samples).items()}
