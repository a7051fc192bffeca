"""FID and KID from inner products: the published formulas, of all faces and of a part."""

import numpy as np
import pytest

from pipeline.metrics.distribution import FeatureSums, frechet_distance
from pipeline.metrics.inner_products import PairedDistance, ReferenceDistance


def drawn(count, seed, dimensions=12):
    rng = np.random.default_rng(seed)
    return rng.normal(seed, 1, (count, dimensions)) @ rng.normal(0, 1, (dimensions, dimensions))


@pytest.mark.parametrize("count", [2, 9, 40])
def test_fid_is_that_of_the_features_and_of_any_part_of_them(count):
    ours, theirs = drawn(count, 1), drawn(count, 2)
    distance = PairedDistance(ours, theirs)
    assert distance()["fid"] == pytest.approx(frechet_distance(ours, theirs), rel=1e-6)
    part = np.arange(0, count, 2) if count > 2 else np.array([1, 0])
    assert distance(part)["fid"] == pytest.approx(frechet_distance(ours[part], theirs[part]), rel=1e-6)
    assert PairedDistance(ours, ours)()["fid"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("count", [9, 40])
def test_fid_from_a_reference_is_that_of_the_sums(count):
    reference = FeatureSums.of(drawn(60, 3)).statistics
    ours = drawn(count, 1)
    distance, part = ReferenceDistance(ours, reference), np.array([4, 0, 7])
    for found, features in ((distance(), ours), (distance(part), ours[part])):
        assert found["fid"] == pytest.approx(
            FeatureSums.of(features).statistics.distance(reference), rel=1e-6
        )


def test_kid_is_the_mean_kernel_over_pairs_of_different_faces():
    x, y = drawn(4, 1), drawn(4, 2)

    def kernel(a, b):
        return (a @ b / 12 + 1) ** 3

    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    wanted = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) - 2 * kernel(x[i], y[j]) for i, j in pairs])
    assert PairedDistance(x, y)()["kid"] == pytest.approx(wanted)


def test_kid_of_few_faces_is_unbiased_even_where_the_sets_are_of_the_same_faces():
    """Both sets have one distribution, and rows of one number are correlated."""
    rng = np.random.default_rng(0)
    found, large = [], []
    for _ in range(400):
        x = rng.normal(0, 1, (12, 6))
        y = (x + rng.normal(0, 1, (12, 6))) / 2**0.5
        found.append(PairedDistance(x, y)()["kid"])
        large.append(PairedDistance(x, y)()["fid"])
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    # while FID is not: it is never below 0
    assert np.mean(large) > 1
