"""What all commands share: exit codes, messages, stop signals."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline import Refusal
from pipeline.console.progress import write_line

OK, UNEXPECTED, BAD_ARGUMENTS, OVER_BUDGET, HAD_FAILURES, GATE_BROKEN = range(6)
# another process is at work, try later (sysexits.h); and 128 + SIGINT
BUSY, INTERRUPTED = 75, 130
RESUMABLE = "interrupted; the same command goes on where this one stopped"


def carry_out(command: Callable[[], int], interrupted: str = RESUMABLE) -> int:
    """The exit code of a command. A refusal or an interruption is printed as one sentence."""
    try:
        with on_stop_signals(interrupt):
            return command()
    except Refusal as refusal:
        say(f"error: {refusal}")
        return refusal.exit_code
    except KeyboardInterrupt:
        say(interrupted)
        return INTERRUPTED


@contextmanager
def on_stop_signals(act: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `act` inside the block; for the main thread only."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt() -> None:
    """Signal handler while no picture is in flight."""
    raise KeyboardInterrupt


def say(text: str) -> None:
    """Print a message to stderr, above a progress bar where one is drawn."""
    write_line(text)
