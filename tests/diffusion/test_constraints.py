"""Each step of a chain is held to what is known of the face, exactly or as closely as asked."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d

from pipeline.diffusion.constraints import Constraint, Grey, Hold, Inpaint, Shrink, low_frequencies

SIDE = 8


def hole() -> torch.Tensor:
    known = torch.ones(1, SIDE, SIDE)
    known[:, 2:5, 3:7] = 0
    return known


DEGRADATIONS = {"inpaint": Inpaint(hole()), "grey": Grey(), "shrink": Shrink(4)}


@dataclass(frozen=True)
class Blur:
    """A user's own: no closed form."""

    def observe(self, x):
        return F.avg_pool2d(F.pad(x[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]

    def project(self, x0, seen, weight):
        return None


def faces(count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, SIDE, SIDE, generator=generator) * 2 - 1


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_closed_form_with_an_infinite_weight_shows_exactly_what_was_seen(name):
    truth, guess = faces()
    how = DEGRADATIONS[name]
    held = Constraint(how, how.observe(truth)).refine(guess)
    torch.testing.assert_close(how.observe(held), how.observe(truth), atol=1e-6, rtol=0)
    assert not torch.allclose(held, truth, atol=0.1)
    # holding twice changes nothing
    torch.testing.assert_close(Constraint(how, how.observe(truth)).refine(held), held, atol=1e-6, rtol=0)


@pytest.mark.parametrize("weight", [0.3, 4.0])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_closed_form_is_where_the_two_distances_are_least(name, weight):
    truth, guess = faces()
    how = DEGRADATIONS[name]
    seen = how.observe(truth)
    x = Constraint(how, seen, weight).refine(guess).clone().requires_grad_()
    distance = (x - guess).square().sum() + weight * (how.observe(x) - seen).square().sum()
    (gradient,) = torch.autograd.grad(distance, x)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=2e-5, rtol=0)


def test_known_pixels_come_back_bit_for_bit():
    truth, guess = faces()
    how = Inpaint(hole())
    held = Constraint(how, how.observe(truth)).refine(guess)
    assert torch.equal(held * how.known, truth * how.known)
    assert torch.equal(held * (1 - how.known), guess * (1 - how.known))


def test_one_gradient_step_of_a_half_is_the_official_programs_replacement():
    truth, guess = faces()
    how = Inpaint(hole())
    stepped = Constraint(how, how.observe(truth), steps=1, rate=0.5).refine(guess)
    exact = Constraint(how, how.observe(truth)).refine(guess)
    torch.testing.assert_close(stepped, exact, atol=1e-6, rtol=0)


def test_an_operator_without_a_closed_form_is_followed_by_gradient_steps_in_inference_mode():
    truth, guess = faces()
    how = Blur()
    with torch.inference_mode():
        seen = how.observe(truth)
        off = [
            float((how.observe(Constraint(how, seen, steps=n, rate=0.5).refine(guess)) - seen).norm())
            for n in (0, 1, 5, 50)
        ]
    start = float((how.observe(guess) - seen).norm())
    # without a number of steps it takes one
    assert off[0] == off[1] < start
    assert off[3] < 0.1 * start and off[1] > off[2] > off[3]


def test_a_constraint_moves_to_a_device_with_all_its_tensors():
    moved = Constraint(Inpaint(hole()), torch.zeros(3, SIDE, SIDE)).on(torch.device("meta"))
    assert moved.seen.is_meta and moved.degradation.known.is_meta
    own = Blur()
    assert Constraint(own, torch.zeros(3, SIDE, SIDE)).on(torch.device("meta")).degradation == own


def gaussian(x, sigma, axes=(-1, -2)):
    """An independent one, cut off behind three sigma and mirrored at the edges, whose own pixels are not repeated."""
    blurred = x.double().numpy()
    reach = min(int(3 * sigma + 0.5), x.shape[-1] - 1)
    for axis in axes:
        blurred = gaussian_filter1d(blurred, sigma, axis=axis, mode="mirror", radius=reach)
    return blurred


def wide(side):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side)).double() * 2 - 1


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0, 1.5, 2.0, 3.3, 5.0, 8.0])
@pytest.mark.parametrize("side", [5, 16, 64])
def test_low_frequencies_are_what_a_gaussian_leaves(side, sigma):
    """Of a picture smaller than the Gaussian, too."""
    x = wide(side)
    np.testing.assert_allclose(low_frequencies(x, sigma).numpy(), gaussian(x, sigma), rtol=0, atol=1e-12)


def test_low_frequencies_of_a_plain_picture_are_the_picture_and_keep_its_number_type():
    plain = torch.full((3, 16, 16), 0.25)
    assert low_frequencies(plain, 2.0).dtype == torch.float32
    torch.testing.assert_close(low_frequencies(plain, 2.0), plain, atol=1e-6, rtol=0)


def test_low_frequencies_of_a_separable_picture_are_those_of_its_factors():
    row, column = wide(32)[0, 0, 0], wide(32)[1, 0, 0]
    alone = [torch.from_numpy(gaussian(v, 1.5, axes=(-1,))) for v in (column, row)]
    both = low_frequencies(torch.outer(column, row)[None], 1.5)[0]
    torch.testing.assert_close(both, torch.outer(*alone), atol=1e-12, rtol=0)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_hold_puts_the_estimates_low_frequencies_in_the_place_of_the_chains(weight):
    estimated, guess = wide(32)
    held = Hold.to(estimated, 1.5, weight).refine(guess)
    wanted = guess.numpy() + weight * (gaussian(estimated, 1.5) - gaussian(guess, 1.5))
    np.testing.assert_allclose(held.numpy(), wanted, rtol=0, atol=1e-12)
    # G is no projection: what remains of the low frequencies' difference is G of what G does not let through
    difference = torch.from_numpy(gaussian(estimated, 1.5)) - low_frequencies(held, 1.5)
    between = torch.from_numpy(gaussian(estimated - guess, 1.5))
    left = between - weight * torch.from_numpy(gaussian(between, 1.5))
    torch.testing.assert_close(difference, left, atol=1e-12, rtol=0)
    assert float(left.norm()) < float(between.norm())


def test_a_hold_moves_to_a_device_and_holds_several_faces_at_once():
    estimated, guess = wide(16)
    hold = Hold.to(estimated, 1.0)
    assert hold.on(torch.device("meta")).low.is_meta
    assert torch.equal(hold.refine(torch.stack([guess, guess]))[1], hold.refine(guess))
