"""Progress of a run: a bar on a terminal, one line every few seconds elsewhere.

Work in flight comes from the workers' counts; finished work from the driver, which calls `add`.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

from pipeline.console.pace import Pace
from pipeline.console.work_counts import WorkCounts

LINE_SECONDS = 5.0
# How often the workers' counts are polled and the bar is drawn.
POLL_SECONDS = 1.0
# A wait shorter than this is not mentioned.
NOTICE_DELAY_SECONDS = 2.0
BAR = "{percentage:3.0f}% |{bar:12}| {desc}"
R = TypeVar("R")


class Progress:
    """Shows how many images this start of the job has done. Use as a context manager.

    total: images planned. before: images finished by earlier starts. bad: label of the third number.
    now: name of the first phase, if any. clock: monotonic seconds.
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
        # the current pass: where its counts come from, and the images done before it
        self._poll: Callable[[], WorkCounts | None] = lambda: None
        self._counts: WorkCounts | None = None
        self._engines = self._done_before_pass = 0
        self._pace: Pace | None = None
        self._shown = 0.0
        # time of the last printed line, by the system's clock
        self._printed_at = time.monotonic()
        # guards all of the above between the counting and the displaying thread
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
        # from here on only what was counted with `add`
        self._phase, self._counts, self._pace = "", None, None
        if self._bar is not None:
            self._draw(self._bar)
            self._bar.close()
        elif self._done:
            self._print()

    def phase(self, now: str) -> None:
        """Name the current phase, shown until workers report counts; a new one is printed at once."""
        with self._lock:
            new, self._phase = now != self._phase, now
            if new and self._thread.is_alive() and self._bar is None:
                self._print()

    def follow(self, poll: Callable[[], WorkCounts | None], engines: int = 0) -> None:
        """Show from here on the counts of a pass over all pending images.

        poll: returns the current counts without blocking, None where there are none. engines: how many restore faces.
        """
        with self._lock:
            self.phase("starting workers")
            self._poll, self._counts, self._engines = poll, None, engines
            self._done_before_pass = self._done
            pending = max(self._total - self._before - self._done, 0)
            self._pace = Pace(pending, restores=engines > 0)

    def add(self, images: int, faces: int, failed: int) -> None:
        """Count a finished unit."""
        with self._lock:
            self._done += images
            self._faces += faces
            self._failed += failed
            self._phase = ""

    def refresh(self) -> None:
        """Poll the workers' counts. The display thread does so every second."""
        with self._lock:
            poll = self._poll
        counts = poll()
        with self._lock:
            if poll is self._poll and self._pace is not None:
                self._counts = counts
                if counts is not None and counts != WorkCounts():
                    self._phase = ""
                    self._pace.update(self._clock(), counts, self._done - self._done_before_pass)

    def line(self) -> str:
        """One line: images done, rate, time left."""
        with self._lock:
            seconds = self._clock() - self._began
            done = self._before + self._done
            if self._counts is not None and self._counts != WorkCounts():
                parts = [f"{done}/{self._total} images ({self.share:.0%})", *self._activity(self._counts)]
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
        """The text beside the bar, the most important first: a narrow terminal cuts it off."""
        with self._lock:
            done = f"{self._before + self._done}/{self._total} images"
            if self._counts is not None and self._counts != WorkCounts():
                known = self._pace is not None and self._pace.left is not None
                return ", ".join([done, *(self._to_go() if known else []), *self._activity(self._counts)])
            seconds = duration(self._clock() - self._began)
            if self._phase:
                return f"{done}, {self._phase}, {seconds}"
            parts = [done, f"{self._faces} faces", f"{self._failed} {self._bad_name}", seconds]
            if self._done < self._total - self._before:
                parts.append(f"{self._left_by_images()} to go")
            return ", ".join(parts)

    @property
    def share(self) -> float:
        """Share of all images that is done, from 0 to 1, work in flight counted in part; never decreases."""
        with self._lock:
            if not self._total:
                return 1.0
            finished = (self._before + self._done) / self._total
            if self._pace is not None and finished < 1:
                base = self._before + self._done_before_pass
                ahead = (base + (self._total - base) * self._pace.share) / self._total
                # 100 % only once everything is delivered
                self._shown = max(self._shown, min(ahead, 0.99))
            self._shown = max(self._shown, finished)
            return self._shown

    def _left_by_images(self) -> str:
        """The time left at the mean rate of finished images."""
        if not self._done:
            return "unknown"
        left = self._total - self._before - self._done
        return duration(left * (self._clock() - self._began) / self._done)

    def _activity(self, c: WorkCounts) -> list[str]:
        """What the workers are doing, and how fast."""
        assert self._pace is not None
        parts = []
        pending = self._total - self._before - self._done_before_pass
        if c.pictures < pending:
            parts.append(f"{c.pictures} of {pending} read")
        parts.append(f"{c.faces} faces {'to restore' if self._engines else 'found'}")
        if c.ready < self._engines and not c.restored:
            parts.append(f"loading networks ({c.ready} of {self._engines} engines ready)")
        elif self._engines:
            parts.append(f"{c.restored} done")
        steps = self._pace.steps
        if steps:
            parts.append(f"{c.steps} of {'' if steps == c.steps_planned else 'about '}{steps} steps")
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
            return []  # the last deliveries were not measured, so no time is given for them
        return [f"about {duration(rounded(left))} to go"]

    def _tick(self) -> None:
        """Poll every second; draw the bar as often, or print a line every `interval`."""
        while not self._stop.wait(min(self._interval, POLL_SECONDS)):
            self.refresh()
            if self._bar is not None:
                self._draw(self._bar)
            elif time.monotonic() - self._printed_at >= self._interval:
                self._print()

    def _draw(self, bar: "tqdm[None]") -> None:
        bar.n = self.share  # of a total of 1.0
        bar.set_description_str(self.bar_text())

    def _print(self) -> None:
        with self._lock:
            self._printed_at = time.monotonic()
            self._out.write(self.line() + "\n")
            self._out.flush()


class WaitNotice:
    """Prints what is being waited for, once it takes longer than `delay` seconds. Use as a context manager.

    count: returns how many items are found so far, and their name.
    """

    def __init__(
        self,
        what: str,
        count: tuple[Callable[[], int], str] | None = None,
        out: TextIO | None = None,
        delay: float = NOTICE_DELAY_SECONDS,
        interval: float = LINE_SECONDS,
    ) -> None:
        self._what, self._count, self._out = what, count, out
        self._delay, self._interval = delay, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="waiting", daemon=True)

    def __enter__(self) -> "WaitNotice":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """What is being waited for, how many items are found, and the time elapsed."""
        so_far = f", {self._count[0]()} {self._count[1]}" if self._count else ""
        return f"{self._what}{so_far}, {duration(time.monotonic() - self._began)} elapsed"

    def _tick(self) -> None:
        pause = self._delay
        while not self._stop.wait(pause):
            write_line(self.line(), self._out)
            pause = self._interval


def counted(
    results: Iterable[R], what: str, total: int, of: str, delay: float = NOTICE_DELAY_SECONDS
) -> list[R]:
    """The results as a list; while they are awaited, prints how many of `total` there are, where it takes long.

    what: what is being waited for; of: name of the items.
    """
    found: list[R] = []
    with WaitNotice(what, (lambda: len(found), f"of {total} {of}"), delay=delay):
        for result in results:
            found.append(result)  # counted from another thread meanwhile
    return found


def write_line(text: str, out: TextIO | None = None) -> None:
    """Print a line, above the bar where one is drawn."""
    out = out or sys.stderr
    tqdm.write(text, file=out)
    out.flush()


def rounded(seconds: float) -> float:
    """Rounded to the precision of an estimate: 5 s, 30 s or 5 min; never 0."""
    step = 5 if seconds < 120 else 30 if seconds < 3600 else 300
    return max(round(seconds / step) * step, 5)


def duration(seconds: float) -> str:
    """Seconds as text: 45 s, 12:05 min, 3:20 h, 4.2 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 86_400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{seconds / 86_400:.1f} days"
