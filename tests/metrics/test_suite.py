"""What is asked for is measured, what can not be is named or absent, and a value is the face's own."""

import numpy as np
import pytest
from skimage import data, metrics

from pipeline.metrics.no_reference import NO_REFERENCE
from pipeline.metrics.suite import METRICS, Face, Suite, columns_of, parse_metrics

ASTRONAUT = data.astronaut()
# two different crops, and what stands for their restorations
TRUTHS = [np.ascontiguousarray(ASTRONAUT[y : y + 64, 180:244]) for y in (80, 300)]
AFTERS = [(t // 2 + 50).astype(np.uint8) for t in TRUTHS]
FACES = [Face(a[::-1].copy(), a, t) for a, t in zip(AFTERS, TRUTHS, strict=True)]


def test_names_become_columns_in_one_order():
    assert parse_metrics("psnr, quality", with_truth=True) == ("quality", "psnr")
    assert columns_of(("psnr", "quality")) == ("quality_before", "quality_after", "psnr")
    assert parse_metrics("none", with_truth=True) == ()
    assert parse_metrics("all", with_truth=True) == tuple(METRICS)
    blind = (*("identity", "landmarks", "quality", "adaface"), *NO_REFERENCE, "features")
    assert parse_metrics("all", with_truth=False) == blind


@pytest.mark.parametrize(("text", "why"), [("beauty", "got beauty"), ("quality,lpips", "lpips compare with")])
def test_names_that_nothing_can_be_measured_by_are_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse_metrics(text, with_truth=False)


# metrics whose weights are no part of the package or of one that it needs, and NIQE, which wants larger faces
FROM_ELSEWHERE = {"lpips", "dists", "adaface", *NO_REFERENCE}


@pytest.fixture(scope="module")
def suite():
    """All that needs no file from elsewhere."""
    made = Suite([name for name in METRICS if name not in FROM_ELSEWHERE])
    assert made.left_out == {}
    return made


@pytest.fixture(scope="module")
def alone(suite):
    """What is measured of each face by itself."""
    return [suite([face]) for face in FACES]


def test_fidelity_is_told_as_scikit_image_tells_it(alone):
    values, after, truth = alone[0].values[0], AFTERS[0], TRUTHS[0]
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert values["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(truth, after), abs=1e-3)
    structure = metrics.structural_similarity(truth, after, channel_axis=2, data_range=255, **gauss)
    assert values["ssim"] == pytest.approx(structure, abs=1e-4)


def test_values_are_the_same_in_whatever_company_and_without_truth(suite, alone):
    without = Face(FACES[0].before, FACES[0].after)
    together = suite([FACES[0], without, FACES[1]])
    assert [together.values[i] for i in (0, 2)] == [a.values[0] for a in alone]
    assert set(together.values[0]) == set(columns_of(suite.names))
    blind = columns_of([name for name in suite.names if not METRICS[name].needs_truth])
    assert together.values[1] == {c: alone[0].values[0][c] for c in blind}
    features, true = together.features, together.features_truth
    assert features.shape == (3, 2048) and features.dtype == np.float16
    assert np.array_equal(features[[0, 2]], np.concatenate([a.features for a in alone]))
    assert np.array_equal(true[[0, 2]], np.concatenate([a.features_truth for a in alone]))
    assert np.array_equal(features[1], features[0]) and np.isnan(true[1]).all()


def test_what_can_not_be_told_of_a_face_is_absent_and_its_neighbour_has_it():
    flat = np.full((64, 64, 3), 9, np.uint8)
    nothing, told = Suite(("quality",))([Face(flat, flat), FACES[0]]).values
    assert nothing == {} and len(told) == 2


def test_a_restored_face_has_a_value_of_a_metric_without_reference_where_it_is_defined():
    large = np.ascontiguousarray(ASTRONAUT[:192, 160:352])
    found = Suite(("niqe",))([Face(large, large), FACES[0]]).values
    assert found[0]["niqe"] == pytest.approx(5.4164, abs=2e-3) and found[1] == {}


def test_a_metric_whose_weights_are_missing_is_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "alexnet_features.pth").write_bytes(b"no weights")
    suite = Suite(("psnr", "lpips"), weights_dir=str(tmp_path))
    assert suite.names == ("psnr",) and "alexnet_features.pth" in suite.left_out["lpips"]
    assert [set(v) for v in suite(FACES).values] == [{"psnr"}] * 2


def test_no_faces_give_no_values(suite):
    measured = suite([])
    assert measured.values == [] and measured.features.shape == (0, 2048)
