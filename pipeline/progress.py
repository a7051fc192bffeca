"""What a person sees while a run works: a bar on a terminal, one line every few seconds elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 5.0


class Progress:
    """Counts images done in this start of the job. Use as a context manager.

    total: images planned. before: images that earlier starts finished. bad: what the third number counts.
    """

    def __init__(
        self,
        total: int,
        before: int,
        out: TextIO | None = None,
        interval: float = LINE_SECONDS,
        bad: str = "failed",
    ) -> None:
        self._total, self._before, self._out, self._interval = total, before, out or sys.stderr, interval
        self._bad_name = bad
        self._done = self._faces = self._failed = 0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._bar: tqdm[None] | None = None
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        if self._out.isatty():
            self._bar = tqdm(
                total=self._total, initial=self._before, unit="img", file=self._out, smoothing=0.1
            )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()
        elif self._done:
            self._out.write(self.line() + "\n")

    def add(self, images: int, faces: int, failed: int) -> None:
        """Count what one unit finished."""
        self._done += images
        self._faces += faces
        self._failed += failed
        if self._bar is not None:
            counts = {"faces": self._faces, self._bad_name: self._failed}
            self._bar.set_postfix(counts, refresh=False)
            self._bar.update(images)

    def line(self) -> str:
        """One line: how far, how fast, how long still."""
        seconds = time.monotonic() - self._began
        done = self._before + self._done
        rate = self._done / seconds if seconds else 0.0
        left = duration((self._total - done) / rate) if self._done else "unknown"
        share = done / self._total if self._total else 1.0
        return (
            f"{done}/{self._total} images ({share:.0%}), {self._faces} faces, {self._failed} {self._bad_name}, "
            f"{rate:.2f} images/s, {duration(seconds)} elapsed, {left} to go"
        )

    def _tick(self) -> None:
        while not self._stop.wait(self._interval):
            if self._bar is not None:
                self._bar.refresh()
            else:
                self._out.write(self.line() + "\n")
                self._out.flush()


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
