"""What all commands share: exit codes, lines for people, stop signals."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline import Refusal
from pipeline.console.progress import write_line

OK, UNEXPECTED, BAD_ARGUMENTS, OVER_BUDGET, HAD_FAILURES, INTERRUPTED = 0, 1, 2, 3, 4, 130
GOES_ON = "interrupted; the same command goes on where this one was"


def carry_out(command: Callable[[], int], interrupted: str = GOES_ON) -> int:
    """The exit code of a command: its own, or that of a refusal or an interruption, which are said in a sentence."""
    try:
        with on_stop_signals(leave):
            return command()
    except Refusal as refusal:
        say(f"error: {refusal}")
        return refusal.exit_code
    except KeyboardInterrupt:
        say(interrupted)
        return INTERRUPTED


@contextmanager
def on_stop_signals(act: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `act` inside the block; only the main thread of a program may ask for that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave() -> None:
    """What a stop signal does while no picture is in flight."""
    raise KeyboardInterrupt


def say(text: str) -> None:
    """A line for people, away from the output proper, above a bar where one is drawn."""
    write_line(text)
