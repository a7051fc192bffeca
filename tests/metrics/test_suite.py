"""What is asked for is measured, what can not be is named or absent, and a value is the face's own."""

import numpy as np
import pytest
from skimage import data, metrics

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
    assert parse_metrics("all", with_truth=False) == ("identity", "landmarks", "quality", "features")


@pytest.mark.parametrize(("text", "why"), [("beauty", "got beauty"), ("quality,lpips", "lpips compare with")])
def test_names_that_nothing_can_be_measured_by_are_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse_metrics(text, with_truth=False)


def test_every_value_is_the_libraries_own():
    [values] = Suite(("psnr", "ssim"))(FACES[:1]).values
    after, truth = AFTERS[0], TRUTHS[0]
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert values["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(truth, after), abs=1e-3)
    structure = metrics.structural_similarity(truth, after, channel_axis=2, data_range=255, **gauss)
    assert values["ssim"] == pytest.approx(structure, abs=1e-4)


def test_values_are_the_same_in_whatever_company():
    suite = Suite(("identity", "landmarks", "quality", "features", "psnr", "ssim", "ids", "lmd"))
    assert suite.left_out == {}
    together, alone = suite(FACES), [suite([face]) for face in FACES]
    assert together.values == [a.values[0] for a in alone]
    assert [set(v) for v in together.values] == [set(columns_of(suite.names))] * 2
    for one, rows in (("features", together.features), ("features_truth", together.features_truth)):
        assert rows.shape == (2, 2048) and rows.dtype == np.float16
        assert np.array_equal(rows, np.concatenate([getattr(a, one) for a in alone]))


def test_a_face_without_truth_has_no_value_of_what_compares_with_it():
    suite = Suite(("quality", "psnr", "features"))
    measured = suite([FACES[0], Face(AFTERS[1][::-1].copy(), AFTERS[1])])
    assert [set(v) for v in measured.values] == [
        {"quality_before", "quality_after", "psnr"},
        {"quality_before", "quality_after"},
    ]
    assert np.isfinite(measured.features).all()
    assert np.isfinite(measured.features_truth[0]).all() and np.isnan(measured.features_truth[1]).all()


def test_what_can_not_be_told_of_a_face_is_absent_and_its_neighbour_has_it():
    flat = np.full((64, 64, 3), 9, np.uint8)
    nothing, told = Suite(("quality",))([Face(flat, flat), FACES[0]]).values
    assert nothing == {} and len(told) == 2


def test_a_metric_whose_weights_are_missing_is_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "alexnet_features.pth").write_bytes(b"no weights")
    suite = Suite(("psnr", "lpips"), weights_dir=str(tmp_path))
    assert suite.names == ("psnr",) and "alexnet_features.pth" in suite.left_out["lpips"]
    assert [set(v) for v in suite(FACES).values] == [{"psnr"}] * 2


def test_no_faces_give_no_values():
    measured = Suite(("psnr", "features"))([])
    assert measured.values == [] and measured.features.shape == (0, 2048)
