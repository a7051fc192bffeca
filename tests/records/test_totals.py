"""Shard metrics are values that add."""

import numpy as np
import pytest

from pipeline.records.rows import OUTCOMES, Counts
from pipeline.records.totals import ShardMetrics, sampling_text


def metrics_of(values):
    return ShardMetrics.of(Counts(values["images"], values["faces"], values["outcomes"]), values["sums"])


ONE = metrics_of(
    {
        "images": 2,
        "faces": 5,
        "outcomes": {"restored": 1, "no_face": 1, "skipped": 0, "failed": 0},
        # one was left before it had a crop, and one failed
        "sums": {"faces_left": 2.0, "faces_estimator": 1.0, "faces_chain": 1.0, "crops": 4.0,
                 "sharpness_before": 40.0, "sharpness_after": 80.0, "seconds_restore": 10.0, "slot_steps": 30.0,
                 "slot_capacity": 40.0, "slot_steps_pressed": 19.0, "slot_capacity_pressed": 20.0},
    }
)  # fmt: skip


def test_means_are_per_crop_and_fill_is_steps_over_room():
    means = ONE.means()
    assert (means["images"], means["faces"], means["outcome_restored"]) == (2, 5, 1)
    assert (means["faces_left"], means["faces_estimator"], means["faces_chain"]) == (2, 1, 1)
    assert means["sharpness_before"] == 10 and means["slot_fill"] == 0.75
    assert means["slot_fill_pressed"] == 0.95
    assert means["faces_per_second"] == pytest.approx(0.5)


def test_adding_keeps_means_and_adds_counts():
    both = (ONE + ONE).means()
    assert (
        both["images"] == 4
        and both["faces_left"] == 4
        and both["sharpness_after"] == 20
        and both["slot_fill"] == 0.75
    )


def test_a_shard_without_faces_tells_no_means():
    assert "sharpness_before" not in ShardMetrics().means() and ShardMetrics().counts.accounted
    assert ONE.decisions == {"left": 2, "estimator": 1, "chain": 1}
    assert ShardMetrics().decisions == {"left": 0, "estimator": 0, "chain": 0}


def test_faces_that_were_left_before_an_engine_looked_have_no_part_in_means():
    left = {"images": 1, "faces": 1, "outcomes": {"restored": 0, "no_face": 0, "skipped": 1, "failed": 0}}
    alone = metrics_of(left | {"sums": {"faces_left": 1.0, "crops": 0.0, "sharpness_before": 9.0}})
    assert "sharpness_before" not in alone.means() and alone.means()["faces_left"] == 1


def test_faces_left_by_size_number_or_pose_are_counted_by_reason():
    counts = {"images": 1, "faces": 9, "outcomes": dict.fromkeys(OUTCOMES, 0) | {"restored": 1}}
    one = metrics_of(counts | {"sums": {"faces_left": 6.0, "faces_left_small": 4.0, "faces_left_unfit": 1.0}})
    assert (one + one).left_for == {"small": 8, "unfit": 2} and ONE.left_for == {}
    means = one.means()
    assert (means["faces_left_small"], means["faces_left_unfit"]) == (4, 1)
    assert "faces_left_surplus" not in means


def test_samples_are_counted_where_any_were_drawn():
    counts = {"images": 1, "faces": 3, "outcomes": dict.fromkeys(OUTCOMES, 0) | {"restored": 1}}
    one = metrics_of(counts | {"sums": {"chains_drawn": 12.0, "faces_sampled": 2.0, "faces_invented": 1.0}})
    # of these a gentler treatment was drawn, and none passed
    other = metrics_of(counts | {"sums": {"chains_drawn": 8.0}})
    both = (one + other + ONE).sampling
    assert both == {"chains_drawn": 20, "faces_sampled": 2, "faces_invented": 1} and ONE.sampling == {}
    assert both.items() <= (one + other).means().items() and "chains_drawn" not in ONE.means()
    assert sampling_text(both) == "20 chains drawn; 2 faces are one of several, 1 marked as invented here"


def test_a_marker_of_before_faces_were_told_apart_adds_no_decisions():
    old = {"images": 1, "faces": 1, "outcomes": {"restored": 1, "no_face": 0, "skipped": 0, "failed": 0}}
    both = ONE + metrics_of(old | {"sums": {"faces_kept": 1.0}})
    assert both.counts.faces == 6 and both.decisions == ONE.decisions


def measured(*values):
    sums = {"psnr/count": len(values), "psnr/total": sum(values), "psnr/squares": sum(v * v for v in values)}
    outcomes = {"restored": 1, "no_face": 0, "skipped": 0, "failed": 0}
    return metrics_of({"images": 1, "faces": 1, "outcomes": outcomes, "sums": sums})


def test_measured_columns_add_up_to_means_and_intervals_over_the_faces_that_have_them():
    values = [20.0, 22.0, 27.0, 23.5, 21.0]
    both = measured(*values[:2]) + measured(*values[2:]) + ONE
    found = both.intervals()["psnr"]
    assert found.faces == 5 and found.mean == pytest.approx(np.mean(values))
    assert found.half == pytest.approx(1.96 * np.std(values, ddof=1) / 5**0.5)
    assert both.means()["psnr"] == found.mean


def test_what_was_measured_of_no_face_has_no_mean():
    assert measured().intervals() == {} and "psnr" not in measured().means()
    assert ONE.intervals() == {}
