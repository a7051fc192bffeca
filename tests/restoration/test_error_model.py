"""What predicts the error of a run's faces."""

from dataclasses import replace

import pytest

from pipeline.console.options import UsageError
from pipeline.networks.presets import find_preset
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import error_model_of

TABLE = {"offset": 0.5, "change": [0.0, 1.0, 0.8, 0.0]}
PRESET = replace(find_preset("portrait"), error=TABLE)


def config(**options):
    return RestoreConfig.of("in", "out", **options)


def test_a_run_takes_the_presets_table_for_faces_of_unknown_damage():
    model = error_model_of(config(), PRESET)
    assert model is not None and model.as_table == TABLE
    assert error_model_of(config(task="colourise"), PRESET) is None
    assert error_model_of(config(), replace(PRESET, error={})) is None


def test_a_table_that_is_none_is_refused_with_its_preset():
    with pytest.raises(UsageError, match=r"--preset portrait: \[error\] must hold offset"):
        error_model_of(config(), replace(PRESET, error={"change": 1.0}))
