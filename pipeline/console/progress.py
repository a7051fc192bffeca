"""What a person sees while a run works: a bar on a terminal, one line every few seconds elsewhere.

What is done at the moment comes from the workers as hints; what is finished, from whoever counts it with `add`.
"""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from pipeline.console.hints import Hints
from pipeline.console.pace import Pace

LINE_SECONDS = 5.0
# The hints are asked for, and the bar is drawn, so often.
LOOK_SECONDS = 1.0
# Nothing is said of what takes no longer.
PATIENCE_SECONDS = 2.0
BAR = "{percentage:3.0f}% |{bar:12}| {desc}"


class Progress:
    """Counts images done in this start of the job. Use as a context manager.

    total: images planned. before: images that earlier starts finished. bad: what the third number counts.
    now: what is being done at first, if it has a name. clock: seconds that never go back.
    """

    def __init__(
        self,
        total: int,
        before: int,
        out: TextIO | None = None,
        interval: float = LINE_SECONDS,
        bad: str = "failed",
        now: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._before, self._out, self._interval = total, before, out or sys.stderr, interval
        self._bad_name, self._phase, self._clock = bad, now, clock
        self._done = self._faces = self._failed = 0
        self._began = clock()
        # the walk that is under way: where its hints come from, and what was done before it
        self._poll: Callable[[], Hints | None] = lambda: None
        self._hints: Hints | None = None
        self._engines = self._done_before_walk = 0
        self._pace: Pace | None = None
        self._shown = 0.0
        # when the last line was printed, by the system's clock
        self._spoken = time.monotonic()
        # guards all of the above between the thread that counts and the one that shows
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._bar: tqdm[None] | None = None
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        if self._out.isatty():
            self._bar = tqdm(
                total=1.0, desc=self.bar_text(), file=self._out, bar_format=BAR, dynamic_ncols=True
            )
        elif self._phase:
            self._print()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        # from here on nothing but what was counted
        self._phase, self._hints, self._pace = "", None, None
        if self._bar is not None:
            self._draw(self._bar)
            self._bar.close()
        elif self._done:
            self._print()

    def phase(self, now: str) -> None:
        """Say what is being done from here on, until hints say more; at once, where it is new."""
        with self._lock:
            new, self._phase = now != self._phase, now
            if new and self._thread.is_alive() and self._bar is None:
                self._print()

    def walk(self, poll: Callable[[], Hints | None], engines: int = 0) -> None:
        """Show from here on what the workers of a walk through all pending images say.

        poll: gives at once what is known, None for nothing. engines: how many restore the faces, 0 where none does.
        """
        with self._lock:
            self.phase("starting workers")
            self._poll, self._hints, self._engines = poll, None, engines
            self._done_before_walk = self._done
            pending = max(self._total - self._before - self._done, 0)
            self._pace = Pace(pending, restores=engines > 0)

    def add(self, images: int, faces: int, failed: int) -> None:
        """Count what one unit finished."""
        with self._lock:
            self._done += images
            self._faces += faces
            self._failed += failed
            self._phase = ""

    def look(self) -> None:
        """Ask the workers' hints once more. The thread does so every second."""
        with self._lock:
            poll = self._poll
        hints = poll()
        with self._lock:
            if poll is self._poll and self._pace is not None:
                self._hints = hints
                if hints is not None and hints != Hints():
                    self._phase = ""
                    self._pace.see(self._clock(), hints, self._done - self._done_before_walk)

    def line(self) -> str:
        """One line: how far, how fast, how long still."""
        with self._lock:
            seconds = self._clock() - self._began
            done = self._before + self._done
            if self._hints is not None and self._hints != Hints():
                parts = [f"{done}/{self._total} images ({self.share:.0%})", *self._happening(self._hints)]
                return ", ".join([*parts, f"{duration(seconds)} elapsed", *self._to_go()])
            if self._phase:
                return f"{done}/{self._total} images, {self._phase}, {duration(seconds)} elapsed"
            rate = self._done / seconds if seconds else 0.0
            return (
                f"{done}/{self._total} images ({done / self._total if self._total else 1.0:.0%}), "
                f"{self._faces} faces, {self._failed} {self._bad_name}, "
                f"{rate:.2f} images/s, {duration(seconds)} elapsed, {self._left_by_images()} to go"
            )

    def bar_text(self) -> str:
        """What stands beside the bar; the end of it may be cut off by a narrow terminal."""
        with self._lock:
            done = f"{self._before + self._done}/{self._total} images"
            if self._hints is not None and self._hints != Hints():
                known = self._pace is not None and self._pace.left is not None
                return ", ".join([done, *(self._to_go() if known else []), *self._happening(self._hints)])
            seconds = duration(self._clock() - self._began)
            if self._phase:
                return f"{done}, {self._phase}, {seconds}"
            parts = [done, f"{self._faces} faces", f"{self._failed} {self._bad_name}", seconds]
            if self._done < self._total - self._before:
                parts.append(f"{self._left_by_images()} to go")
            return ", ".join(parts)

    @property
    def share(self) -> float:
        """What is done of the whole, from 0 to 1: steps and pictures that are read count; never less than before."""
        with self._lock:
            if not self._total:
                return 1.0
            finished = (self._before + self._done) / self._total
            if self._pace is not None and finished < 1:
                base = self._before + self._done_before_walk
                ahead = (base + (self._total - base) * self._pace.share) / self._total
                # nothing is at its end that is not delivered
                self._shown = max(self._shown, min(ahead, 0.99))
            self._shown = max(self._shown, finished)
            return self._shown

    def _left_by_images(self) -> str:
        """The time that is left at the rate of the images that were finished since the beginning."""
        if not self._done:
            return "unknown"
        left = self._total - self._before - self._done
        return duration(left * (self._clock() - self._began) / self._done)

    def _happening(self, h: Hints) -> list[str]:
        """What the workers do now, and how fast."""
        assert self._pace is not None
        parts = []
        pending = self._total - self._before - self._done_before_walk
        if h.pictures < pending:
            parts.append(f"{h.pictures} of {pending} read")
        parts.append(f"{h.faces} faces {'to restore' if self._engines else 'found'}")
        if h.ready < self._engines and not h.restored:
            parts.append(f"loading networks ({h.ready} of {self._engines} engines ready)")
        elif self._engines:
            parts.append(f"{h.restored} done")
        steps = self._pace.steps
        if steps:
            parts.append(f"{h.steps} of {'' if steps == h.steps_planned else 'about '}{steps} steps")
        if self._failed:
            parts.append(f"{self._failed} {self._bad_name}")
        rate = self._pace.faces_per_second
        if self._pace.all_restored:
            parts.append("delivering the last pictures")
        elif rate:
            parts.append(f"{rate:.1f} faces/s" if rate >= 1 else f"{60 * rate:.1f} faces/min")
        return parts

    def _to_go(self) -> list[str]:
        assert self._pace is not None
        left = self._pace.left
        if left is None:
            return ["time to go not known yet"]
        if self._pace.all_restored and left < LINE_SECONDS:
            return []  # the end is due by now: how long the last deliveries take was not measured
        return [f"about {duration(rounded(left))} to go"]

    def _tick(self) -> None:
        """Look every second; draw the bar as often, or print a line now and then."""
        while not self._stop.wait(min(self._interval, LOOK_SECONDS)):
            self.look()
            if self._bar is not None:
                self._draw(self._bar)
            elif time.monotonic() - self._spoken >= self._interval:
                self._print()

    def _draw(self, bar: "tqdm[None]") -> None:
        bar.n = self.share  # of a total of 1.0
        bar.set_description_str(self.bar_text())

    def _print(self) -> None:
        with self._lock:
            self._spoken = time.monotonic()
            self._out.write(self.line() + "\n")
            self._out.flush()


class Waiting:
    """Says what is waited for where that takes longer than a moment. Use as a context manager.

    count: how many there are so far, if that can be known, and of what.
    """

    def __init__(
        self,
        what: str,
        count: tuple[Callable[[], int], str] | None = None,
        out: TextIO | None = None,
        patience: float = PATIENCE_SECONDS,
        interval: float = LINE_SECONDS,
    ) -> None:
        self._what, self._count, self._out = what, count, out
        self._patience, self._interval = patience, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="waiting", daemon=True)

    def __enter__(self) -> "Waiting":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """What is waited for, how much of it there is, and since when."""
        so_far = f", {self._count[0]()} {self._count[1]}" if self._count else ""
        return f"{self._what}{so_far}, {duration(time.monotonic() - self._began)} elapsed"

    def _tick(self) -> None:
        pause = self._patience
        while not self._stop.wait(pause):
            write_line(self.line(), self._out)
            pause = self._interval


def write_line(text: str, out: TextIO | None = None) -> None:
    """A line for people, above a bar where one is drawn."""
    out = out or sys.stderr
    tqdm.write(text, file=out)
    out.flush()


def rounded(seconds: float) -> float:
    """No more digits than an estimate has: to 5 s, 30 s or 5 min; never nothing."""
    step = 5 if seconds < 120 else 30 if seconds < 3600 else 300
    return max(round(seconds / step) * step, 5)


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12:05 min, 3:20 h, 4.2 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 86_400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{seconds / 86_400:.1f} days"
