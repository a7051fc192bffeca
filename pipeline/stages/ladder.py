"""Each face by the first of several treatments whose result passes the gates; by none, it is left as it was.

The first is what was asked for. Gentler ones are tried for the faces that need them alone, in the same engine, while it
restores others. What is tried, and what decides, depends on the face and its settings alone.

A face may have further noise keys: then each treatment with a chain is carried out once with each key, and one of the
samples is judged and delivered.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.noise import NoiseKey
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
    # of several samples the one that was judged
    sample: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For the records; what does not apply is left out."""
        values: dict[str, Any] = {"rung": self.rung}
        if self.treatment is not None and self.treatment.chain is not None:
            values |= {
                "start_step": self.start_step,
                "calls": self.treatment.steps,
                "hold": self.treatment.hold,
            }
        values |= {} if self.sample is None else {"sample": self.sample}
        # a face that is not found any more has moved by no number
        values |= {name: value if math.isfinite(value) else None for name, value in self.measured.items()}
        return values | ({"failed": self.failed, "bound": self.bound} if self.failed else {})


@dataclass
class Climb:
    """A face on its way, and at the end what became of it."""

    job: FaceJob
    # of its samples beside that of the job's own key
    keys: tuple[NoiseKey, ...] = ()
    # whether a result must pass the gates; where it need not, they measure it all the same
    gated: bool = True
    # what is still to be tried; known once the first result is there
    left: list[tuple[Rung, Treatment]] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    # of every call of the engine
    results: list[FaceResult] = field(default_factory=list)
    # of the last treatment, as it was judged: every sample, and which of them counts
    samples: list[Crop] = field(default_factory=list)
    chosen: int = 0
    came: Judged | None = None
    # what they showed, once for each treatment that was tried and came to its end
    seen: list[Crop] = field(default_factory=list)
    # in the end, one of these: its result, or why it failed
    outcome: FaceResult | None = None
    error: Exception | None = None


@dataclass
class Attempt:
    """A treatment that is being tried with a face."""

    rung: Rung
    # a sample each
    futures: list["Future[FaceResult]"] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether every sample is there, or has failed."""
        return all(future.done() for future in self.futures)

    @property
    def results(self) -> list[FaceResult]:
        """The samples that are there; of an attempt that is done."""
        return [future.result() for future in self.futures if future.exception() is None]

    @property
    def error(self) -> BaseException | None:
        """Why the first of those that failed did; that of the engine comes before that of a face."""
        errors = [error for future in self.futures if (error := future.exception()) is not None]
        return min(errors, key=lambda error: not isinstance(error, EngineFailure), default=None)

    def further(self, climb: Climb) -> list[FaceJob]:
        """The jobs of a face's other samples, where the first of the treatment that was asked for is the only one."""
        if self.rung != "asked" or len(self.futures) > 1 or not self.results:
            return []
        return samples_of(replace(climb.job, treatment=self.results[0].treatment), climb.keys)[1:]


def samples_of(job: FaceJob, keys: Sequence[NoiseKey]) -> list[FaceJob]:
    """The job, and where its treatment is a chain the same with each of the keys."""
    is_chain = isinstance(job.treatment, Treatment) and job.treatment.chain is not None
    return [job, *(replace(job, key=key) for key in keys if is_chain)]


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
    # which of several finished samples is judged and delivered: its index
    choose: Callable[[Sequence[Crop]], int] = lambda samples: 0
    # is given the number of jobs that the engine gets beyond the first of each face
    report: Callable[[int], None] = lambda number: None

    def restore(
        self,
        jobs: Sequence[FaceJob],
        keys: Sequence[tuple[NoiseKey, ...]] = (),
        ungated: Collection[int] = (),
    ) -> Iterator[tuple[int, Climb]]:
        """Each job's index and outcome, as they are settled. EngineFailure, and what is no Exception, ends it.

        keys: of each job's further samples; empty: none has any. ungated: indices of the jobs whose result is delivered
        whatever the gates say.
        """
        every = zip(jobs, keys or [()] * len(jobs), strict=True)
        climbs = {i: Climb(job, further, i not in ungated) for i, (job, further) in enumerate(every)}
        waiting: dict[int, Attempt] = {}
        done: SimpleQueue[int] = SimpleQueue()

        def submit(i: int, attempt: Attempt, more: Sequence[FaceJob]) -> None:
            waiting[i] = attempt
            for job in more:
                attempt.futures.append(self.engine.submit(job))
                attempt.futures[-1].add_done_callback(lambda _: done.put(i))

        try:
            for i, job in enumerate(jobs):
                # its treatment, and whether there are samples, is known once the first is there
                submit(i, Attempt("asked"), [job])
            while waiting:
                i = done.get()
                if i not in waiting or not waiting[i].is_done:
                    continue
                attempt = waiting.pop(i)
                if more := attempt.further(climbs[i]):
                    self.report(len(more))
                    submit(i, attempt, more)
                    continue
                following = self._judge(climbs[i], attempt)
                if following is None:
                    yield i, climbs.pop(i)
                else:
                    rung, treatment = following
                    first = replace(jobs[i], treatment=treatment)
                    more = samples_of(first, climbs[i].keys)
                    self.report(len(more))
                    submit(i, Attempt(rung), more)
        finally:
            for attempt in waiting.values():  # the unit is given up: its faces need no slots
                for future in attempt.futures:
                    future.cancel()

    def _judge(self, climb: Climb, attempt: "Attempt") -> tuple[Rung, Treatment] | None:
        """Settle a face by the results of a treatment, or say what is tried next; what raises fails this face alone."""
        rung = attempt.rung
        try:
            results = attempt.results
            climb.results += results
            if rung == "asked" and results:
                climb.left = self.rungs(results[0].treatment)[1:]
            if attempt.error is not None:
                raise attempt.error
            return self._settle(climb, rung, results)
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

    def _settle(
        self, climb: Climb, rung: Rung, results: Sequence[FaceResult]
    ) -> tuple[Rung, Treatment] | None:
        if results[0].treatment.kind == "left":
            climb.outcome = results[0]
            return None
        climb.samples = [self.finish(climb.job.crop, result.restored) for result in results]
        climb.chosen = self.choose(climb.samples) if len(results) > 1 else 0
        result = results[climb.chosen]
        climb.seen.append(climb.samples[climb.chosen])
        finished = replace(result, restored=climb.samples[climb.chosen])
        tried = self._measured(climb, rung, finished)
        climb.tried.append(replace(tried, sample=climb.chosen) if len(results) > 1 else tried)
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
            return self._settle(climb, "estimator", [alone])
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
