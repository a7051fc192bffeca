"""Algorithm 1 against the recordings of the official implementation."""

import pytest
import torch

from pipeline.diffusion.constraints import Constraint, Inpaint
from pipeline.diffusion.difface import enter_chain, face_noise, from_signed, restore, reverse_chain, unrefined
from pipeline.diffusion.noise import DRAW_X_N, noise_key
from pipeline.diffusion.schedule import Chain, chain_from, make_schedule
from tests import golden_data

FINAL, INNER = 1e-5, 5e-5


def recorded_noise(case, schedule, chain):
    """The recording's noise bank as a noise source: entry 0 for x_N, then one per loop step."""
    bank = golden_data.noise_bank()[:, : len(case.input)]
    place = {int(schedule.t[index]): 1 + k for k, index in enumerate(chain.indices)}
    return lambda step: bank[0 if step == DRAW_X_N else place[step]]


def holder(case):
    """What holds each x̂_0 to the known pixels, as the official program does; the faces' estimator, too."""
    if case.hole is None:
        return unrefined, golden_data.network(case.estimator) if case.estimated else torch.nn.Identity()
    known = 1 - case.hole
    held = [
        Constraint(Inpaint(k), k * y, steps=case.updates, rate=case.gamma)
        for k, y in zip(known, case.input * 2 - 1, strict=True)
    ]
    lama = golden_data.network("lama")
    return (
        lambda x0: torch.stack([c.refine(x) for c, x in zip(held, x0, strict=True)]),
        lambda faces: lama(torch.cat([faces, case.hole], dim=1)),
    )


@pytest.mark.parametrize("name", golden_data.case_names())
def test_restoration_and_inner_states_agree_with_the_official_program(name):
    case = golden_data.case(name)
    schedule = make_schedule(case.respacing)
    chain = Chain(case.start, tuple(range(case.start - 1, -1, -1)))
    noise = recorded_noise(case, schedule, chain)
    refine, estimator = holder(case)
    network, asked = golden_data.network("unet"), []

    def prior(x, t):
        asked.append(x)
        return network(x, t)

    with torch.inference_mode():
        estimated, restored = restore(
            case.input, estimator, prior, schedule, chain, case.eta, noise, refine=refine
        )
    torch.testing.assert_close(estimated, case.arrays["im_hq"], atol=FINAL, rtol=0)
    torch.testing.assert_close(asked[0], case.arrays["yt"], atol=FINAL, rtol=0)
    assert case.recorded_steps and len(asked) == case.start
    # what a step leaves is what the next one asks the network about, and what the last one leaves is restored
    for k in case.recorded_steps:
        torch.testing.assert_close(asked[k + 1], case.arrays[f"x_after_{k}"], atol=INNER, rtol=0)
    torch.testing.assert_close(restored, case.arrays["final"], atol=FINAL, rtol=0)


def test_the_paper_rule_asks_the_network_first_at_the_step_it_noised_to():
    schedule = make_schedule("ddim250")
    assert chain_from(schedule, 400, "official") == Chain(100, tuple(range(99, -1, -1)))
    assert chain_from(schedule, 400, "paper") == Chain(100, tuple(range(100, -1, -1)))


def test_both_start_rules_restore_and_differ():
    schedule = make_schedule("ddim50")
    faces = golden_data.case("restore_eta0").input
    keys = [noise_key(0, "00", i) for i in range(len(faces))]
    noise, prior = face_noise(keys, faces.shape[-1]), golden_data.network("unet")
    results = {}
    for rule in ("official", "paper"):
        with torch.inference_mode():
            _, results[rule] = restore(
                faces, torch.nn.Identity(), prior, schedule, chain_from(schedule, 400, rule), 0.5, noise
            )
    assert torch.isfinite(results["paper"]).all()
    assert 0 < (results["paper"] - results["official"]).abs().mean() < 0.2


def test_a_perfect_noise_predictor_brings_the_estimate_back_unchanged():
    """With η = 0 and the true ε at every step the chain is the identity on x_0."""
    schedule = make_schedule("ddim250")
    chain = chain_from(schedule, 400, "paper")
    x0 = torch.rand(2, 3, 16, 16) * 1.8 - 0.9
    noise = face_noise([noise_key(0, "ab", i) for i in range(2)], 16)
    ab = {int(t): float(a) for t, a in zip(schedule.t, schedule.ab, strict=True)}

    def true_eps(x, t):
        a = ab[int(t[0])]
        return (x - a**0.5 * x0) / (1 - a) ** 0.5

    x_n = enter_chain(from_signed(x0), schedule, chain, noise(DRAW_X_N))
    back = reverse_chain(x_n, true_eps, schedule, chain, 0.0, noise)
    torch.testing.assert_close(back, x0, atol=1e-4, rtol=0)
