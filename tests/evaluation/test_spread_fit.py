"""The fit of the spread from which a face counts as invented."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.spread_fit import (
    ONE_PERSON,
    Sampled,
    correlation,
    describe_spread,
    draw_spread,
    fit_spread,
    missed_shares,
)


def people(count, angle, seed=0):
    """Faces whose identity spread is drawn from 2 to 10 degrees; angle: (spread, noise) → degrees to the truth."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(2, 10, count)
    noise = rng.normal(0, 1, count)
    angles = angle(spread, noise)
    return [
        Sampled(i // 2, float(rng.uniform(3, 9)), 2.0 + float(noise[i]), float(s), float(a), 30.0)
        for i, (s, a) in enumerate(zip(spread, angles, strict=True))
    ]


def test_the_bound_is_where_every_second_face_is_further_from_the_truth_than_a_person_from_himself():
    found = fit_spread(people(400, lambda spread, noise: ONE_PERSON + 1.5 * (spread - 6.4) + 2 * noise))
    assert found == pytest.approx(6.4, abs=0.4)


def test_faces_that_a_bound_separates_wholly_have_one_too():
    faces = people(60, lambda spread, noise: np.where(spread > 5, 20, 10))
    least, most = (
        max(f.spread_identity for f in faces if f.angle < 15),
        min(f.spread_identity for f in faces if f.angle > 15),
    )
    assert least - 0.1 <= fit_spread(faces) <= most + 0.1
    assert (
        missed_shares(faces, (least + most) / 2)["above"] == 1 and missed_shares(faces, least)["below"] == 0
    )


@pytest.mark.parametrize(
    "angle",
    [
        lambda spread, noise: ONE_PERSON + 3 * noise,  # says nothing
        lambda spread, noise: ONE_PERSON - 2 * (spread - 6) + noise,  # says the opposite
        lambda spread, noise: spread,  # none is missed
        lambda spread, noise: 30 + spread,  # all are
        lambda spread, noise: 21 + spread / 20 + 2 * noise,  # half would be missed far below the least
    ],
)
def test_without_a_spread_that_tells_there_is_no_bound(angle):
    faces = people(120, angle)
    assert fit_spread(faces) is None
    assert "no bound: 120 faces do not show" in describe_spread(faces, None)


def test_few_faces_say_nothing():
    faces = people(20, lambda spread, noise: 3 * spread)
    assert fit_spread(faces) is None and "too few faces" in describe_spread(faces, None)


def test_a_correlation_has_an_interval_over_photographs():
    x = np.arange(60.0)
    found = correlation(x, x**2, list(range(60)))
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1)) and found.faces == 60
    noisy = x + np.random.default_rng(0).normal(0, 20, 60)
    apart, together = (
        correlation(x, noisy, numbers) for numbers in (list(range(60)), [i // 15 for i in range(60)])
    )
    assert apart.low < apart.value < apart.high and apart.value == together.value
    # photographs, and not faces, are independent
    assert together.high - together.low != apart.high - apart.low
    assert correlation(x, np.ones(60), list(range(60))) is None


def test_what_the_bound_marks_is_said():
    faces = people(200, lambda spread, noise: ONE_PERSON + 1.5 * (spread - 6.4) + noise)
    shares = missed_shares(faces, 6.4)
    assert shares["below"] < 0.3 and shares["above"] > 0.7
    text = describe_spread(faces, 6.4)
    assert f"above 6.4 degrees {shares['marked']:.0%} of the faces are marked as invented" in text
    assert text.count("| δ third") == 3


def test_the_plot_is_a_picture_with_and_without_a_bound():
    faces = people(30, lambda spread, noise: 3 * spread)
    with_bound, without = draw_spread(faces, 5.0), draw_spread(faces, None)
    assert with_bound.startswith(b"\x89PNG") and with_bound != without
    assert draw_spread([replace(faces[0])], None).startswith(b"\x89PNG")
