"""The paper's degradation: what it does, in which order of severity, and that a seed decides it."""

import numpy as np
import pytest
from skimage import data

from pipeline.datasets.degradation import (
    TEST_GRID,
    Degradation,
    blur_kernel,
    degrade,
    draw_degradation,
    grid_degradation,
)

FACE = np.ascontiguousarray(data.astronaut()[40:168, 150:278])
MILD = Degradation(sigma_x=0.5, sigma_y=0.5, theta=0, scale=1, noise=0, jpeg=95)


def error(how, seed=0):
    low, target = degrade(FACE, how, np.random.default_rng(seed))
    return float(np.abs(low.astype(float) - target).mean())


def test_a_mild_degradation_nearly_leaves_the_face():
    assert error(MILD) < 3


@pytest.mark.parametrize(
    "worse",
    [
        Degradation(15, 15, 0, 1, 0, 95),
        Degradation(0.5, 0.5, 0, 32, 0, 95),
        Degradation(0.5, 0.5, 0, 1, 20, 95),
        Degradation(0.5, 0.5, 0, 1, 0, 10),
    ],
)
def test_each_step_harms_on_its_own(worse):
    assert error(worse) > 1.3 * error(MILD)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    how = draw_degradation(np.random.default_rng(3))
    first, again, other = (degrade(FACE, how, np.random.default_rng(s))[0] for s in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_grey_takes_the_colour_of_face_and_target():
    low, target = degrade(FACE, Degradation(4, 4, 0, 4, 5, 60, grey=True), np.random.default_rng(0))
    for picture in (low, target):
        assert (picture == picture[..., :1]).all()


def test_the_kernel_sums_to_one_and_is_wider_along_its_own_axis():
    kernel = blur_kernel(Degradation(12, 3, 0, 1, 0, 95), 1.0)
    assert kernel.shape == (41, 41) and kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.sum(axis=0).max() < kernel.sum(axis=1).max()


def test_draws_stay_in_the_papers_ranges():
    rng = np.random.default_rng(0)
    for how in (draw_degradation(rng) for _ in range(300)):
        assert (
            0.1 <= how.sigma_x <= 15
            and 0.8 <= how.scale <= 32
            and 0 <= how.noise <= 20
            and 30 <= how.jpeg <= 100
        )


def test_four_thousand_faces_of_a_test_set_take_every_combination_once():
    drawn = [grid_degradation(number, seed=7) for number in range(4000)]
    assert len({(d.jpeg, d.noise, d.sigma_x, d.theta, d.scale) for d in drawn}) == len(TEST_GRID) == 4000
    assert all(4 <= d.sigma_y <= 16 for d in drawn) and len({d.sigma_y for d in drawn}) == 4000
    assert grid_degradation(11, seed=7) == drawn[11] != grid_degradation(11, seed=8)
