"""The losses of the two trainings."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.diffusion.noise import NoiseKey, key_tensor, normal_noise
from pipeline.diffusion.sampler import diffuse
from pipeline.diffusion.schedule import linear_alphas_bar
from pipeline.training.variance import VarianceBound


@dataclass(frozen=True)
class EstimatorL1:
    """mean |f(y_0) - x_0|: the estimator's only loss (DifFace, section 3.3)."""

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.l1_loss(model(batch["lq"]).float(), batch["hq"])


@dataclass(frozen=True)
class PriorEps:
    """mean ‖ε - ε_θ(x_t, t)‖² with t uniform below `max_step` (Ho et al., Eq. 14).

    A network that also predicts a variance (six channels) gets the rescaled variational bound for it, through
    which no gradient reaches ε (Nichol & Dhariwal, section 3.1). A prior that is only entered at step N needs no
    training above it.
    """

    # seed of the timesteps and noises
    seed: int
    # T of the schedule
    steps: int = 1000
    # timesteps are drawn below this one
    max_step: int = 1000

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x0 = batch["hq"] * 2 - 1
        t, eps = self.draw(batch["index"], tuple(x0.shape[1:]), x0.device)
        x_t = self._noised(x0, t, eps)
        predicted = model(x_t, t).float()
        loss = F.mse_loss(predicted[:, :3], eps)
        if predicted.shape[1] == 6:
            bound = VarianceBound(self.steps)(x0, x_t, t, predicted[:, :3].detach(), predicted[:, 3:])
            loss = loss + self.steps / 1000 * bound.mean()
        return loss

    def errors(self, model: nn.Module, batch: dict[str, Tensor], low: int, high: int) -> Tensor:
        """[B] mean ‖ε - ε_θ(x_t, t)‖² of each face, with t in [low, high)."""
        x0 = batch["hq"] * 2 - 1
        t, eps = self.draw(batch["index"], tuple(x0.shape[1:]), x0.device, low, high)
        predicted = model(self._noised(x0, t, eps), t).float()
        return F.mse_loss(predicted[:, :3], eps, reduction="none").mean(dim=(1, 2, 3))

    def draw(
        self,
        index: Tensor,
        shape: tuple[int, ...],
        device: torch.device,
        low: int = 0,
        high: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The timesteps [B] and noises [B, *shape] of the samples with these numbers.

        Timesteps are in [low, high); high defaults to `max_step`.
        """
        high = self.max_step if high is None else high
        numbers = [int(i) for i in index.cpu()]
        draws = [int(np.random.default_rng([self.seed, 2, i]).integers(low, high)) for i in numbers]
        t = torch.tensor(draws, dtype=torch.int64, device=device)
        keys = [NoiseKey((self.seed & 0xFFFFFFFF, 0, i & 0xFFFFFFFF, i >> 32)) for i in numbers]
        return t, normal_noise(key_tensor(keys, device), t, shape)

    def _noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t"""
        signal, noise = (table.to(x0.device)[t][:, None, None, None] for table in self._tables)
        return diffuse(x0, eps, signal, noise)

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor]:
        """sqrt(ᾱ_t) and sqrt(1 - ᾱ_t) of every step, float32."""
        ab = torch.from_numpy(linear_alphas_bar(self.steps))
        return ab.sqrt().float(), (1 - ab).sqrt().float()
