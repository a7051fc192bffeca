"""The variational bound against torch's own distributions, and that it trains the variance alone."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from pipeline.diffusion.schedule import linear_alphas_bar
from pipeline.training.objectives import PriorEps
from pipeline.training.variance import VarianceBound, discrete_log_likelihood

STEPS = 1000
X0, EPS = (
    torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1,
    torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)),
)


def posterior(t):
    """Weights of x_0 and x_t in the mean of q(x_{t-1} | x_t, x_0), its variance and β (Ho et al., Eqs. 6-7)."""
    ab = linear_alphas_bar(STEPS)
    beta = 1 - ab[t] / ab[t - 1]
    weight_x0 = ab[t - 1] ** 0.5 * beta / (1 - ab[t])
    weight_xt = (1 - beta) ** 0.5 * (1 - ab[t - 1]) / (1 - ab[t])
    return weight_x0, weight_xt, beta * (1 - ab[t - 1]) / (1 - ab[t]), beta


@pytest.mark.parametrize("t", [1, 250, 998])
def test_the_bound_is_the_divergence_of_the_two_gaussians_in_bits(t):
    ab = linear_alphas_bar(STEPS)[t]
    x_t = ab**0.5 * X0 + (1 - ab) ** 0.5 * EPS
    guess, v = EPS + 0.1, torch.full_like(EPS, 0.3)
    a, b, small, large = posterior(t)
    x0_guess = ((x_t - (1 - ab) ** 0.5 * guess) / ab**0.5).clamp(-1, 1)
    spread = (large ** ((0.3 + 1) / 2) * small ** ((1 - 0.3) / 2)) ** 0.5
    expected = kl_divergence(Normal(a * X0 + b * x_t, small**0.5), Normal(a * x0_guess + b * x_t, spread))
    steps = torch.full((2,), t)
    bound = VarianceBound(STEPS)(X0, x_t, steps, guess, v)
    bits = expected.mean(dim=(1, 2, 3)) / torch.log(torch.tensor(2.0))
    torch.testing.assert_close(bound, bits, rtol=2e-3, atol=1e-6)


def test_the_right_mean_with_the_smaller_variance_costs_nothing():
    ab = linear_alphas_bar(STEPS)[500]
    x_t = ab**0.5 * X0 + (1 - ab) ** 0.5 * EPS
    bound = VarianceBound(STEPS)(X0, x_t, torch.full((2,), 500), EPS, -torch.ones_like(EPS))
    assert bound.abs().max() < 1e-5


def test_the_bins_of_all_pixel_values_hold_the_whole_mass():
    values = (torch.arange(256) / 127.5 - 1).float()
    mass = discrete_log_likelihood(values, torch.tensor(0.2), torch.tensor(-2.0)).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)


def test_the_bound_reaches_the_variance_channels_and_leaves_the_noise_to_the_mean_square():
    def gradients(channels):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 6, 1)
        batch = {"hq": (X0 + 1) / 2, "index": torch.tensor([5, 6])}
        loss = PriorEps(0)(lambda x, t: network(x)[:, :channels], batch)
        loss.backward()
        return network.weight.grad

    six, three = gradients(6), gradients(3)
    torch.testing.assert_close(six[:3], three[:3])
    assert six[3:].abs().sum() > 0 and three[3:].abs().sum() == 0
