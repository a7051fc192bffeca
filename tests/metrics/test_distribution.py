"""Fréchet distance on features whose Gaussians are known, and on the real Inception once."""

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage import data
from torch import nn

from pipeline.metrics.distribution import FID, InceptionFeatures, frechet_distance


class Colours(nn.Module):
    """Three features: the mean of each channel."""

    def forward(self, faces):
        return faces.double().mean(dim=(2, 3))


def flat(mean, count=400, seed=0):
    values = mean + 0.05 * torch.randn(count, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    return values.clamp(0, 1).expand(-1, 3, 8, 8)


def test_two_samples_of_one_distribution_are_near_and_shifted_ones_as_far_as_their_means():
    distance = FID(Colours(), 3)
    distance.add_truth(flat(0.5))
    near, far = distance([flat(0.5, seed=1)]), distance([flat(0.6, seed=2)])
    assert near < 10
    assert far == pytest.approx(3 * (0.1 * 255) ** 2, rel=0.1)


def test_asking_twice_gives_the_same_answer():
    distance = FID(Colours(), 3)
    distance.add_truth(flat(0.5))
    assert distance([flat(0.4)]) == distance([flat(0.4)])


@pytest.mark.timeout(240)
def test_inception_tells_a_cat_from_a_person():
    person, cat = (
        torch.from_numpy(picture[:200, :200].transpose(2, 0, 1)[None].copy())
        for picture in (data.astronaut(), data.chelsea())
    )
    features = InceptionFeatures()
    a, b, c = features(person), features(person // 2 + 60), features(cat)
    assert a.shape == (1, 2048)
    assert (a - b).norm() < (a - c).norm()


@pytest.mark.parametrize(("ours", "theirs"), [(5, 7), (40, 9), (30, 50)])
def test_the_distance_from_features_is_the_formula_of_the_covariances(ours, theirs):
    rng = np.random.default_rng(ours)
    a, b = rng.normal(size=(ours, 12)), rng.normal(0.5, 2, size=(theirs, 12))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second + 1e-12 * np.eye(12)).real
    gap = a.mean(axis=0) - b.mean(axis=0)
    wanted = gap @ gap + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-5)
