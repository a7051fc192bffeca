"""Distances of a run's faces as sets, from record tables."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.metrics import distribution
from pipeline.metrics.distribution import FeatureSums
from pipeline.metrics.inner_products import PairedDistance
from pipeline.metrics.run_distances import distances_of_run

SIDE = 8


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a unit's records with features of SIDE numbers; a row of None has none."""
    monkeypatch.setattr(distribution, "DIMENSIONS", SIDE)
    (tmp_path / "records").mkdir()

    def written(unit, **columns):
        vectors = pa.list_(pa.float16())
        table = {
            n: pa.array([None if v is None else list(v) for v in c], vectors) for n, c in columns.items()
        }
        pq.write_table(pa.table(table), tmp_path / "records" / f"{unit}.parquet")
        return str(tmp_path)

    return written


def drawn(count, seed):
    return np.random.default_rng(seed).normal(seed, 1, (count, SIDE)).astype(np.float16)


def test_without_truth_restored_faces_are_compared_with_those_that_came(write):
    after, before = drawn(20, 1), drawn(20, 2)
    write("u0", features=[*after[:12], None], features_before=[*before[:12], None])
    output = write("u1", features=after[12:], features_before=before[12:])
    found, wanted = distances_of_run(output, None), PairedDistance(after, before)()
    assert set(found) == {"fid_input", "kid_input"}
    assert found["fid_input"] == pytest.approx(wanted["fid"], rel=1e-5)
    assert found["kid_input"] == pytest.approx(wanted["kid"], rel=1e-9)


def test_a_reference_is_compared_with_faces_before_and_after(write):
    after, before = drawn(20, 1), drawn(20, 2)
    reference = FeatureSums.of(drawn(50, 1)).statistics
    found = distances_of_run(write("u", features=after, features_before=before), reference)
    assert found["fid_reference"] < found["fid_reference_before"]
    assert found["fid_reference"] == pytest.approx(
        FeatureSums.of(after).statistics.distance(reference), rel=1e-9
    )


def test_with_truth_every_restored_face_counts_for_fid_and_pairs_for_kid(write):
    after, true = drawn(9, 1), drawn(7, 2)
    found = distances_of_run(write("u", features=after, features_truth=[*true, None, None]), None)
    assert set(found) == {"fid_truth", "kid_truth"}
    assert found["kid_truth"] == pytest.approx(PairedDistance(after[:7], true)()["kid"], rel=1e-9)
    sums = [FeatureSums.of(features).statistics for features in (after, true)]
    assert found["fid_truth"] == pytest.approx(sums[0].distance(sums[1]), rel=1e-9)


def test_inputs_that_were_measured_for_a_part_of_the_faces_are_left_out(write):
    write("u0", features=drawn(9, 1))
    assert distances_of_run(write("u1", features=drawn(9, 1), features_before=drawn(9, 2)), None) == {}


def test_one_face_is_no_set(write):
    assert distances_of_run(write("u", features=drawn(1, 1), features_before=drawn(1, 2)), None) == {}
