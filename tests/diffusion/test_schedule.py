import math

import numpy as np
import pytest

from pipeline.diffusion.schedule import (
    chain_from,
    contraction,
    kept_steps,
    linear_alphas_bar,
    make_schedule,
)
from tests import golden_data as golden

RECORDED = golden.arrays("schedules")
RESPACINGS = sorted({key.split("/")[0] for key in RECORDED})


@pytest.mark.parametrize("respacing", RESPACINGS)
def test_kept_steps_are_exactly_the_official_ones(respacing):
    schedule = make_schedule(respacing)
    assert schedule.t.tolist() == RECORDED[f"{respacing}/timestep_map"].tolist()


@pytest.mark.parametrize("respacing", RESPACINGS)
def test_alpha_bar_is_the_official_one_to_the_last_digits_of_float64(respacing):
    recorded = RECORDED[f"{respacing}/alphas_cumprod"].numpy()
    np.testing.assert_allclose(make_schedule(respacing).ab, recorded, rtol=1e-12, atol=0)


def test_respacing_leaves_alpha_bar_unchanged_on_the_kept_steps():
    schedule = make_schedule("ddim50")
    assert np.array_equal(schedule.ab, linear_alphas_bar()[schedule.t])


@pytest.mark.parametrize(
    ("respacing", "steps", "kept"),
    [
        ("ddim4", 16, [0, 4, 8, 12]),
        ("ddim5", 16, None),
        ("4", 16, [0, 5, 10, 15]),
        ("1", 16, [0]),
        ("ddim1", 16, [0]),
        ("16", 16, list(range(16))),
    ],
)
def test_respacing_rules_on_a_short_schedule(respacing, steps, kept):
    if kept is None:
        with pytest.raises(
            ValueError, match="no whole stride keeps exactly 5 of 16 steps; try 5 without 'ddim'"
        ):
            kept_steps(respacing, steps)
    else:
        assert kept_steps(respacing, steps).tolist() == kept


@pytest.mark.parametrize("respacing", ["ddim", "", "0", "1001", "-5", "ddim2.5", "fast", "ddim ddim5"])
def test_a_respacing_that_is_none_is_refused(respacing):
    with pytest.raises(ValueError, match="steps must be 'ddimK' or 'K' with K from 1 to 1000"):
        make_schedule(respacing)


def test_a_shorter_schedule_scales_its_betas_by_what_it_is_shorter():
    betas = 1 - linear_alphas_bar(500)[0], 1 - linear_alphas_bar(500)[-1] / linear_alphas_bar(500)[-2]
    assert betas == pytest.approx((2e-4, 0.04), rel=1e-9)


@pytest.mark.parametrize(
    ("step", "sqrt_ab", "kappa"),
    [
        (100, 0.946, 8.54),
        (200, 0.810, 1.91),
        (300, 0.628, 0.650),
        (400, 0.440, 0.240),
        (480, 0.308, 0.105),
        (500, 0.279, 0.084),
        (600, 0.160, 0.026),
    ],
)
def test_the_error_contraction_is_that_of_the_paper(step, sqrt_ab, kappa):
    ab = linear_alphas_bar()[[step]]
    assert math.sqrt(ab[0]) == pytest.approx(sqrt_ab, abs=6e-4)
    assert contraction(ab)[0] == pytest.approx(kappa, rel=7e-3, abs=5e-4)


def test_the_official_chain_makes_its_first_call_one_kept_step_below_the_one_it_is_drawn_at():
    schedule = make_schedule("ddim250")
    chain = chain_from(schedule, 400)
    assert chain.start == 100
    assert [int(schedule.t[i]) for i in (chain.indices[0], chain.indices[-1])] == [396, 0]
    assert len(chain.indices) == 100


def test_the_paper_chain_makes_its_first_call_at_the_step_it_is_drawn_at():
    schedule = make_schedule("ddim250")
    chain = chain_from(schedule, 400, rule="paper")
    assert chain.start == 100
    assert chain.indices == tuple(range(100, -1, -1))


def test_few_calls_take_equal_shares_of_the_steps_or_end_at_a_given_one():
    schedule = make_schedule("ddim250")

    def steps(calls, last_step, start_step=252):
        chain = chain_from(schedule, start_step, "paper", calls, last_step)
        return [int(schedule.t[i]) for i in chain.indices]

    assert steps(4, None) == [252, 188, 124, 60]
    assert steps(4, 8) == [252, 172, 92, 8]
    assert steps(2, 8) == [252, 8]
    # the kept step at or below it
    assert steps(3, 11) == [252, 132, 8]
    assert steps(3, 0) == [252, 128, 0]
    # a single call is made at N, and a chain too short for the last step takes equal shares
    assert steps(1, 8) == [252]
    assert steps(3, 8, start_step=16) == [16, 12, 8]
    assert steps(4, 8, start_step=16) == [16, 12, 8, 4]
    assert steps(2, 20, start_step=16) == [16, 8]


@pytest.mark.parametrize("name", golden.case_names())
def test_a_recorded_start_index_is_found_by_its_original_step(name):
    case = golden.case(name)
    schedule = make_schedule(case.respacing)
    assert chain_from(schedule, int(schedule.t[case.start])).start == case.start


def test_a_start_step_that_is_not_kept_names_its_neighbours():
    with pytest.raises(
        ValueError, match=r"start step 401 is not among the 250 kept steps.*nearest are \[400, 404\]"
    ):
        chain_from(make_schedule("ddim250"), 401)


def test_a_start_at_the_first_kept_step_leaves_no_step():
    with pytest.raises(ValueError, match="start step 0 leaves the chain without a step; choose one above 0"):
        chain_from(make_schedule("ddim250"), 0)
    assert chain_from(make_schedule("ddim250"), 0, rule="paper").indices == (0,)
