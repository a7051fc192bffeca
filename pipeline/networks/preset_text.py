"""Presets and their tables as TOML."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from pipeline.networks.presets import Preset


def as_toml(preset: Preset) -> str:
    """The text of a preset's file."""
    values = {f.name: getattr(preset, f.name) for f in fields(preset)}
    entries = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping) and value}
    lines = [*_entries({name: value for name, value in entries.items() if name != "name"})]
    gates = tables.pop("gates", {})
    for name, table in tables.items():
        lines += table_lines(name, table)
    lines += gate_lines(gates)
    lines += _row_lines("sides", preset.sides)
    lines += treatment_lines(preset.treatment)
    for role, spec in (("prior", preset.prior), ("estimator", preset.estimator)):
        about = {name: getattr(spec, name) for name in ("kind", "file", "sha256", "url", "licence")}
        lines += ["", f"[{role}]", *_entries(about), "", f"[{role}.options]", *_entries(spec.options)]
    return "\n".join(lines) + "\n"


def treatment_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a preset's [[treatment]] table."""
    return _row_lines("treatment", rows)


def _row_lines(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [line for row in rows for line in ("", f"[[{name}]]", *_entries(row))]


def gate_lines(gates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines of a preset's [gates] tables."""
    return [line for level, table in gates.items() for line in table_lines(f"gates.{level}", table)]


def table_lines(name: str, table: Mapping[str, Any]) -> list[str]:
    """The lines of one of a preset's tables."""
    return ["", f"[{name}]", *_entries(table)]


def _entries(table: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table; a value of None has none."""
    return (f"{name} = {_value(value)}" for name, value in table.items() if value is not None)


def _value(value: Any) -> str:
    """A text, number or list as TOML; JSON writes these alike, but for a character that no text here has."""
    return json.dumps(value, ensure_ascii=False)
