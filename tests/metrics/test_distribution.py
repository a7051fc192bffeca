"""Fréchet distance on features whose Gaussians are known, and on the real Inception once."""

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage import data

from pipeline.metrics.distribution import (
    FeatureStatistics,
    FeatureSums,
    InceptionFeatures,
    frechet_distance,
)


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


def drawn(count, seed):
    """[count, 6] features that are correlated, and no standard normal ones."""
    rng = np.random.default_rng(seed)
    return rng.normal(seed, 1, (count, 6)) @ rng.normal(0, 1, (6, 6))


def test_the_distance_of_sums_is_that_of_the_published_formula_however_they_were_added():
    ours, theirs = drawn(50, 1), drawn(70, 2)
    mean_gap = ours.mean(axis=0) - theirs.mean(axis=0)
    a, b = (np.cov(x, rowvar=False) for x in (ours, theirs))
    published = mean_gap @ mean_gap + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    parts = sum((FeatureSums.of(ours[i : i + 8]) for i in range(0, 50, 8)), FeatureSums.nothing(6))
    assert parts.count == 50
    assert parts.statistics.distance(FeatureSums.of(theirs).statistics) == pytest.approx(published, rel=1e-9)
    assert parts.statistics.distance(FeatureSums.of(ours).statistics) == pytest.approx(0, abs=1e-6)
    assert published == pytest.approx(frechet_distance(ours, theirs), rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(2, 70), (4, 3), (70, 4)])
def test_the_distance_of_sums_holds_for_fewer_faces_than_features(ours, theirs):
    ours, theirs = drawn(ours, 1), drawn(theirs, 2)
    found = FeatureSums.of(ours).statistics.distance(FeatureSums.of(theirs).statistics)
    assert found == pytest.approx(frechet_distance(ours, theirs), rel=1e-5)


def test_rows_of_faces_without_features_are_not_counted():
    features = drawn(5, 1)
    spoiled = np.insert(features, 2, np.nan, axis=0)
    assert FeatureSums.of(spoiled).count == 5
    assert np.array_equal(FeatureSums.of(spoiled).outer, FeatureSums.of(features).outer)


def test_one_face_is_no_set():
    with pytest.raises(ValueError, match="at least two faces"):
        _ = FeatureSums.of(drawn(1, 1)).statistics


def test_a_reference_set_round_trips_in_the_usual_format_and_another_file_is_refused(tmp_path):
    made = FeatureStatistics(9, np.arange(2048.0), np.eye(2048))
    made.save(str(tmp_path / "reference.npz"))
    kept = np.load(tmp_path / "reference.npz")
    assert kept["mu"].shape == (2048,) and kept["sigma"].shape == (2048, 2048) and kept["count"] == 9
    loaded = FeatureStatistics.load(str(tmp_path / "reference.npz"))
    assert np.array_equal(loaded.mean, made.mean) and np.array_equal(loaded.covariance, made.covariance)
    (tmp_path / "letter.npz").write_bytes(b"Dear Sir or Madam")
    with pytest.raises(
        ValueError, match=r"letter.npz: expected an .npz with mu .2048. .*: it is no zip archive;"
    ):
        FeatureStatistics.load(str(tmp_path / "letter.npz"))
