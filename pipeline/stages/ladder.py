"""Each face by the first of several treatments whose result passes the gates; by none, it is left as it was.

The first is what was asked for. Gentler ones are tried for the faces that need them alone, in the same engine, while it
restores others. What is tried, and what decides, depends on the face and its settings alone.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.request import EngineFailure, FaceJob, FaceResult, NonFiniteFace
from pipeline.diffusion.treatment import ESTIMATOR, Rung, Treatment
from pipeline.faces.gates import Gate, Gates, Judged

Crop = NDArray[np.uint8]
# A chain or an estimate that leaves the finite numbers fails this gate.
NON_FINITE = "non_finite"


class Submits(Protocol):
    """An engine."""

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later."""
        ...


@dataclass(frozen=True)
class Tried:
    """A treatment that was tried with a face."""

    rung: Rung
    treatment: Treatment | None = None
    start_step: int | None = None
    # by gate
    measured: dict[str, float] = field(default_factory=dict)
    # the gate that it did not pass, and that gate's bound
    failed: Gate | str | None = None
    bound: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For the records; what does not apply is left out."""
        values: dict[str, Any] = {"rung": self.rung}
        if self.treatment is not None and self.treatment.chain is not None:
            values |= {
                "start_step": self.start_step,
                "calls": self.treatment.steps,
                "hold": self.treatment.hold,
            }
        # a face that is not found any more has moved by no number
        values |= {name: value if math.isfinite(value) else None for name, value in self.measured.items()}
        return values | ({"failed": self.failed, "bound": self.bound} if self.failed else {})


@dataclass
class Climb:
    """A face on its way, and at the end what became of it."""

    job: FaceJob
    # whether a result must pass the gates; where it need not, they measure it all the same
    gated: bool = True
    # what is still to be tried; known once the first result is there
    left: list[tuple[Rung, Treatment]] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    # of every call of the engine
    results: list[FaceResult] = field(default_factory=list)
    came: Judged | None = None
    # what they showed, once for each treatment that was tried and came to its end
    seen: list[Crop] = field(default_factory=list)
    # in the end, one of these: its result, or why it failed
    outcome: FaceResult | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Ladder:
    """Restores faces through an engine and gates."""

    engine: Submits
    # the treatments to try with a face of one, that one first
    rungs: Callable[[Treatment], list[tuple[Rung, Treatment]]]
    # None delivers what was asked for, whatever comes out
    gates: Gates | None
    # what becomes of a restored crop before it is judged and delivered: (came, restored) → restored
    finish: Callable[[Crop, Crop], Crop]

    def restore(self, jobs: Sequence[FaceJob], ungated: Collection[int] = ()) -> Iterator[tuple[int, Climb]]:
        """Each job's index and outcome, as they are settled. EngineFailure, and what is no Exception, ends it.

        ungated: indices of the jobs whose result is delivered whatever the gates say.
        """
        climbs = [Climb(job, gated=i not in ungated) for i, job in enumerate(jobs)]
        waiting: dict[int, tuple[Rung, Future[FaceResult]]] = {}
        done: SimpleQueue[int] = SimpleQueue()

        def submit(i: int, rung: Rung, job: FaceJob) -> None:
            waiting[i] = (rung, self.engine.submit(job))
            waiting[i][1].add_done_callback(lambda _: done.put(i))

        try:
            for i, job in enumerate(jobs):
                submit(i, "asked", job)
            while waiting:
                i = done.get()
                following = self._judge(climbs[i], *waiting.pop(i))
                if following is None:
                    yield i, climbs[i]
                else:
                    rung, treatment = following
                    submit(i, rung, replace(jobs[i], treatment=treatment))
        finally:
            for _, future in waiting.values():  # the unit is given up: its faces need no slots
                future.cancel()

    def _judge(self, climb: Climb, rung: Rung, future: "Future[FaceResult]") -> tuple[Rung, Treatment] | None:
        """Settle a face by the result of a treatment, or say what is tried next; what raises fails this face alone."""
        try:
            result = future.result()
            climb.results.append(result)
            if rung == "asked":
                climb.left = self.rungs(result.treatment)[1:]
            return self._settle(climb, rung, result)
        except EngineFailure:
            raise
        except NonFiniteFace as error:
            if self.gates is not None and climb.gated and rung != "estimator":
                climb.tried.append(Tried(rung, failed=NON_FINITE))
                return climb.left.pop(0) if climb.left else ("estimator", ESTIMATOR)
            climb.error = error
        except Exception as error:
            climb.error = error
        return None

    def _settle(self, climb: Climb, rung: Rung, result: FaceResult) -> tuple[Rung, Treatment] | None:
        if result.treatment.kind == "left":
            climb.outcome = result
            return None
        restored = self.finish(climb.job.crop, result.restored)
        climb.seen.append(restored)
        finished = replace(result, restored=restored)
        tried = self._measured(climb, rung, finished)
        climb.tried.append(tried)
        if not tried.failed:
            climb.outcome = finished
        elif tried.failed == "gain" or not climb.left:  # what is gentler gains less
            left = Treatment("left")
            climb.outcome = replace(result, restored=climb.job.crop.copy(), treatment=left, start_step=None)
        else:
            following = climb.left.pop(0)
            if following[0] != "estimator":
                return following
            # its picture is there already
            alone = replace(result, restored=result.estimated, treatment=ESTIMATOR, start_step=None)
            return self._settle(climb, "estimator", alone)
        return None

    def _measured(self, climb: Climb, rung: Rung, result: FaceResult) -> Tried:
        """What the gates say of a result."""
        tried = Tried(rung, result.treatment, result.start_step)
        if self.gates is None:
            return tried
        if climb.came is None:
            climb.came = self.gates.face(climb.job.crop, self.finish(climb.job.crop, result.estimated))
        found, delta = self.gates.measure(climb.came, result.restored), result.estimated_change
        gate = self.gates.failed(found, delta) if climb.gated else None
        bound = self.gates.bounds.at(gate, delta) if gate else None
        return replace(tried, measured=found.rounded, failed=gate, bound=bound)
