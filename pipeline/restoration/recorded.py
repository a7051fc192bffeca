"""The settings of a run that was, from its run file."""

from typing import Any

from pipeline.console.options import options_of
from pipeline.ledger.output import Run
from pipeline.networks.presets import NetworkSpec, Preset
from pipeline.restoration.config import RestoreConfig


def recorded(run: Run, weights_dir: str | None) -> tuple[RestoreConfig, Preset]:
    """Configuration and preset from the run file. Raises one of BROKEN where they are missing."""
    known = {one.flag for one in options_of(RestoreConfig)}
    values = {name: value for name, value in run.repeat["config"].items() if name in known}
    values |= {"output": run.output, "weights_dir": weights_dir or values["weights_dir"]}
    preset: dict[str, Any] = dict(run.repeat["preset"])
    preset |= {role: NetworkSpec(**preset[role]) for role in ("prior", "estimator")}
    return RestoreConfig.of(**values), Preset(**preset)
