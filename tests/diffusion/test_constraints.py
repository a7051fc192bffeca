"""Each step of a chain is held to what is known of the face, exactly or as closely as asked."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from pipeline.diffusion.constraints import Constraint, Grey, Inpaint, Shrink

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
