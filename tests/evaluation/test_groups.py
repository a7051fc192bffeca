"""Scores, harm and gate decisions by groups, and when a group's gain is below half of that of all."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.stats import binomtest

from pipeline.evaluation.decisions import FAILED, NOT_FOUND, read_decisions
from pipeline.evaluation.groups import Groups, is_below_half, mean_over, wilson
from pipeline.evaluation.harm import Cuts, VariantResult, cut

ZEROS = np.zeros(6)


def groups(out, labels, decisions=None):
    """Two photographs at three levels, of which the first is clean."""
    cuts = cut(["clean", "rest", "rest"] * 2, [0, 0, 0, 5, 5, 5])
    variant = VariantResult("v", {"psnr": ZEROS}, {"psnr": np.asarray(out, float)}, {})
    return Groups({"sex": labels}, cuts, [variant], decisions or {})


def test_gains_leave_clean_faces_out_and_count_a_photograph_once():
    found = groups([-9, 1, 2, -9, 3, np.nan], ["F"] * 3 + [None] * 3)
    values = found.values(found.variants[0])["sex"]
    assert values["F"]["scores"]["PSNR"]["gain"] == {"value": 1.5, "interval": None}
    score = values["all"]["scores"]["PSNR"]["gain"]
    reach = stats.t.ppf(0.975, 1) * np.std([1.5, 3], ddof=1) / 2**0.5
    assert score == {"value": 2.25, "interval": pytest.approx(reach)}
    assert (values["F"]["photographs"], values["all"]["photographs"], values["F"]["few"]) == (1, 2, True)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_harm_is_a_share_over_photographs_with_an_interval_and_by_level():
    found = groups([-9, 1, 2, 0, 3, 4], ["F"] * 3 + ["M"] * 3)
    harm = found.values(found.variants[0])["sex"]
    assert harm["F"]["harm"]["any"]["share"] == pytest.approx(1 / 3)
    assert harm["F"]["levels"]["clean"]["share"] == 1 and harm["F"]["levels"]["rest"]["share"] == 0
    assert harm["M"]["harm"]["any"]["share"] == 0 and harm["M"]["harm"]["any"]["high"] > 0.5
    metrics = found.metrics()
    assert metrics["v/by sex/F/harm any share"] == pytest.approx(1 / 3)
    assert metrics["v/by sex/M/gain PSNR"] == 3.5


def test_tables_have_decisions_by_group_and_name_groups_of_few():
    decisions = {"v": ["as asked", "held more", "held more", "as asked", "as asked", NOT_FOUND]}
    scores, decided = groups([0] * 6, ["F"] * 3 + ["M"] * 3, decisions).tables
    assert [row["n"] for row in scores] == ["1 (few)", "1 (few)", "2 (few)"]
    assert list(decided[0])[2:] == ["as asked", "held more", NOT_FOUND]
    assert [row["held more"].split()[0] for row in decided] == ["67%", "0%", "33%"]


def test_an_interval_of_a_share_is_wilsons():
    for count, total in ((0, 20), (3, 20), (50, 50)):
        low, high = binomtest(count, total).proportion_ci(method="wilson")
        share = wilson(count / total, total)
        assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def drawn(seed, group, rest, count=20):
    """Gains of a group and of four times as many others, normal around these means."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(group, 1, count), rng.normal(rest, 1, 4 * count)])
    every = dict(enumerate(values.tolist()))
    return every, {i: every[i] for i in range(count)}


def test_a_group_without_any_gain_is_named_and_one_at_half_only_as_often_as_chance_has_it():
    assert all(is_below_half(*drawn(seed, 0.0, 2.5)) for seed in range(50))
    # group mean 1, mean of all (1 + 4 * 2.25) / 5 = 2: exactly half
    at_half = np.mean([is_below_half(*drawn(seed, 1.0, 2.25)) for seed in range(1000)])
    assert 0.01 < at_half < 0.045


def test_nothing_is_said_where_the_data_cannot_say():
    every, _ = drawn(0, 0.0, 2.5)
    assert not is_below_half(every, {0: every[0]}) and not is_below_half(every, every)
    # all gain nothing: half of that is no bound
    assert not any(is_below_half(*drawn(seed, -0.2, 0.0)) for seed in range(50))
    flat = groups([0, 1, 1, 0, 1, 1], ["F"] * 3 + ["M"] * 3)
    assert len(flat.sentences) == 1 and "few" in flat.sentences[0]


def test_a_group_that_gains_nothing_has_a_sentence():
    count = 40
    out = np.where(np.arange(count) < 20, 0.0, 3.0) + np.random.default_rng(0).normal(0, 0.1, count)
    variant = VariantResult("v", {"psnr": np.zeros(count)}, {"psnr": out}, {})
    labels = {"sex": ["F"] * 20 + ["M"] * 20}
    found = Groups(labels, Cuts({}, range(count)), [variant], {})
    [said, _] = found.sentences
    assert said.startswith("v: the gain in PSNR of sex F, ") and "below half of that of all" in said


def test_ranges_are_in_the_order_of_their_numbers():
    found = groups([0] * 6, ["10-19", "3-9", "70+", "b", "a", None])
    assert list(found.values(found.variants[0])["sex"]) == ["a", "b", "3-9", "10-19", "70+", "all"]


def test_a_mean_of_one_photograph_has_no_interval():
    assert np.isnan(mean_over(np.array([2.0])).half)


def test_decisions_are_those_of_the_face_in_the_measured_box(tmp_path):
    here, there = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    rows = [
        ("a.png", there, "", "", "", "asked"),
        ("a.png", here, "", "", "", "held"),
        ("b.png", there, "", "", "", "asked"),
        ("c.png", here, "", "it moved", "landmarks", ""),
        ("d.png", here, "out of memory", "", "", ""),
    ]
    names = ("member", "box", "error", "kept", "left_for", "rung")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    (tmp_path / "records").mkdir()
    pq.write_table(pa.table({"kind": ["face"] * 5} | columns), tmp_path / "records" / "u.parquet")
    found = read_decisions(str(tmp_path), ["a", "b", "c", "d", "e"], [here] * 5)
    assert found == ["held more", NOT_FOUND, "left: features would move", FAILED, NOT_FOUND]
    assert read_decisions(str(tmp_path), ["b"]) == ["as asked"]
