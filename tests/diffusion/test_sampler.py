import numpy as np
import pytest
import torch

from pipeline.diffusion.sampler import coefficients, ddim_step, diffuse, predict_x0, step_table
from pipeline.diffusion.schedule import make_schedule
from tests import golden_data as golden

CASES = golden.case_names()


def reference_step(t_bar, t_bar_prev, x, eps, z, eta, last):
    """One DDIM step in float64, from Eq. (12) and (16) of the DDIM paper (arXiv 2010.02502), apart from our code."""
    x0 = np.clip(x / np.sqrt(t_bar) - np.sqrt(1 / t_bar - 1) * eps, -1, 1)
    variance = eta**2 * (1 - t_bar_prev) / (1 - t_bar) * (1 - t_bar / t_bar_prev)
    mean = np.sqrt(t_bar_prev) * x0 + np.sqrt(1 - t_bar_prev - variance) * eps
    return x0, mean + (0 if last else np.sqrt(variance) * z)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("respacing", ["ddim250", "50"])
def test_a_step_agrees_with_an_independent_one_in_float64(respacing, eta):
    schedule = make_schedule(respacing)
    table = step_table(schedule, eta)
    rng = np.random.default_rng(0)
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.exp(np.cumsum(np.log1p(-betas)))
    for index in (0, 1, 2, len(schedule.t) // 2, len(schedule.t) - 1):
        x, eps, z = rng.standard_normal((3, 2, 3, 4, 4))
        before = bar[schedule.t[index - 1]] if index else 1.0
        want_x0, want = reference_step(bar[schedule.t[index]], before, x, eps, z, eta, last=index == 0)
        c = coefficients(table[[index, index]])
        ours = [torch.from_numpy(a).float() for a in (x, eps, z)]
        x0 = predict_x0(ours[0], ours[1], c)
        # x̂_0 divides by sqrt(ᾱ), and float32's rounding with it.
        np.testing.assert_allclose(x0.numpy(), want_x0, rtol=0, atol=1e-6 / bar[schedule.t[index]] ** 0.5)
        got = ddim_step(torch.from_numpy(want_x0).float(), ours[1], ours[2], c)
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-6)


def test_each_face_of_a_batch_takes_its_own_step():
    table = step_table(make_schedule("ddim250"), 0.5)
    x, eps, z = torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = table[[99, 3, 0, 42]]
    together = ddim_step(predict_x0(x, eps, coefficients(rows)), eps, z, coefficients(rows))
    for i in range(4):
        c = coefficients(rows[[i]])
        alone = ddim_step(predict_x0(x[[i]], eps[[i]], c), eps[[i]], z[[i]], c)
        assert torch.equal(together[[i]], alone)


def test_without_eta_noise_has_no_part():
    c = coefficients(step_table(make_schedule("ddim50"), 0.0)[[7]])
    x0, eps = torch.rand(2, 1, 3, 4, 4)
    assert torch.equal(
        ddim_step(x0, eps, torch.full_like(eps, 1e6), c), ddim_step(x0, eps, torch.zeros_like(eps), c)
    )


def test_the_last_step_gives_x0_itself_whatever_eta_and_noise():
    c = coefficients(step_table(make_schedule("ddim50"), 1.0)[[0]])
    x0, eps = torch.rand(2, 1, 3, 4, 4)
    assert torch.equal(ddim_step(x0, eps, torch.full_like(eps, 1e6), c), x0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_keeps_the_variance_the_schedule_says(eta):
    # For x_0 = 0 the two noises of a step must add up to 1 - ᾱ_prev.
    schedule = make_schedule("ddim250")
    table = step_table(schedule, eta).double()
    np.testing.assert_allclose(
        (table[1:, 3] ** 2 + table[1:, 4] ** 2).numpy(), 1 - schedule.ab_prev[1:], atol=1e-7
    )


def test_eta_one_is_the_posterior_of_ddpm():
    schedule = make_schedule("ddim250")
    posterior = schedule.betas[1:] * (1 - schedule.ab_prev[1:]) / (1 - schedule.ab[1:])
    np.testing.assert_allclose(step_table(schedule, 1.0)[1:, 4].numpy() ** 2, posterior, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_chain_is_entered_where_the_recording_entered_it(name):
    case = golden.case(name)
    ab = float(make_schedule(case.respacing).ab[case.start])
    x_n = diffuse(case.arrays["im_hq"] * 2 - 1, golden.noise_bank()[0], ab**0.5, (1 - ab) ** 0.5)
    torch.testing.assert_close(x_n, case.arrays["yt"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_recorded_states_follow_from_the_states_before_them(name):
    case = golden.case(name)
    schedule = make_schedule(case.respacing)
    table = step_table(schedule, case.eta)
    noise, prior = golden.noise_bank(), golden.network("unet")
    for k in (k for k in case.recorded_steps if k in (0, 1, 2)):
        index = case.start - 1 - k
        x = case.arrays["yt"] if k == 0 else case.arrays[f"x_after_{k - 1}"]
        c = coefficients(table[[index, index]])
        eps = prior(x, torch.full((2,), int(schedule.t[index])))[:, :3]
        x0 = predict_x0(x, eps, c)
        after = ddim_step(x0, eps, noise[1 + k], c)
        torch.testing.assert_close(x0, case.arrays[f"x0_at_{k}"], rtol=0, atol=5e-5)
        torch.testing.assert_close(after, case.arrays[f"x_after_{k}"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_the_last_recorded_state_leads_to_the_recorded_picture(name):
    case = golden.case(name)
    before = case.arrays[f"x_after_{case.start - 2}"]
    c = coefficients(step_table(make_schedule(case.respacing), case.eta)[[0, 0]])
    eps = golden.network("unet")(before, torch.zeros(2, dtype=torch.int64))[:, :3]
    picture = (ddim_step(predict_x0(before, eps, c), eps, golden.noise_bank()[case.start], c) + 1) / 2
    torch.testing.assert_close(picture.clamp(0, 1), case.arrays["final"], rtol=0, atol=1e-5)
