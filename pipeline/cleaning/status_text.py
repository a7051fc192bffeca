"""The state of a cleaning as lines for people, and its exit code."""

from collections.abc import Iterator

from pipeline.cleaning.policy import EVERY_REASON
from pipeline.cleaning.status import CleaningObserver, CleaningState
from pipeline.console.progress import duration
from pipeline.ledger.status_text import COMPLETE, INCONSISTENT, SHOWN, UNFINISHED, counted
from pipeline.ledger.watch import Look

MEANINGS = {
    COMPLETE: "complete, every picture of the newest version accounted for",
    INCONSISTENT: "the versions are inconsistent",
    UNFINISHED: "not finished",
}


def look_at_cleaning(observer: CleaningObserver, errors: int) -> Look:
    """A look at a cleaning with so many of its failures. Raises StoreError."""
    state = observer.look(errors)
    code = exit_code(state)
    return Look(list(lines(state)), state.to_json(), code, MEANINGS[code], state.complete)


def exit_code(state: CleaningState) -> int:
    """What a state is to the caller."""
    if state.problems:
        return INCONSISTENT
    return COMPLETE if state.complete else UNFINISHED


def lines(state: CleaningState) -> Iterator[str]:
    """What a person sees."""
    s = state
    yield f"{s.name}, a cleaning, " + ("no version yet" if s.version is None else f"version {s.version}")
    yield f"{s.input or 'unknown input'} → {s.output}"
    yield ""
    if s.version is not None:
        yield from _version(s)
    if not s.complete and s.making is not None:
        yield from _making(s)
    if s.images_per_second is not None:
        yield counted("pictures/s", f"{s.images_per_second:.2f}")
    if s.seconds_left is not None:
        yield counted("time left", duration(s.seconds_left))
    yield f"{'last start':<14} {_activity(s)}"
    code = exit_code(s)
    yield counted("exit code", code, MEANINGS[code])
    if s.problems:
        yield from ("", "the versions are inconsistent:")
        yield from (f"  {sentence}" for sentence in s.problems[:SHOWN])
        if len(s.problems) > SHOWN:
            yield f"  and {len(s.problems) - SHOWN} more; --json has them"
    if s.errors:
        yield from ("", "failures:")
        yield from (f"  {e['name']}  [{e['problem']}] {e['detail']}" for e in s.errors)
    yield ""


def _version(state: CleaningState) -> Iterator[str]:
    """The newest version."""
    yield counted("pictures", state.images, f"in version {state.version}")
    yield from (counted(verdict, state.verdicts.get(verdict, 0)) for verdict in ("keep", "repair", "drop"))
    for reason in EVERY_REASON:
        if number := state.reasons.get(reason, 0):
            yield f"  {reason:<18} {number:>4}"
    yield counted("new", state.new_images, "since the version before")
    yield counted("deleted", state.deleted)


def _making(state: CleaningState) -> Iterator[str]:
    """The version that a start is making, or was."""
    share = f" ({state.images_measured / state.images_planned:.0%})" if state.images_planned else ""
    dry = ", a dry run that writes none" if state.dry_run else ""
    yield f"{'making':<14} version {state.making}: {state.phase}{dry}"
    yield counted("units", state.units_done, f"of {state.units_planned} measured")
    yield counted("pictures", state.images_measured, f"of {state.images_planned} measured{share}")
    yield counted("faces", state.faces)
    yield from (
        counted("unreadable", number, why) for why, number in list(state.problems_of_pictures.items())[:SHOWN]
    )
    if state.repairs is not None:
        repairs = state.repairs
        yield counted("repairs", repairs.images, f"of {repairs.images_planned} planned")
        yield from (counted(f"  {name}", n) for name, n in repairs.outcomes.items() if n)


def _activity(state: CleaningState) -> str:
    """What the last start does, or how it ended."""
    if state.at_work:
        return f"{state.driver}, {'is stopping' if state.stopping else 'is at work'}"
    if not state.starts:
        return "none is known; the same clean command goes on"
    ended = "was killed or lost" if state.exit_code is None else f"ended with exit code {state.exit_code}"
    why = f" ({state.ended_by})" if state.ended_by else ""
    goes_on = "" if state.complete else "; the same clean command goes on"
    return f"{state.driver}, {ended}{why}{goes_on}"
