"""Which way of a measurement is better is said in one place, for everything that is measured."""

from pipeline.metrics.directions import MEANINGS, meaning
from pipeline.metrics.suite import METRICS, columns_of


def test_every_metric_of_the_stream_has_a_better_and_a_worse():
    columns = columns_of(tuple(METRICS))
    assert columns and {MEANINGS[column].better for column in columns} == {"up", "down"}


def test_a_column_that_nobody_knows_is_neither_better_nor_worse():
    assert meaning("new").better == "neither" and not meaning("new").at_side
