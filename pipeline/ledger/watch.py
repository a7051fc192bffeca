"""Looks at a run, once or again and again."""

import json
import sys
import time
from dataclasses import dataclass

from pipeline.console.commands import say
from pipeline.console.options import UsageError, option
from pipeline.io import store
from pipeline.ledger.status import Observer, State
from pipeline.ledger.status_text import MEANINGS, exit_code, lines
from pipeline.reporting.text import printable

CLEAR_SCREEN = "\x1b[H\x1b[2J"


@dataclass(frozen=True)
class StatusConfig:
    """One look at a run, or one after another."""

    output: str = option(
        help="the --output of a jobs.restore command: a folder or s3:// prefix",
        group="what",
        metavar="PATH_OR_URI",
    )
    errors: int = option(5, help="the last so many failed images are shown", group="what")
    watch: float | None = option(
        None,
        help="look again every so many seconds until the run is complete",
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


def run(config: StatusConfig) -> int:
    """Look, show, and look again while that is wanted. Returns the exit code."""
    observer = Observer(config.output)
    state = observer.look(config.errors)
    show(config, state)
    while config.watch is not None and not (state.complete or state.all_marked):
        time.sleep(config.watch)
        try:
            state = observer.look(config.errors)
        except store.StoreError as error:
            say(f"warning: {error}; looking again in {config.watch:g} s")
        else:
            show(config, state)
    return exit_code(state)


def show(config: StatusConfig, state: State) -> None:
    """One look, as text or JSON."""
    code = exit_code(state)
    values = state.to_json() | {"exit_code": code, "meaning": MEANINGS[code]}
    if config.json == "-":
        print(json.dumps(values), flush=True)
        return
    if config.json:
        store.write_bytes(config.json, json.dumps(values, indent=1).encode())
    if config.watch is not None and sys.stdout.isatty():
        print(CLEAR_SCREEN, end="")
    print("\n".join(map(printable, lines(state))), flush=True)
