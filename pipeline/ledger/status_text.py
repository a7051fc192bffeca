"""The state of a run as lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.console.progress import duration
from pipeline.ledger.status import State
from pipeline.records.rows import DECISION_TEXTS, LEFT_TEXTS, RUNG_TEXTS
from pipeline.records.totals import sampling_text
from pipeline.records.verdicts import VERDICT_TEXTS

# Lines of one kind that are printed; the JSON has them all.
SHOWN = 10


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
            yield from (f"    {LEFT_TEXTS[why]:<44} {n:>4}" for why, n in s.left_for.items())
    if set(s.rungs) - {"asked"}:
        yield from (f"  {RUNG_TEXTS[rung]:<26} {number:>4}" for rung, number in s.rungs.items())
    for what, number in s.verdicts.items():
        yield counted("in review", number, VERDICT_TEXTS[what])
    if s.sampling:
        yield f"  {sampling_text(s.sampling)}"
    for outcome, number in s.outcomes.items():
        yield counted(outcome, number)
        yield from reasons(s.reasons.get(outcome, {}))
    if s.images_per_second is not None:
        yield counted("images/s", f"{s.images_per_second:.2f}", f"over {duration(s.rate_seconds)}")
    if s.seconds_left is not None:
        yield counted("time left", duration(s.seconds_left))
    yield counted("last unit", *activity(s))
    if len(s.environments) > 1:
        yield from (counted("units", number, f"on {line}") for line, number in s.environments.items())
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
        return when, "no process is at work; the same restore command goes on"
    ended = "was killed or lost" if state.exit_code is None else f"ended with exit code {state.exit_code}"
    why = f" ({state.ended_by})" if state.ended_by else ""
    return when, f"no process is at work: {state.driver}, {ended}{why}; the same restore command goes on"


def problems(state: State) -> Iterator[str]:
    """The inconsistencies."""
    if state.problems:
        yield from ("", "the ledger is inconsistent:")
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


COMPLETE, INCONSISTENT, UNFINISHED = 0, 1, 4
MEANINGS = {
    COMPLETE: "complete, every image accounted for",
    INCONSISTENT: "the ledger is inconsistent",
    UNFINISHED: "not finished",
}


def exit_code(state: State) -> int:
    """What a state is to the caller."""
    if state.problems:
        return INCONSISTENT
    return COMPLETE if state.complete else UNFINISHED
