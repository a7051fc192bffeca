"""A face's own N."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from pipeline.diffusion.schedule import contraction, make_schedule
from pipeline.diffusion.start import StartChoice, error_signs, fit_weights

SCHEDULE = make_schedule("ddim250")


def choice(contracted, bounds=(80, 320), weights=(0.0, 1.0) + (0.0,) * 6, calls=None):
    """Foretells as error how far the estimator moved the face."""
    return StartChoice(SCHEDULE, "official", calls, bounds, contracted, weights)


def faces(moved):
    crop = np.full((64, 64, 3), 100, np.uint8)
    return crop, crop + np.uint8(moved)


def start_step(chooser, moved):
    return int(SCHEDULE.t[chooser(*faces(moved)).start])


def test_the_contracted_error_is_the_same_for_every_face():
    kappa = dict(zip(SCHEDULE.t.tolist(), contraction(SCHEDULE.ab), strict=True))
    chooser = choice(kappa[160] * 16**2)
    for moved in (10, 13, 16, 20, 26):
        assert kappa[start_step(chooser, moved)] * moved**2 == pytest.approx(kappa[160] * 16**2, rel=0.06)
    assert start_step(chooser, 16) == 160
    assert start_step(chooser, 10) < 160 < start_step(chooser, 26)


def test_the_choice_stays_within_its_bounds():
    chooser = choice(800.0, bounds=(120, 200))
    assert start_step(chooser, 1) == 120 and start_step(chooser, 120) == 200


def test_few_calls_are_kept_to():
    assert len(choice(800.0, calls=7)(*faces(16)).walk) == 7


def test_blur_and_noise_are_told_apart_from_a_clean_face():
    clean = Image.fromarray(data.astronaut()[0:160, 140:300]).resize((64, 64))
    blurred = np.asarray(clean.filter(ImageFilter.GaussianBlur(2)))
    noisy = np.asarray(clean) + np.random.default_rng(0).normal(0, 10, (64, 64, 3))
    signs = [
        error_signs(np.asarray(x).clip(0, 255).astype(np.uint8), blurred) for x in (clean, blurred, noisy)
    ]
    finest = [s[2] for s in signs]
    assert finest[1] < finest[0] < finest[2]


def test_fitted_weights_foretell_what_they_were_fitted_to():
    rng = np.random.default_rng(0)
    signs = [np.concatenate([[1.0], rng.normal(size=7)]) for _ in range(100)]
    truth = np.array([2.0, 0.5, -1, 0.2, 0.3, 0, 1, -0.4])
    weights = fit_weights(signs, [float(np.exp(s @ truth)) for s in signs])
    np.testing.assert_allclose(weights, truth, atol=1e-3)
