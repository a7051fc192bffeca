"""Shard metrics are values that add."""

import numpy as np
import pytest

from pipeline.metrics.shard import ShardMetrics

ONE = ShardMetrics.from_marker(
    {
        "images": 2,
        "faces": 3,
        "outcomes": {"restored": 1, "no_face": 1, "skipped": 0, "failed": 0},
        "sums": {"sharpness_before": 30.0, "sharpness_after": 60.0, "seconds_restore": 6.0, "slot_steps": 30.0,
                 "slot_capacity": 40.0, "slot_steps_pressed": 19.0, "slot_capacity_pressed": 20.0},
    }
)  # fmt: skip


def test_means_are_per_face_and_fill_is_steps_over_room():
    means = ONE.means()
    assert (means["images"], means["faces"], means["outcome_restored"]) == (2, 3, 1)
    assert means["sharpness_before"] == 10 and means["slot_fill"] == 0.75
    assert means["slot_fill_pressed"] == 0.95
    assert means["faces_per_second"] == pytest.approx(0.5)


def test_adding_keeps_means_and_adds_counts():
    both = (ONE + ONE).means()
    assert both["images"] == 4 and both["sharpness_after"] == 20 and both["slot_fill"] == 0.75


def test_a_shard_without_faces_tells_no_means():
    assert "sharpness_before" not in ShardMetrics().means() and ShardMetrics().counts.accounted


def measured(*values):
    sums = {"psnr/count": len(values), "psnr/total": sum(values), "psnr/squares": sum(v * v for v in values)}
    outcomes = {"restored": 1, "no_face": 0, "skipped": 0, "failed": 0}
    return ShardMetrics.from_marker({"images": 1, "faces": 1, "outcomes": outcomes, "sums": sums})


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
