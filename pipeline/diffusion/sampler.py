"""The equations of one reverse step. Pure functions of tensors: no device, no model, no randomness."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.diffusion.schedule import Chain, Schedule

Solver = Literal["ddim", "dpm++"]

# Columns of a step table.
COEFFICIENTS = 7


@dataclass(frozen=True)
class StepCoefficients:
    """What one step needs for each face of a batch: float32 tensors [B, 1, 1, 1].

    Every solver here moves x to the same sum, with weights of its own:
    of_x x + of_x0 x̂_0 + of_eps ε + of_x0_before (x̂_0 of the step before) + of_noise z
    """

    sqrt_ab: Tensor  # sqrt(ᾱ)
    sqrt_1m_ab: Tensor  # sqrt(1 - ᾱ)
    of_x: Tensor
    of_x0: Tensor
    of_eps: Tensor
    of_x0_before: Tensor
    of_noise: Tensor


def step_table(schedule: Schedule, chain: Chain, eta: float, solver: Solver = "ddim") -> Tensor:
    """[K, 7] float32: the coefficients of every step of the chain in order, as StepCoefficients' fields.

    Computed in float64. eta: randomness of "ddim"; "dpm++" draws no noise.
    """
    ab = torch.from_numpy(schedule.ab[list(chain.indices)])
    ab_next = torch.cat([ab[1:], ab.new_ones(1)])
    weights = _dpm_weights(ab, ab_next) if solver == "dpm++" else _ddim_weights(ab, ab_next, eta)
    return torch.stack([ab.sqrt(), (1 - ab).sqrt(), *weights], dim=1).float()


def _ddim_weights(ab: Tensor, ab_next: Tensor, eta: float) -> list[Tensor]:
    """sqrt(ᾱ') x̂_0 + sqrt(1 - ᾱ' - σ²) ε + σ z, σ = η sqrt((1-ᾱ')/(1-ᾱ)) sqrt(1 - ᾱ/ᾱ')  (Eq. 7)."""
    sigma = eta * ((1 - ab_next) / (1 - ab)).sqrt() * (1 - ab / ab_next).sqrt()
    direction = (1 - ab_next - sigma**2).clamp(min=0).sqrt()
    sigma[-1] = 0
    nothing = torch.zeros_like(ab)
    return [nothing, ab_next.sqrt(), direction, nothing, sigma]


def _dpm_weights(ab: Tensor, ab_next: Tensor) -> list[Tensor]:
    """DPM-Solver++(2M): σ'/σ x - α' (e^-h - 1) ((1 + 1/2r) x̂_0 - 1/2r x̂_0 before), of first order at both ends.

    Source: Lu et al., "DPM-Solver++" (arXiv 2211.01095), Algorithm 2; its agreement with diffusers is tested.
    """
    alpha, sigma = ab_next.sqrt(), (1 - ab_next).sqrt()
    log_snr = 0.5 * (ab / (1 - ab)).log()
    h = log_snr.diff()  # of every step but the last, which ends where there is no noise
    share = 1 - torch.cat([(-h).exp(), h.new_zeros(1)])
    half_r = torch.zeros_like(ab)  # 1/2r; 0 makes a step first order
    half_r[1:-1] = h[1:] / (2 * h[:-1])
    nothing = torch.zeros_like(ab)
    return [
        sigma / (1 - ab).sqrt(),
        alpha * share * (1 + half_r),
        nothing,
        -alpha * share * half_r,
        nothing,
    ]


def coefficients(rows: Tensor) -> StepCoefficients:
    """[B, 7] rows of a step table → the coefficients, [B, 1, 1, 1] each, ready to broadcast over [B, C, H, W]."""
    return StepCoefficients(*rows[:, :, None, None, None].unbind(1))


def predict_x0(x: Tensor, eps: Tensor, c: StepCoefficients) -> Tensor:
    """x̂_0 from x_t and ε (Eq. 6), clamped to [-1, 1]; all [B, 3, S, S] float32."""
    return ((x - c.sqrt_1m_ab * eps) / c.sqrt_ab).clamp(-1, 1)


def solver_step(
    x: Tensor, x0: Tensor, eps: Tensor, x0_before: Tensor, z: Tensor, c: StepCoefficients
) -> Tensor:
    """x at the next step of the chain, [B, 3, S, S] float32. ε is not derived again from the clamped x̂_0."""
    return c.of_x0 * x0 + c.of_eps * eps + c.of_noise * z + (c.of_x * x + c.of_x0_before * x0_before)


def diffuse(x0: Tensor, noise: Tensor, sqrt_ab: Tensor | float, sqrt_1m_ab: Tensor | float) -> Tensor:
    """x_N = sqrt(ᾱ_N) x_0 + sqrt(1 - ᾱ_N) ε  (Eq. 11), [B, 3, S, S] float32."""
    return sqrt_ab * x0 + sqrt_1m_ab * noise
