"""Which way of a measurement is better is said in one place, for everything that is measured."""

from pipeline.metrics.directions import METRIC_INFO, metric_info
from pipeline.metrics.suite import METRICS, columns_of


def test_every_metric_of_the_stream_has_a_better_and_a_worse():
    columns = columns_of(tuple(METRICS))
    assert columns and {METRIC_INFO[column].better for column in columns} == {"up", "down"}


def test_a_column_that_nobody_knows_is_neither_better_nor_worse():
    assert metric_info("new").better == "neither" and not metric_info("new").at_side
