"""How many samples of a face are drawn follows from the options, and belongs to what runs must agree in."""

from dataclasses import replace

import pytest

from pipeline.console.options import UsageError
from pipeline.networks.presets import find_preset
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import Restorer, choose_method, restore_stage, settle_method
from pipeline.restoration.samples import invented_above

PORTRAIT = find_preset("portrait")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"samples": 0}, "--samples must lie in 1..64, got 0"),
        ({"samples": 65}, "--samples must lie in 1..64, got 65"),
        ({"deliver": "first"}, "--deliver first chooses among several; give --samples with it"),
        (
            {"samples": 1, "deliver": "nearest"},
            "--deliver nearest chooses among several; give --samples with it",
        ),
        ({"samples": 2, "method": "estimator"}, "--method estimator has no chain; leave --samples 2 out"),
    ],
)
def test_what_makes_no_sense_is_refused(options, what):
    with pytest.raises(UsageError) as refused:
        RestoreConfig.of("in", "out", **options)
    assert str(refused.value) == what


def settled(**options):
    config = RestoreConfig.of("in", "out", preset="small-srcnn", gate="off", **options)
    return settle_method(config, *choose_method(config, find_preset("small-srcnn")))[1]


def test_a_run_with_one_sample_is_the_run_that_it_was_before_there_were_several():
    one, three = settled(), settled(samples=3)
    assert {"samples", "deliver"}.isdisjoint(one)
    assert three == one | {"samples": {"number": 3, "deliver": "nearest", "invented": None}}


def test_each_number_and_each_choice_is_a_run_of_its_own():
    runs = [{}, {"samples": 2}, {"samples": 3}, {"samples": 3, "deliver": "first"}]
    assert len({fingerprint_digest(settled(**options)) for options in runs}) == len(runs)
    assert settled(samples=3) == settled(samples=3, deliver="nearest")


def stage(preset=PORTRAIT, **options):
    config = RestoreConfig.of("in", "out", **options)
    return restore_stage(config, Restorer(*choose_method(config, preset), {}), "cpu", 1, "stop")


def test_the_engine_is_told_number_choice_and_the_presets_bound():
    many = stage(samples=5, deliver="first")
    assert (many.samples, many.takes_nearest, many.invented) == (5, False, PORTRAIT.spread["invented"])
    assert stage(samples=5).takes_nearest
    assert stage(replace(PORTRAIT, spread={}), samples=5).invented is None


def test_the_bound_is_that_of_faces_of_unknown_damage():
    assert invented_above(PORTRAIT, True) == PORTRAIT.spread["invented"] > 0
    assert invented_above(PORTRAIT, False) is None
    assert stage(samples=2, task="colourise").invented is None
