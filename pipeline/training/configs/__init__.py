"""Predefined training schedules: TOML files with options of a training command.

`trains` names the command that a file is for. Values are those of the command line.
"""

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pipeline.console.options import UsageError

Trains = Literal["estimator", "prior"]

CONFIGS = Path(__file__).parent


def config_names() -> list[str]:
    """Names of the schedules that ship with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def with_config(argv: Sequence[str], options: type[Any], trains: Trains) -> list[str]:
    """The arguments, preceded by those of the file given by --config. Raises UsageError."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    name = parser.parse_known_args(list(argv))[0].config
    if name is None:
        return list(argv)
    values = read_config(name)
    if (wanted := values.pop("trains", trains)) != trains:
        raise UsageError(f"--config {name} trains the {wanted}; give it to jobs.train_{wanted}")
    known = {f.name for f in fields(options)} - {"config"}
    if unknown := sorted(set(values) - known):
        raise UsageError(
            f"--config {name} has {', '.join(unknown)}; its entries must be options of jobs.train_{trains}, "
            "with _ for -"
        )
    given = [word for option, value in values.items() for word in as_arguments(name, option, value)]
    return [*given, *argv]


def read_config(name: str) -> dict[str, Any]:
    """The entries of a schedule by its name, or of a TOML file. Raises UsageError."""
    path = CONFIGS / f"{name}.toml" if name in config_names() else Path(name).expanduser()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--config {name} cannot be read ({error.strerror}); give one of {', '.join(config_names())}, "
            "or the path of a TOML file"
        ) from error
    except ValueError as error:
        raise UsageError(f"--config {name} is not valid TOML: {error}") from error


def as_arguments(name: str, option: str, value: Any) -> list[str]:
    """One entry as command-line arguments. Raises UsageError for an invalid type."""
    flag = f"--{option.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    if not isinstance(value, int | float | str):
        raise UsageError(f"--config {name}: {option} must be a number, a text, or true, got {value!r}")
    return [f"{flag}={value}"]
