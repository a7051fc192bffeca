"""Metrics without a reference are loaded by name; one that cannot be computed is named with the reason."""

from skimage import data

from pipeline.io.weights import METRIC_WEIGHTS
from pipeline.metrics.directions import metric_info
from pipeline.metrics.no_reference import NO_REFERENCE, load_no_reference


def test_what_can_be_computed_is_a_function_of_a_picture(tmp_path):
    metrics, left_out = load_no_reference(("niqe",), str(tmp_path), "cpu")
    assert left_out == {} and 2 < metrics["niqe"](data.chelsea()) < 3


def test_a_metric_without_weights_is_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    # the files are there, so that nothing is fetched, and hold no weights; those in the package are found first
    for published in METRIC_WEIGHTS.values():
        (tmp_path / published.file).write_bytes(b"no weights")
    metrics, left_out = load_no_reference(tuple(NO_REFERENCE), str(tmp_path), "cpu")
    assert metrics.keys() == {"niqe"} and left_out.keys() == NO_REFERENCE.keys() - {"niqe"}
    assert "7 billion" in left_out.pop("qalign")
    assert all(METRIC_WEIGHTS[name].file in why for name, why in left_out.items())


def test_every_column_has_its_direction():
    assert {name: metric_info(name).better for name in NO_REFERENCE} == dict(NO_REFERENCE)
