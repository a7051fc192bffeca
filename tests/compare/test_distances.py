"""Distances of the faces of two runs as sets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import finish_run, picture
from photographs import write_folder

from pipeline.compare import distances
from pipeline.compare.distances import LEAST_IMAGES, difference
from pipeline.compare.report import compare_runs, document, lines, values
from pipeline.compare.runs import open_compared
from pipeline.metrics.distribution import FeatureStatistics
from pipeline.metrics.inner_products import PairedDistance
from pipeline.records.rows import FEATURES_LENGTH

SHADES = range(20, 130, 10)


def features(shade, face, seed):
    return np.random.default_rng([shade, face, seed]).normal(0, 1, FEATURES_LENGTH).astype(np.float16)


def with_features(output, change, columns=("features", "features_truth")):
    """Add feature columns to a run's records: the second one is of the picture, and `change` makes the first of it."""
    for file in (output / "records").iterdir():
        table = pq.read_table(file)
        rows = table.to_pylist()
        for place, name in enumerate(columns):
            vectors = [
                None if r["kind"] == "image" else features(int(r["member"][:-4]), r["face"], 0) for r in rows
            ]
            if not place:
                vectors = [v if v is None else change(v) for v in vectors]
            column = pa.array([None if v is None else list(v) for v in vectors], pa.list_(pa.float16()))
            table = table.append_column(name, column)
        pq.write_table(table, file)


@pytest.fixture
def runs(tmp_path):
    """Eleven pictures of two faces; restored faces are further from the truth in B."""
    source = write_folder(tmp_path / "in", {f"{s}.png": picture(s) for s in SHADES})
    made = []
    for name, shift in (("a", 0.1), ("b", 0.3)):
        made.append(finish_run(source, tmp_path / name, lambda s, f: (s, {}), faces=2))
        with_features(made[-1], lambda v, shift=shift: v + np.float16(shift))
    return made


def compared(runs, reference=None):
    a, b = (open_compared(str(run)) for run in runs)
    return values(compare_runs(a, b, None, 2, 0, reference))


def test_runs_with_features_are_compared_as_sets(runs):
    summary = compared(runs)
    assert set(summary["distances"]) == {"fid_truth", "kid_truth"}
    fid = summary["distances"]["fid_truth"]
    assert (fid["faces"], fid["images"], fid["verdict"]) == (22, 11, "A better")
    # the same shift of every face: the distance is the squared length of the shift, whatever the part
    assert fid["a"] == pytest.approx(0.01 * FEATURES_LENGTH, rel=0.02)
    assert fid["difference"] == pytest.approx(0.08 * FEATURES_LENGTH, rel=0.02)
    assert fid["low"] == pytest.approx(fid["difference"], rel=0.02)
    assert any(line.startswith("fid_truth ") and "22 faces" in line for line in lines(summary))
    assert "Distances of the faces as sets" in document(summary, {})


def test_a_reference_and_faces_as_they_came_are_compared_too(tmp_path):
    source = write_folder(tmp_path / "in", {f"{s}.png": picture(s) for s in SHADES})
    runs = []
    for name, shift in (("a", 0.1), ("b", 0.3)):
        runs.append(finish_run(source, tmp_path / name, lambda s, f: (s, {})))
        with_features(runs[-1], lambda v, shift=shift: v + np.float16(shift), ("features", "features_before"))
    reference = FeatureStatistics(9, np.zeros(FEATURES_LENGTH), np.eye(FEATURES_LENGTH))
    found = compared(runs, reference)["distances"]
    assert set(found) == {"fid_input", "kid_input", "fid_reference"}
    assert found["fid_reference"]["verdict"] == "A better" and found["fid_input"]["verdict"] == "B higher"


def test_runs_without_features_have_no_distances(tmp_path, runs):
    source = write_folder(tmp_path / "in", {f"{s}.png": picture(s) for s in SHADES})
    plain = finish_run(source, tmp_path / "plain", lambda s, f: (s, {}))
    summary = compared((runs[0], plain))
    assert summary["distances"] == {} and "as sets" not in document(summary, {})


def sets(rng, count, noise):
    truth = rng.normal(0, 1, (count, 20)) * np.arange(1, 21) ** -0.5
    return PairedDistance(truth + rng.normal(0, noise, truth.shape), truth)


def test_intervals_of_two_runs_alike_hold_nothing_about_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(distances, "DRAWS", 25)
    rng, image = np.random.default_rng(0), np.arange(30)
    found = [difference("truth", [sets(rng, 30, 0.5), sets(rng, 30, 0.5)], image) for _ in range(40)]
    held = [d["kid_truth"].low <= 0 <= d["kid_truth"].high for d in found]
    assert np.mean(held) > 0.85
    apart = difference("truth", [sets(rng, 30, 0.2), sets(rng, 30, 1.0)], image)
    assert apart["fid_truth"].verdict == "A better"


def test_pictures_are_the_draws_and_few_of_them_give_no_interval():
    rng = np.random.default_rng(0)
    pair = [sets(rng, 40, 0.2), sets(rng, 40, 1.0)]
    few = difference("truth", pair, np.arange(40) % (LEAST_IMAGES - 1))["fid_truth"]
    assert (few.low, few.images, few.verdict) == (None, LEAST_IMAGES - 1, "fewer than 10 pictures")
