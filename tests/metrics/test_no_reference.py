"""Metrics without a reference are loaded by name; one that cannot be computed is named with the reason."""

from skimage import data

from pipeline.metrics.no_reference import NO_REFERENCE, load_no_reference


def test_what_can_be_computed_is_a_function_of_a_picture(tmp_path):
    judges, left_out = load_no_reference(("niqe",), str(tmp_path), "cpu")
    assert left_out == {} and 2 < judges["niqe"](data.chelsea()) < 3


def test_a_metric_without_weights_is_left_out_by_name(tmp_path):
    judges, left_out = load_no_reference(tuple(NO_REFERENCE), str(tmp_path), "cpu")
    assert judges.keys() | left_out.keys() == set(NO_REFERENCE) and "niqe" in judges
    assert "maniqa" in left_out["maniqa"].lower()
