"""Rate and remaining time of a pass through the flow, from the counts that its workers report.

Work is measured in network calls: one for the estimate of a face, and one for each step of its chain. The number of
faces still to come is extrapolated from the pictures read so far.
"""

import math
from collections import deque

from pipeline.console.work_counts import WorkCounts

# Seconds over which the rate is averaged, and seconds before the first rate is given.
WINDOW, SETTLING = 60.0, 3.0
# Time constant of the smoothed end time, seconds: after it, an estimate has moved two thirds towards a new one.
SMOOTHING = 20.0
# Weights of reading pictures and of restoring faces in the share that is done.
READING, RESTORING = 0.1, 0.9
# Deliveries needed for a rate of pictures: units are delivered whole.
FEWEST_DELIVERIES = 3


class Pace:
    """Rate, time left and share done of one pass, updated from the workers' counts.

    pictures: number in the pass. restores: whether their faces go to an engine, or are only detected.
    """

    def __init__(self, pictures: int, restores: bool) -> None:
        self._pictures, self._restores = pictures, restores
        self._counts = WorkCounts()
        self._now = 0.0
        self._read_since: float | None = None
        # (time, work) of the last updates, and of the first one with any work
        self._work: deque[tuple[float, float]] = deque()
        self._work_since: tuple[float, float] | None = None
        # (time, pictures) of the first and the last delivery, and the number of deliveries
        self._delivered: list[tuple[float, int]] = []
        self._deliveries = 0
        self._end: float | None = None
        self._predicted_since = 0.0

    def update(self, now: float, counts: WorkCounts, delivered: int) -> None:
        """Take the counts at time `now`, in seconds. delivered: pictures of this pass that are done."""
        before, self._counts = self._now or now, counts
        if self._read_since is None and counts.pictures:
            self._read_since = before
        if self.work > 0:
            self._work.append((now, self.work))
            self._work_since = self._work_since or self._work[0]
            while len(self._work) > 2 and self._work[1][0] <= now - WINDOW:
                self._work.popleft()
        if delivered > (self._delivered[-1][1] if self._delivered else 0):
            self._deliveries += 1
            self._delivered = [*self._delivered[:1], (now, delivered)]
        self._now = now
        self._smooth(now - before)

    @property
    def work(self) -> float:
        """Network calls made so far."""
        return self._begun + self._counts.steps

    @property
    def _begun(self) -> int:
        """Faces that were estimated, with every sample. An estimator-only engine reports finished faces alone."""
        return max(self._counts.decided, self._counts.restored)

    @property
    def faces(self) -> float:
        """Expected faces of all pictures of the pass, at the mean number per picture read so far."""
        c = self._counts
        return c.faces * max(self._pictures / c.pictures, 1.0) if c.pictures else 0.0

    @property
    def calls_per_face(self) -> float | None:
        """Mean over the decided faces and samples; None before the first."""
        return 1.0 + self._counts.steps_planned / self._begun if self._begun else None

    @property
    def steps(self) -> int:
        """Expected chain steps of all faces, at the mean of the decided ones."""
        each = self.calls_per_face
        return max(round(self._requests * (each - 1)) if each else 0, self._counts.steps_planned)

    @property
    def all_restored(self) -> bool:
        """Whether every picture is read and every face has left its engine."""
        c = self._counts
        return self._restores and c.pictures >= self._pictures and c.restored >= c.faces

    @property
    def faces_per_second(self) -> float | None:
        """Faces restored per second, unfinished ones counted in part; None while unknown."""
        rate, each = self._calls_per_second, self.calls_per_face
        share = self.faces / self._requests if self._requests else 1.0
        return rate / each * share if rate and each else None

    @property
    def _requests(self) -> float:
        """Expected faces, each further sample or treatment counted as one."""
        return self.faces + self._counts.further

    @property
    def left(self) -> float | None:
        """Seconds until the pass ends, smoothed; None while unknown."""
        return None if self._end is None else max(self._end - self._now, 0.0)

    @property
    def share(self) -> float:
        """Share of the pass that is done, from 0 to 1."""
        read = min(self._counts.pictures / self._pictures, 1.0) if self._pictures else 1.0
        if not self._restores:
            return read
        restored, total = read, self._total
        if total != 0:
            # capped by the pictures read: an engine's report may arrive before the reader's
            restored = min(self.work / total, read) if total else 0.0
        return READING * read + RESTORING * restored

    @property
    def _total(self) -> float | None:
        """Expected network calls of the whole pass; None while there are faces but none is decided."""
        if self.calls_per_face is None:
            return None if self._counts.faces else 0.0
        # of decided faces the exact number is known
        return max(self._requests * self.calls_per_face, self._begun + self._counts.steps_planned)

    @property
    def _calls_per_second(self) -> float | None:
        if self._work_since is None or self._now - self._work_since[0] < SETTLING:
            return None
        for began, work in (self._work[0], self._work_since):
            if self._now > began and self.work > work:
                return (self.work - work) / (self._now - began)
        return None

    def _smooth(self, elapsed: float) -> None:
        """Move the estimated end towards the current measurement."""
        left = self._measured_left()
        if left is None:
            return
        if self._end is None:
            self._end, self._predicted_since = self._now + left, self._now
        # early estimates are the least accurate: they are replaced faster
        slowness = min(max((self._now - self._predicted_since) / 2, 1.0), SMOOTHING)
        self._end += (1 - math.exp(-elapsed / slowness)) * (self._now + left - self._end)

    def _measured_left(self) -> float | None:
        """Seconds that the slowest of reading, restoring and delivering still needs; None while unknown."""
        stages = [self._reading_left()]
        if self._restores and self._counts.faces:
            stages.append(self._restoring_left())
        if None in stages:
            return None
        return max(*(s for s in stages if s is not None), self._delivering_left())

    def _reading_left(self) -> float | None:
        c = self._counts
        if c.pictures >= self._pictures:
            return 0.0
        if not c.pictures or self._read_since is None or self._now - self._read_since < SETTLING:
            return None
        # averaged from the start: readers pause while the engines are busy
        return (self._pictures - c.pictures) * (self._now - self._read_since) / c.pictures

    def _restoring_left(self) -> float | None:
        total, rate = self._total, self._calls_per_second
        if total is None:
            return None
        if self.work >= total:
            return 0.0
        return (total - self.work) / rate if rate else None

    def _delivering_left(self) -> float:
        """By the pictures delivered between the first and the last delivery; 0 while there are too few."""
        if self._deliveries < FEWEST_DELIVERIES:
            return 0.0
        (first, some), (last, more) = self._delivered
        if last - first < SETTLING:
            return 0.0
        left = (self._pictures - more) * (last - first) / (more - some)
        return max(left - (self._now - last), 0.0)
