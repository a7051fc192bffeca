"""The equations of one reverse step. Pure functions of tensors: no device, no model, no randomness."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion.schedule import Schedule


@dataclass(frozen=True)
class StepCoefficients:
    """What one DDIM step needs for each face of a batch: five float32 tensors [B, 1, 1, 1]."""

    sqrt_ab: Tensor  # sqrt(ᾱ)
    sqrt_1m_ab: Tensor  # sqrt(1 - ᾱ)
    sqrt_ab_prev: Tensor  # sqrt(ᾱ_prev)
    direction: Tensor  # sqrt(1 - ᾱ_prev - σ²)
    sigma: Tensor  # σ, 0 at the last step


def step_table(schedule: Schedule, eta: float) -> Tensor:
    """[K, 5] float32: the coefficients of every kept step, in the order of StepCoefficients' fields.

    σ = η sqrt((1-ᾱ_prev)/(1-ᾱ)) sqrt(1 - ᾱ/ᾱ_prev)  (Eq. 7); computed in float64.
    """
    ab, ab_prev = torch.from_numpy(schedule.ab), torch.from_numpy(schedule.ab_prev)
    sigma = eta * ((1 - ab_prev) / (1 - ab)).sqrt() * (1 - ab / ab_prev).sqrt()
    direction = (1 - ab_prev - sigma**2).clamp(min=0).sqrt()
    sigma[0] = 0
    return torch.stack([ab.sqrt(), (1 - ab).sqrt(), ab_prev.sqrt(), direction, sigma], dim=1).float()


def coefficients(rows: Tensor) -> StepCoefficients:
    """[B, 5] rows of a step table → the coefficients, ready to broadcast over [B, C, H, W]."""
    return StepCoefficients(*rows[:, :, None, None, None].unbind(1))


def predict_x0(x: Tensor, eps: Tensor, c: StepCoefficients) -> Tensor:
    """x̂_0 from x_t and ε (Eq. 6), clamped to [-1, 1]."""
    return ((x - c.sqrt_1m_ab * eps) / c.sqrt_ab).clamp(-1, 1)


def ddim_step(x0: Tensor, eps: Tensor, z: Tensor, c: StepCoefficients) -> Tensor:
    """x_{t-1} from x̂_0 and ε (Eq. 7). ε is not derived again from the clamped x̂_0."""
    return c.sqrt_ab_prev * x0 + c.direction * eps + c.sigma * z


def diffuse(x0: Tensor, noise: Tensor, sqrt_ab: Tensor | float, sqrt_1m_ab: Tensor | float) -> Tensor:
    """x_N = sqrt(ᾱ_N) x_0 + sqrt(1 - ᾱ_N) ε  (Eq. 11)."""
    return sqrt_ab * x0 + sqrt_1m_ab * noise
