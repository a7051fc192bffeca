"""Looks at an output, once or again and again."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.console.commands import say
from pipeline.console.options import UsageError, option
from pipeline.io import store
from pipeline.ledger.status import Observer
from pipeline.ledger.status_text import MEANINGS, exit_code, lines
from pipeline.reporting.text import printable

CLEAR_SCREEN = "\x1b[H\x1b[2J"


@dataclass(frozen=True)
class StatusConfig:
    """One look at an output, or one after another."""

    output: str = option(
        help="the --output of a jobs.restore or jobs.clean command: a folder or s3:// prefix",
        group="what",
        metavar="PATH_OR_URI",
    )
    errors: int = option(5, help="the last so many failed pictures are shown", group="what")
    watch: float | None = option(
        None,
        help="look again every so many seconds until it is complete",
        group="how",
        metavar="SECONDS",
    )
    json: str | None = option(
        None,
        help="write everything to this JSON file, again at each look; - prints it instead of the text, a line each",
        group="how",
        metavar="PATH_OR_URI|-",
    )

    def __post_init__(self) -> None:
        if self.errors < 0:
            raise UsageError(f"--errors must not be negative, got {self.errors}")
        if self.watch is not None and not 0 < self.watch < float("inf"):
            raise UsageError(f"--watch must be above 0, got {self.watch}")


@dataclass(frozen=True)
class Look:
    """One look at an output."""

    lines: Sequence[str]
    # the same for programs
    values: Mapping[str, Any]
    code: int
    # what the code means
    meaning: str
    # nothing more is to come
    ended: bool


def look_at_run(observer: Observer, errors: int) -> Look:
    """A look at a run with so many of its last failures. Raises StoreError."""
    state = observer.look(errors)
    code = exit_code(state)
    ended = state.complete or state.all_marked
    return Look(list(lines(state)), state.to_json(), code, MEANINGS[code], ended)


def watch(config: StatusConfig, look: Callable[[], Look]) -> int:
    """Look, show, and look again while that is wanted. Returns the exit code."""
    found = look()
    show(config, found)
    while config.watch is not None and not found.ended:
        time.sleep(config.watch)
        try:
            found = look()
        except store.StoreError as error:
            say(f"warning: {error}; looking again in {config.watch:g} s")
        else:
            show(config, found)
    return found.code


def show(config: StatusConfig, found: Look) -> None:
    """One look, as text or JSON."""
    values = {**found.values, "exit_code": found.code, "meaning": found.meaning}
    if config.json == "-":
        print(json.dumps(values), flush=True)
        return
    if config.json:
        store.write_bytes(config.json, json.dumps(values, indent=1).encode())
    if config.watch is not None and sys.stdout.isatty():
        print(CLEAR_SCREEN, end="")
    print("\n".join(map(printable, found.lines)), flush=True)
