"""Frozen dataclasses as command-line options."""

import argparse
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from functools import reduce
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline import Refusal
from pipeline.console.streams import escape_unencodable

C = TypeVar("C")


class UsageError(Refusal, ValueError):
    """Invalid arguments; the command exits with code 2."""


def option(
    default: Any = MISSING,
    *,
    help: str,
    group: str | None = None,
    flag: str | None = None,
    metavar: str | None = None,
    pixels: bool = False,
    positional: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option. Without a default it is required.

    A tuple[str, ...] is an option that may be given several times.

    group: title in the help (default: that of the enclosing `options`). flag: the option's name with underscores
    (default: the field's). pixels: the value affects the restored pixels, so that it is part of the run's fingerprint.
    positional: a positional argument; needs a default; of a Literal type, or a tuple of all arguments that follow.
    """
    metadata = {
        "help": help,
        "group": group,
        "flag": flag,
        "metavar": metavar,
        "pixels": pixels,
        "positional": positional,
    }
    return field(default=default, metadata=metadata)


def options(title: str, cls: type[Any] | None = None) -> Any:
    """A dataclass field that holds a dataclass of options, shown below the title.

    cls: that dataclass, where all its options have defaults.
    """
    metadata = {"title": title}
    return field(metadata=metadata) if cls is None else field(default_factory=cls, metadata=metadata)


class Option(NamedTuple):
    """One command-line option: its name with underscores, the path of its field, and its type."""

    flag: str
    # the field's name, after those of the enclosing dataclasses
    path: tuple[str, ...]
    field: Field[Any]
    hint: Any
    group: str


def options_of(cls: type[Any], title: str = "options", path: tuple[str, ...] = ()) -> Iterator[Option]:
    """The options of a dataclass and of the dataclasses nested in it, in order."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        if "title" in f.metadata:
            yield from options_of(hints[f.name], f.metadata["title"], (*path, f.name))
        else:
            group = f.metadata["group"] or title
            yield Option(f.metadata["flag"] or f.name, (*path, f.name), f, hints[f.name], group)


def values_of(config: Any) -> dict[str, Any]:
    """The value of every option by its flag."""
    return {o.flag: reduce(getattr, o.path, config) for o in options_of(type(config))}


def from_values(cls: type[C], values: Mapping[str, Any]) -> C:
    """The dataclass with these values by flag, and defaults for the rest.

    Raises TypeError for an unknown or a missing name, UsageError for invalid values.
    """
    left = dict(values)
    made = _from_values(cls, left)
    if left:
        raise TypeError(f"{cls.__name__} has no option {', '.join(left)}")
    return made


def _from_values(cls: type[C], left: dict[str, Any]) -> C:
    hints = get_type_hints(cls)
    given: dict[str, Any] = {}
    for f in fields(cls):  # type: ignore[arg-type]  # a dataclass
        flag = f.metadata.get("flag") or f.name
        if "title" in f.metadata:
            given[f.name] = _from_values(hints[f.name], left)
        elif flag in left:
            given[f.name] = left.pop(flag)
    return cls(**given)


def with_values(config: C, **values: Any) -> C:
    """The dataclass with these flags replaced."""
    return from_values(type(config), values_of(config) | values)


def require(config: Any, rules: Mapping[str, bool]) -> None:
    """Raise UsageError for the first rule that is false; each text begins with the flag it is about."""
    for rule, holds in rules.items():
        if not holds:
            flag = rule.split()[0].removeprefix("--").rstrip(",").replace("-", "_")
            raise UsageError(f"{rule}, got {values_of(config)[flag]}")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except of required options and switches; keeps the line breaks of examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == [] or action.required:
            return action.help
        return super()._get_help_string(action)


def make_parser(cls: type[Any], description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with one option per field of the dataclass, in the groups that the fields name."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=lambda prog: _Help(prog, max_help_position=34, width=110),
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for one in options_of(cls):
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        if one.field.metadata["positional"]:
            groups[one.group].add_argument(one.flag, **_positional(one.field, one.hint))
            continue
        name = "--" + one.flag.replace("_", "-")
        groups[one.group].add_argument(name, dest=one.flag, **_argument(one.field, one.hint))
    return parser


def _argument(f: Field[Any], hint: Any) -> dict[str, Any]:
    """The argparse settings of one field."""
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
        # argparse appends to a copy of the list, which `parse` turns into a tuple
        default: Any = f.default
        return settings | {"action": "append", "default": [*default], "metavar": f.metadata["metavar"]}
    return settings | {"type": hint, "metavar": f.metadata["metavar"] or hint.__name__.upper()}


def _positional(f: Field[Any], hint: Any) -> dict[str, Any]:
    """The argparse settings of a positional field."""
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
    """The dataclass that the arguments describe. Invalid arguments exit with code 2, as in argparse.

    defaults: override those of the fields.
    """
    escape_unencodable()  # every job calls this before it prints anything
    parser = make_parser(cls, description, epilog)
    parser.set_defaults(**defaults or {})
    # positional arguments and options may come in any order
    given = vars(parser.parse_intermixed_args(argv))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return from_values(cls, values)
    except UsageError as error:
        parser.exit(2, f"error: {error}\n")
