"""How fast a walk through the flow is and how long it still takes, from what its workers report.

Its work is measured in calls of networks: one for the estimate of a face, and one for each step of its chain. How many
faces are still to come is predicted from the pictures that were read.
"""

import math
from collections import deque

from pipeline.console.hints import Hints

# The rate is that of so many last seconds, and nothing is said of the first few.
WINDOW, SETTLING = 60.0, 3.0
# Seconds after which an estimate of the end has moved two thirds of the way to where new measurements put it.
SMOOTHING = 20.0
# Of a walk's share that is done, what reading its pictures counts for, and what restoring its faces.
READING, RESTORING = 0.1, 0.9
# So many deliveries are needed for a rate of pictures, since units come whole.
FEWEST_DELIVERIES = 3


class Pace:
    """Is shown the board time and again, and asked for rate, time left and share done.

    pictures: those of the walk. restores: their faces go to an engine; else they are only read.
    """

    def __init__(self, pictures: int, restores: bool) -> None:
        self._pictures, self._restores = pictures, restores
        self._hints = Hints()
        self._now = 0.0
        self._read_since: float | None = None
        # (time, work) of the last looks, and of the first at which an engine had done something
        self._work: deque[tuple[float, float]] = deque()
        self._work_since: tuple[float, float] | None = None
        # (time, pictures) of the first delivery and of the last, and how many there were
        self._delivered: list[tuple[float, int]] = []
        self._deliveries = 0
        self._end: float | None = None
        self._predicted_since = 0.0

    def see(self, now: float, hints: Hints, delivered: int) -> None:
        """Take a look at the time `now`, in seconds of a clock. delivered: pictures of this walk that are done."""
        before, self._hints = self._now or now, hints
        if self._read_since is None and hints.pictures:
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
        self._settle(now - before)

    @property
    def work(self) -> float:
        """Calls of networks that were made."""
        return self._begun + self._hints.steps

    @property
    def _begun(self) -> int:
        """Faces that were estimated; an engine that only does that reports the end of each alone."""
        return max(self._hints.decided, self._hints.restored)

    @property
    def faces(self) -> float:
        """Faces of all pictures of the walk: those found, and as many in each picture that is yet to be read."""
        h = self._hints
        return h.faces * max(self._pictures / h.pictures, 1.0) if h.pictures else 0.0

    @property
    def calls_per_face(self) -> float | None:
        """Mean over the faces that were decided; None before the first."""
        return 1.0 + self._hints.steps_planned / self._begun if self._begun else None

    @property
    def steps(self) -> int:
        """Steps of the chains of all faces: of those to come as many each as of those that were decided."""
        each = self.calls_per_face
        return max(round(self.faces * (each - 1)) if each else 0, self._hints.steps_planned)

    @property
    def all_restored(self) -> bool:
        """Whether every picture is read and every face of them has left its engine."""
        h = self._hints
        return self._restores and h.pictures >= self._pictures and h.restored >= h.faces

    @property
    def faces_per_second(self) -> float | None:
        """Faces that engines finish in a second, parts of faces counted; None while nobody can know."""
        rate, each = self._calls_per_second, self.calls_per_face
        return rate / each if rate and each else None

    @property
    def left(self) -> float | None:
        """Seconds until the walk ends, smoothed; None while nobody can know."""
        return None if self._end is None else max(self._end - self._now, 0.0)

    @property
    def share(self) -> float:
        """What is done of the walk's work, from 0 to 1."""
        read = min(self._hints.pictures / self._pictures, 1.0) if self._pictures else 1.0
        if not self._restores:
            return read
        restored, total = read, self._total
        if total != 0:
            # no more than was read: an engine's report may come before that of who read its faces
            restored = min(self.work / total, read) if total else 0.0
        return READING * read + RESTORING * restored

    @property
    def _total(self) -> float | None:
        """Calls of the whole walk; None while faces wait of which nothing is decided."""
        if self.calls_per_face is None:
            return None if self._hints.faces else 0.0
        # a face on its way is known to the step
        return max(self.faces * self.calls_per_face, self._begun + self._hints.steps_planned)

    @property
    def _calls_per_second(self) -> float | None:
        if self._work_since is None or self._now - self._work_since[0] < SETTLING:
            return None
        for began, work in (self._work[0], self._work_since):
            if self._now > began and self.work > work:
                return (self.work - work) / (self._now - began)
        return None

    def _settle(self, passed: float) -> None:
        """Move the estimate of the end towards what is measured now."""
        left = self._measured_left()
        if left is None:
            return
        if self._end is None:
            self._end, self._predicted_since = self._now + left, self._now
        # the first estimates are the worst, and weigh less
        slowness = min(max((self._now - self._predicted_since) / 2, 1.0), SMOOTHING)
        self._end += (1 - math.exp(-passed / slowness)) * (self._now + left - self._end)

    def _measured_left(self) -> float | None:
        """Seconds that the slowest of reading, restoring and delivering still needs, as of now."""
        stages = [self._reading_left()]
        if self._restores and self._hints.faces:
            stages.append(self._restoring_left())
        if None in stages:
            return None
        return max(*(s for s in stages if s is not None), self._delivering_left())

    def _reading_left(self) -> float | None:
        h = self._hints
        if h.pictures >= self._pictures:
            return 0.0
        if not h.pictures or self._read_since is None or self._now - self._read_since < SETTLING:
            return None
        # from the beginning: readers wait for engines, and stand still in between
        return (self._pictures - h.pictures) * (self._now - self._read_since) / h.pictures

    def _restoring_left(self) -> float | None:
        total, rate = self._total, self._calls_per_second
        if total is None:
            return None
        if self.work >= total:
            return 0.0
        return (total - self.work) / rate if rate else None

    def _delivering_left(self) -> float:
        """By the pictures delivered between the first time and the last; 0 while that says nothing."""
        if self._deliveries < FEWEST_DELIVERIES:
            return 0.0
        (first, some), (last, more) = self._delivered
        if last - first < SETTLING:
            return 0.0
        left = (self._pictures - more) * (last - first) / (more - some)
        return max(left - (self._now - last), 0.0)
