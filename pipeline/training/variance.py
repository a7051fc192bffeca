"""The variational bound that trains a prior's variance channels.

Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672), Eqs. 4-10 and
15. DDIM sampling does not use the variance; it is trained so that the six channels have the same semantics as in
the published checkpoints.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from pipeline.diffusion.schedule import linear_alphas_bar


class VarianceBound:
    """L_t in bits per dimension, [B]: KL(q(x_{t-1}|x_t, x_0) ‖ p(x_{t-1}|x_t)), and at t = 0 -log p(x_0|x_1)."""

    def __init__(self, steps: int) -> None:
        self._tables = _tables(steps)

    def __call__(self, x0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """All images [B, 3, S, S]; x0 in [-1, 1]; v: the variance channels, -1 for β̃_t and 1 for β_t."""
        sqrt_ab, sqrt_1m_ab, c_x0, c_xt, log_small, log_large = (
            table.to(x_t.device)[t][:, None, None, None] for table in self._tables
        )
        true_mean = c_x0 * x0 + c_xt * x_t  # Eq. (11), μ̃_t
        mean = c_x0 * ((x_t - sqrt_1m_ab * eps) / sqrt_ab).clamp(-1, 1) + c_xt * x_t
        share = (v + 1) / 2
        log_var = share * log_large + (1 - share) * log_small  # Eq. (15)
        kl = gaussian_kl(true_mean, log_small, mean, log_var)
        nll = -discrete_log_likelihood(x0, mean, log_var / 2)
        bits = torch.where(t[:, None, None, None] == 0, nll, kl) / math.log(2)
        return bits.mean(dim=(1, 2, 3))


@lru_cache(maxsize=4)
def _tables(steps: int) -> tuple[Tensor, ...]:
    """sqrt(ᾱ), sqrt(1 - ᾱ), the two weights of μ̃_t, log β̃_t and log β_t of every step, float32."""
    ab = torch.from_numpy(linear_alphas_bar(steps))
    ab_prev = torch.cat([torch.ones(1, dtype=torch.float64), ab[:-1]])
    beta = 1 - ab / ab_prev
    small = beta * (1 - ab_prev) / (1 - ab)  # Eq. (10), β̃_t; 0 at t = 0, where its log is that of t = 1
    small = torch.cat([small[1:2], small[1:]])
    c_x0 = ab_prev.sqrt() * beta / (1 - ab)
    c_xt = (1 - beta).sqrt() * (1 - ab_prev) / (1 - ab)
    tables = (ab.sqrt(), (1 - ab).sqrt(), c_x0, c_xt, small.log(), beta.log())
    return tuple(table.float() for table in tables)


def gaussian_kl(mean_q: Tensor, log_var_q: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(q ‖ p) of diagonal Gaussians, element by element, in nats."""
    spread = (log_var_q - log_var_p).exp() + (mean_q - mean_p) ** 2 * (-log_var_p).exp()
    return 0.5 * (log_var_p - log_var_q - 1 + spread)


def discrete_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log of a Gaussian's mass in the bin of width 2/255 around x in [-1, 1]; the end bins reach to infinity."""
    normal = torch.distributions.Normal(0.0, 1.0)
    inverse = (-log_scale).exp()
    above = normal.cdf((x - mean + 1 / 255) * inverse)
    below = normal.cdf((x - mean - 1 / 255) * inverse)
    upper = torch.where(x > 0.999, torch.ones_like(x), above)
    lower = torch.where(x < -0.999, torch.zeros_like(x), below)
    return (upper - lower).clamp(min=1e-12).log()
