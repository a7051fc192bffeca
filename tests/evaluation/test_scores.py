"""Scores from records: means, intervals, paired differences, strata."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.report import harm_by_stratum, make_report, verdict
from pipeline.evaluation.scores import (
    Measured,
    Score,
    by_stratum,
    difference,
    fid,
    mean,
    nearest_to_ideal,
    read_run,
    strata,
)

RNG = np.random.default_rng(0)


def row(name, psnr, lpips=None, features=None):
    values = {"psnr": np.asarray(psnr, float)} | ({} if lpips is None else {"lpips": np.asarray(lpips)})
    return Measured(name, values, features, {})


def test_a_mean_has_the_interval_of_its_finite_values():
    values = RNG.normal(5, 2, 400)
    score = mean(np.append(values, np.nan))
    assert score.value == pytest.approx(values.mean()) and score.faces == 400
    assert score.half == pytest.approx(1.96 * values.std(ddof=1) / 20)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    inside = [abs(s.value) <= s.half for s in (mean(RNG.normal(0, 1, 50)) for _ in range(1000))]
    assert 0.90 < np.mean(inside) < 0.98


def test_records_meet_the_names_of_the_set_whatever_their_order(tmp_path):
    (tmp_path / "records").mkdir()
    members = ["b.png", "a.png", "c.png", "c.png"]
    table = pa.table(
        {
            "kind": ["face", "face", "image", "face"],
            "member": members,
            "error": ["", "", "", "out of memory"],
            "psnr": pa.array([2.0, 1.0, None, 3.0], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "records" / "one-0000.parquet")
    found = read_run(str(tmp_path), ["a", "b", "c"], "way", {})
    np.testing.assert_array_equal(found.values["psnr"], [1, 2, np.nan])
    assert found.features is None and found.faces == 3


def test_differences_are_taken_face_by_face():
    base = RNG.normal(20, 5, 300)
    gap = difference(row("new", base - 1 + RNG.normal(0, 0.1, 300)), row("old", base))["PSNR"]
    assert gap.value == pytest.approx(-1, abs=0.05) and gap.half < 0.05


def test_fid_of_a_set_to_itself_is_nothing_and_grows_with_the_distance():
    truth = RNG.normal(size=(60, 16))
    assert fid(truth, truth).value == pytest.approx(0, abs=1e-6)
    near, far = (fid(truth + shift, truth).value for shift in (0.1, 1.0))
    assert near == pytest.approx(0.16, rel=0.01) and far == pytest.approx(16, rel=0.01)


def test_strata_are_fifths_by_severity_and_kinds_by_name():
    sheet = pa.table({"error": RNG.permutation(100).astype(float), "hole": ["box", "half"] * 50})
    fifths = strata(sheet)
    assert [int(f.sum()) for f in fifths.values()] == [20] * 5
    assert next(iter(fifths)) == "0 - 19" and sum(fifths.values()).tolist() == [1] * 100
    assert [int(k.sum()) for k in strata(sheet, "hole").values()] == [50, 50]
    told = by_stratum(row("way", sheet["error"].to_numpy()), fifths)["PSNR"]
    assert [s.value for s in told.values()] == sorted(s.value for s in told.values())


def test_the_best_point_is_nearest_to_the_best_of_both_axes():
    assert nearest_to_ideal({"a": (0, 10), "b": (1, 1), "c": (10, 0)}) == "b"
    assert nearest_to_ideal({"only": (3, 3)}) == "only"


def test_the_papers_pattern_is_told_by_intervals():
    clear = {"PSNR": Score(-1, 0.1, 9), "LPIPS": Score(-0.1, 0.01, 9), "FID": Score(-30, 5, 9)}
    assert "holds beyond" in verdict("way", clear)
    assert "not seen for LPIPS" in verdict("way", clear | {"LPIPS": Score(-0.1, 0.2, 9)})
    assert "not seen for want of scores" in verdict("way", {})


def test_without_a_metric_that_harm_is_measured_by_there_is_none():
    faces = strata(pa.table({"error": [1.0, 2.0]}))
    only = Measured("A", {"ssim": np.array([0.5, 0.6])}, None, {})
    assert harm_by_stratum(only, only, faces) == {}


def test_a_report_holds_tables_pictures_and_the_best_way():
    features = [(RNG.normal(s, 1, (8, 4)), RNG.normal(0, 1, (8, 4))) for s in (3, 0.2, 1, 2)]
    rows = [
        row(name, RNG.normal(level, 0.1, 8), RNG.normal(level / 100, 0.01, 8), f)
        for name, level, f in zip(("input", "srcnn", "A", "B"), (20, 24, 23, 21), features, strict=True)
    ]
    faces = [RNG.integers(0, 255, (16, 16, 3), np.uint8)] * 3
    groups = {"mild": np.arange(8) < 4, "hard": np.arange(8) >= 4}
    report = make_report(rows, {"A": "srcnn", "B": "srcnn"}, ["A", "B"], groups, "error", {"input": faces})
    # the mean PSNR rises from 20, and LPIPS from 0.2, by more than their spread
    assert report.harm["A"]["mild"] == {"psnr": 0, "lpips": 0.75, "any": 0.75}
    assert "| A | 0%, -, 75%, 75% |" in report.markdown()
    assert report.best == "A" and set(report.gaps) == {"A", "B"}
    assert "| 8 faces | PSNR ↑ | LPIPS ↓ | FID ↓ |" in report.markdown()
    assert "| against its estimator alone |" in report.markdown()
    assert "| PSNR | mild | hard |" in report.markdown()
    assert report.values()[2]["strata"]["PSNR"]["mild"]["faces"] == 4
    page = report.html("T")
    assert page.count("<table") == 5 and page.count("data:image/png") == 3
    assert all(data.startswith(b"\x89PNG") for data in report.pictures.values())
