"""Validation on a fixed batch: loss, scores, and a grid of pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.datasets.faces import FaceAddress, to_picture
from pipeline.diffusion.difface import enter_chain, face_noise, from_signed, reverse_chain
from pipeline.diffusion.noise import DRAW_X_N, noise_key
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.io.weights import METRIC_WEIGHTS, WeightsError, resolve
from pipeline.training.loop import Metrics, Objective
from pipeline.training.objectives import PriorEps
from pipeline.training.samples import Degrade, FaceSamples, stack

# Faces shown in a grid.
SHOWN = 8
# First sample index of the fixed batch, beyond those of any training: the index determines a sample's noise.
FIRST = 1 << 48


class Preview(Protocol):
    """Computes the columns of the grid."""

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
        """Columns, each [B, 3, S, S] in [0, 1]."""


@dataclass(frozen=True)
class EstimatorPreview:
    """degraded | estimated | truth."""

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
        return [batch["lq"][:, :3], network(batch["lq"]).float(), batch["hq"]]


@dataclass(frozen=True)
class PriorPreview:
    """noised to step N | denoised in a few steps | truth."""

    # N: original step number; the kept step at or below it is taken
    start_step: int
    # respacing of the reverse chain
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


class Scores(Protocol):
    """Scores of a network besides its loss."""

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name → [B] values of each score."""


class EstimatorScores:
    """PSNR, SSIM and, where its weights are available, LPIPS of the estimate against the truth."""

    def __init__(self, weights_dir: str | None = None) -> None:
        self._each: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        try:
            from pipeline.metrics.fidelity import LPIPS, psnr, ssim

            self._each |= {"psnr": psnr, "ssim": ssim}
            lpips = METRIC_WEIGHTS["lpips"]
            self._each["lpips"] = LPIPS(resolve(lpips.file, lpips.url, lpips.sha256, weights_dir).path)
        except ImportError as error:
            print(f"validation without some scores ({error}); install the extra `evaluate`", flush=True)
        except WeightsError as error:
            print(f"validation without LPIPS: {error}", flush=True)

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        estimate, truth = network(batch["lq"]).float().clamp(0, 1).cpu(), batch["hq"].cpu()
        return {name: measure(estimate, truth) for name, measure in self._each.items()}


@dataclass(frozen=True)
class PriorScores:
    """The loss of ε by bands of steps: which noise levels are still being learnt."""

    objective: PriorEps
    bands: int = 4

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        edges = [self.objective.max_step * n // self.bands for n in range(self.bands + 1)]
        return {
            f"loss_steps_{low:03d}_{high - 1:03d}": self.objective.errors(network, batch, low, high)
            for low, high in pairwise(edges)
            if low < high
        }


class FixedBatch:
    """A batch with the same faces, degradations, timesteps and noises at every validation."""

    def __init__(
        self, faces: Sequence[FaceAddress], side: int, seed: int, degrade: Degrade | None, count: int
    ) -> None:
        samples = FaceSamples(faces, side, seed, degrade, flip=False)
        self._samples = [samples[FIRST + i] for i in range(min(count, len(faces)))]

    def measure(
        self, network: nn.Module, objective: Objective, scores: Scores, device: torch.device, batch: int
    ) -> Metrics:
        """Means over the faces of the objective (`loss`) and of the scores. batch: faces per network call."""
        network.eval()
        totals: dict[str, float] = {}
        for i in range(0, len(self._samples), batch):
            part = self._samples[i : i + batch]
            with torch.no_grad():
                faces = self._batch(part, device)
                values: Mapping[str, float] = {"loss": float(objective(network, faces)) * len(part)} | {
                    name: float(each.double().sum()) for name, each in scores(network, faces).items()
                }
            totals = {name: totals.get(name, 0.0) + value for name, value in values.items()}
        return {name: total / len(self._samples) for name, total in totals.items()}

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
