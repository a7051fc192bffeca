"""Which way of a measurement is better is said in two places, and the same in both."""

from pipeline.metrics.meaning import MEANINGS, meaning
from pipeline.metrics.suite import METRICS


def test_every_metric_of_the_stream_has_the_meaning_that_the_stream_gives_it():
    better = {c: {"higher": "up", "lower": "down"}[m.better] for m in METRICS.values() for c in m.columns}
    assert {column: MEANINGS[column].better for column in better} == better


def test_a_column_that_nobody_knows_is_neither_better_nor_worse():
    assert meaning("new").better == "neither" and not meaning("new").at_side
