"""Frozen dataclasses as command-line options."""

import argparse
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline import Refusal
from pipeline.console.streams import accept_every_letter

C = TypeVar("C")


class UsageError(Refusal, ValueError):
    """Arguments that no run can be made from; the command exits with code 2."""


def option(
    default: Any = MISSING,
    *,
    help: str,
    group: str = "options",
    metavar: str | None = None,
    pixels: bool = False,
    positional: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option. Without a default it is required.

    A tuple[str, ...] is an option that may be given several times.

    pixels: a changed value changes the restored pixels, so that it belongs into the run's fingerprint. positional:
    given by its place and not by its name; needs a default; one of a Literal's words, or a tuple of all that follow.
    """
    metadata = {
        "help": help,
        "group": group,
        "metavar": metavar,
        "pixels": pixels,
        "positional": positional,
    }
    return field(default=default, metadata=metadata)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, but not for required options and switches; keeps the lines of examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == [] or action.required:
            return action.help
        return super()._get_help_string(action)


def make_parser(cls: type[Any], description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with one option per field of the dataclass, in the groups the fields name."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=lambda prog: _Help(prog, max_help_position=34, width=110),
        allow_abbrev=False,
    )
    hints = get_type_hints(cls)
    groups: dict[str, Any] = {}
    for f in fields(cls):
        group = groups.setdefault(f.metadata["group"], parser.add_argument_group(f.metadata["group"]))
        if f.metadata["positional"]:
            group.add_argument(f.name, **_place(f, hints[f.name]))
            continue
        group.add_argument("--" + f.name.replace("_", "-"), dest=f.name, **_argument(f, hints[f.name]))
    return parser


def _argument(f: "Field[Any]", hint: Any) -> dict[str, Any]:
    """What argparse needs to know of one field."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(a for a in get_args(hint) if a is not type(None))
    required = f.default is MISSING
    settings: dict[str, Any] = {"help": f.metadata["help"].replace("%", "%%"), "required": required}
    if not required:
        settings["default"] = f.default
    if hint is bool:
        settings["action"] = argparse.BooleanOptionalAction if f.default is True else "store_true"
        return settings
    if get_origin(hint) is Literal:
        return settings | {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        # argparse copies a list and appends; the field gets a tuple of it
        default: Any = f.default
        return settings | {"action": "append", "default": [*default], "metavar": f.metadata["metavar"]}
    return settings | {"type": hint, "metavar": f.metadata["metavar"] or hint.__name__.upper()}


def _place(f: "Field[Any]", hint: Any) -> dict[str, Any]:
    """What argparse needs to know of a field that is given by its place."""
    settings = {"help": f.metadata["help"], "default": f.default, "metavar": f.metadata["metavar"]}
    if get_origin(hint) is tuple:
        return settings | {"nargs": "*"}
    return settings | {"nargs": "?", "choices": get_args(hint)}


def parse(
    cls: type[C],
    argv: Sequence[str] | None,
    description: str,
    epilog: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> C:
    """The dataclass that the arguments describe. Wrong arguments exit with code 2, as argparse does.

    defaults: taken instead of the fields' own.
    """
    accept_every_letter()  # every job comes by here before it prints anything
    parser = make_parser(cls, description, epilog)
    parser.set_defaults(**defaults or {})
    # words and options may come in any order
    given = vars(parser.parse_intermixed_args(argv))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return cls(**values)
    except UsageError as error:
        parser.exit(2, f"error: {error}\n")
