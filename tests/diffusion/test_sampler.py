import numpy as np
import pytest
import torch

from pipeline.diffusion.difface import reverse_chain
from pipeline.diffusion.sampler import coefficients, diffuse, predict_x0, solver_step, step_table
from pipeline.diffusion.schedule import Chain, chain_from, make_schedule
from tests import golden_data as golden

CASES = golden.blind_names()


def table_of(schedule, eta):
    """Row i: the DDIM coefficients at the schedule's index i."""
    last = len(schedule.t) - 1
    return step_table(schedule, Chain(last, tuple(range(last, -1, -1))), eta).flip(0)


def ddim_step(x0, eps, z, c):
    nothing = torch.zeros_like(x0)
    return solver_step(nothing, x0, eps, nothing, z, c)


def reference_step(t_bar, t_bar_prev, x, eps, z, eta, last):
    """One DDIM step in float64, from Eq. (12) and (16) of the DDIM paper (arXiv 2010.02502), not from our code."""
    x0 = np.clip(x / np.sqrt(t_bar) - np.sqrt(1 / t_bar - 1) * eps, -1, 1)
    variance = eta**2 * (1 - t_bar_prev) / (1 - t_bar) * (1 - t_bar / t_bar_prev)
    mean = np.sqrt(t_bar_prev) * x0 + np.sqrt(1 - t_bar_prev - variance) * eps
    return x0, mean + (0 if last else np.sqrt(variance) * z)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("respacing", ["ddim250", "50"])
def test_a_step_agrees_with_an_independent_one_in_float64(respacing, eta):
    schedule = make_schedule(respacing)
    table = table_of(schedule, eta)
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
    table = table_of(make_schedule("ddim250"), 0.5)
    x, eps, z = torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = table[[99, 3, 0, 42]]
    together = ddim_step(predict_x0(x, eps, coefficients(rows)), eps, z, coefficients(rows))
    for i in range(4):
        c = coefficients(rows[[i]])
        alone = ddim_step(predict_x0(x[[i]], eps[[i]], c), eps[[i]], z[[i]], c)
        assert torch.equal(together[[i]], alone)


def test_without_eta_noise_has_no_part():
    c = coefficients(table_of(make_schedule("ddim50"), 0.0)[[7]])
    x0, eps = torch.rand(2, 1, 3, 4, 4)
    assert torch.equal(
        ddim_step(x0, eps, torch.full_like(eps, 1e6), c), ddim_step(x0, eps, torch.zeros_like(eps), c)
    )


def test_the_last_step_gives_x0_itself_whatever_eta_and_noise():
    c = coefficients(table_of(make_schedule("ddim50"), 1.0)[[0]])
    x0, eps = torch.rand(2, 1, 3, 4, 4)
    assert torch.equal(ddim_step(x0, eps, torch.full_like(eps, 1e6), c), x0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_keeps_the_variance_the_schedule_says(eta):
    # For x_0 = 0 the two noises of a step must add up to 1 - ᾱ_prev.
    schedule = make_schedule("ddim250")
    table = table_of(schedule, eta).double()
    np.testing.assert_allclose(
        (table[1:, 4] ** 2 + table[1:, 6] ** 2).numpy(), 1 - schedule.ab[:-1], atol=1e-7
    )


def test_eta_one_is_the_posterior_of_ddpm():
    schedule = make_schedule("ddim250")
    ab, ab_prev = schedule.ab[1:], schedule.ab[:-1]
    posterior = (1 - ab / ab_prev) * (1 - ab_prev) / (1 - ab)
    np.testing.assert_allclose(table_of(schedule, 1.0)[1:, 6].numpy() ** 2, posterior, rtol=1e-5)


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
    table = table_of(schedule, case.eta)
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
    c = coefficients(table_of(make_schedule(case.respacing), case.eta)[[0, 0]])
    eps = golden.network("unet")(before, torch.zeros(2, dtype=torch.int64))[:, :3]
    picture = (ddim_step(predict_x0(before, eps, c), eps, golden.noise_bank()[case.start], c) + 1) / 2
    torch.testing.assert_close(picture.clamp(0, 1), case.arrays["final"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("calls", [2, 3, 5, 10, 20, None])
def test_dpm_solver_agrees_with_diffusers(calls):
    from diffusers import DPMSolverMultistepScheduler

    schedule = make_schedule("ddim250")
    chain = chain_from(schedule, 400, calls=calls)
    steps = [int(schedule.t[i]) for i in chain.indices]
    theirs = DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", solver_order=2,
        # which together clamp x̂_0 to [-1, 1]
        thresholding=True, dynamic_thresholding_ratio=1.0, sample_max_value=1.0,
    )  # fmt: skip
    theirs.set_timesteps(timesteps=steps)
    x_n, target = 0.2 * torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def prior(x, t):
        """Any smooth function of both."""
        return torch.tanh(x - target + t[:, None, None, None] / 1000) / 4

    want = x_n
    for t in theirs.timesteps:
        want = theirs.step(prior(want, t[None]), t, want).prev_sample
    ours = reverse_chain(x_n, prior, schedule, chain, 0.5, lambda step: torch.full_like(x_n, 1e3), "dpm++")
    torch.testing.assert_close(ours, want, rtol=0, atol=2e-5)


def test_dpm_solver_converges_faster_than_ddim_on_a_known_flow():
    """For x_0 ~ N(0, s²) the exact ε is known: with few steps the second order comes nearer to the fine solution."""
    schedule, spread = make_schedule("ddim250"), 0.3
    ab = {int(t): float(a) for t, a in zip(schedule.t, schedule.ab, strict=True)}

    def prior(x, t):
        a = ab[int(t[0])]
        return (1 - a) ** 0.5 * x / (a * spread**2 + 1 - a)

    x_n = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3

    def solve(calls, solver):
        chain = chain_from(schedule, 400, calls=calls)
        return reverse_chain(x_n, prior, schedule, chain, 0.0, lambda _: torch.zeros_like(x_n), solver)

    fine = solve(None, "ddim")
    errors = {solver: float((solve(10, solver) - fine).abs().mean()) for solver in ("ddim", "dpm++")}
    assert errors["dpm++"] < 0.5 * errors["ddim"]
