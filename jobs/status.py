"""Show where a run of jobs.restore stands: `python -m jobs.status --output PATH_OR_URI`.

Reads what the run has written so far, while it works or afterwards, on this machine or another. Changes nothing.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.console.options import UsageError, option, parse
from pipeline.console.progress import duration
from pipeline.io import store
from pipeline.io.names import printable
from pipeline.ledger.output import NoRun
from pipeline.ledger.status import Observer, State
from pipeline.records.rows import DECISION_TEXTS, LEFT_TEXTS

COMPLETE, UNBALANCED, BAD_ARGUMENTS, UNFINISHED, INTERRUPTED = 0, 1, 2, 4, 130
MEANINGS = {
    COMPLETE: "complete, every image accounted for",
    UNBALANCED: "the books do not balance",
    UNFINISHED: "not finished",
}
REFUSALS = (UsageError, NoRun, store.StoreError)
# Lines of one kind that are printed; the JSON has them all.
SHOWN = 10
CLEAR_SCREEN = "\x1b[H\x1b[2J"

EPILOG = """examples:
  python -m jobs.status --output restored
  python -m jobs.status --output s3://archive/restored --watch 30
  python -m jobs.status --output restored --errors 100 --json -
exit codes:
  0 complete, every image accounted for · 4 not finished · 1 the books do not balance, a sentence for each reason
  2 bad arguments, or no run there · 130 interrupted"""


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
        help="write everything to this JSON file, anew at each look; - prints it instead of the text, a line each",
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


def exit_code(state: State) -> int:
    """What a state is to the caller."""
    if state.problems:
        return UNBALANCED
    return COMPLETE if state.complete else UNFINISHED


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


def lines(state: State) -> Iterator[str]:
    """What a person sees."""
    s = state
    of_run = f", preset {s.preset}" if s.preset else ""
    yield f"{s.name}{of_run}, fingerprint {s.fingerprint or 'unknown'}"
    yield f"{s.input or 'unknown input'} → {s.output}"
    yield ""
    failing = f", {s.shards_with_failures} with failures" if s.shards_with_failures else ""
    again = f", {s.units_to_retry} to be done again" if s.units_to_retry else ""
    share = f" ({s.images / s.images_planned:.0%})" if s.images_planned else ""
    yield counted("shards", s.shards_done, f"of {s.shards_planned} planned{failing}")
    yield counted("units", s.units_done, f"of {s.units_planned} planned{again}")
    yield counted("images", s.images, f"of {s.images_planned} planned{share}")
    yield counted("faces", s.faces)
    for way, number in s.decisions.items():
        yield f"  {DECISION_TEXTS[way]:<18} {number:>4}"
        if way == "left":
            yield from (f"    {LEFT_TEXTS[why]:<22} {n:>4}" for why, n in s.left_for.items())
    for outcome, number in s.outcomes.items():
        yield counted(outcome, number)
        yield from reasons(s.reasons.get(outcome, {}))
    if s.images_per_second is not None:
        yield counted("images/s", f"{s.images_per_second:.2f}", f"over {duration(s.rate_seconds)}")
    if s.seconds_left is not None:
        yield counted("time left", duration(s.seconds_left))
    yield counted("last unit", *activity(s))
    code = exit_code(s)
    yield counted("exit code", code, MEANINGS[code])
    yield from problems(s)
    yield from errors(s)
    yield ""


def counted(name: str, number: object, what: str = "") -> str:
    """One line of the table."""
    return f"{name:<14} {number:>10}  {what}".rstrip()


def reasons(numbers: Mapping[str, int]) -> Iterator[str]:
    """An outcome's images by stage and reason, the most frequent first."""
    shown = list(numbers.items())[:SHOWN]
    yield from (f"{'':<14} {number:>10}  {reason}" for reason, number in shown)
    rest = sum(numbers.values()) - sum(number for _, number in shown)
    if rest:
        yield f"{'':<14} {rest:>10}  for other reasons"


def activity(state: State) -> tuple[str, str]:
    """When the last unit was finished, and what that means."""
    when = "none yet"
    if state.last_unit_at is not None:
        when = f"{duration(max(state.read_at - state.last_unit_at, 0))} ago"
    if state.complete:
        return when, "the run is complete"
    if state.at_work:
        return when, f"{state.driver}, {'is stopping' if state.stopping else 'is at work'}"
    if not state.starts:
        return when, "nobody is at work; the same restore command goes on"
    ended = "was killed or lost" if state.exit_code is None else f"ended with exit code {state.exit_code}"
    why = f" ({state.ended_by})" if state.ended_by else ""
    return when, f"nobody is at work: {state.driver}, {ended}{why}; the same restore command goes on"


def problems(state: State) -> Iterator[str]:
    """In what the books do not balance."""
    if state.problems:
        yield from ("", "the books do not balance:")
        yield from (f"  {sentence}" for sentence in state.problems[:SHOWN])
        more = len(state.problems) + state.problems_left_out - SHOWN
        if more > 0:
            yield f"  and {more} more; --json has them"


def errors(state: State) -> Iterator[str]:
    """The last failures, a line each."""
    if state.errors:
        yield from ("", "last errors:")
    for e in state.errors:
        yield f"  {e['unit']}  {e['member']}  [{e['stage']}: {e['reason']}] {e['error']}{attempts(e)}"


def attempts(error: Mapping[str, Any]) -> str:
    """How often it was tried, where that was more than once."""
    return f" (attempt {error['attempts']})" if (error["attempts"] or 1) > 1 else ""


def say(text: str) -> None:
    """A line for people, away from what was asked for."""
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(StatusConfig, argv, description=__doc__ or "", epilog=EPILOG)
    try:
        return run(config)
    except REFUSALS as error:
        say(f"error: {error}")
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
