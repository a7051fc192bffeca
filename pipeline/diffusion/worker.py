"""One thread of the engine: its slots, the faces on their way through them, and the network calls it makes."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.diffusion.constraints import Hold
from pipeline.diffusion.difface import to_signed
from pipeline.diffusion.estimation import ChainEntry, Estimated
from pipeline.diffusion.recovery import isolate_failures
from pipeline.diffusion.request import FaceResult, NonFiniteFace, Report, Request
from pipeline.diffusion.sampler import Solver, step_table
from pipeline.diffusion.schedule import Chain, Schedule
from pipeline.diffusion.scheduler import Scheduler
from pipeline.diffusion.slots import Slots
from pipeline.diffusion.transfers import Readback
from pipeline.diffusion.treatment import Treatment


class StepTables:
    """Timesteps and coefficients of every chain in use, computed once. The workers share it."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._rows: dict[tuple[Chain, float, Solver], NDArray[np.float32]] = {}

    def rows(self, chain: Chain, eta: float, solver: Solver) -> NDArray[np.float32]:
        """[K, 7] float32: the step table of the chain, see `step_table`."""
        key = (chain, eta, solver)
        if key not in self._rows:
            self._rows[key] = step_table(self.schedule, chain, eta, solver).numpy()
        return self._rows[key]

    def timesteps(self, chain: Chain) -> NDArray[np.int64]:
        """[K] int64: the original step numbers of the chain."""
        return self.schedule.t[list(chain.indices)]


@dataclass
class _Running:
    """A face in a slot."""

    request: Request
    treatment: Treatment
    chain: Chain
    delta: float
    slot: int
    rows: NDArray[np.float32]  # [K, 7] of its step table
    timesteps: NDArray[np.int64]  # [K] original step numbers
    # as FaceResult has them
    steps: int = 0
    capacity: float = 0.0
    steps_saturated: int = 0
    capacity_saturated: float = 0.0

    @property
    def steps_left(self) -> int:
        return len(self.timesteps) - self.steps

    def count_step(self, share: float, saturated: bool) -> None:
        """Note a call that it took part in. share: slots of the worker for each of its faces."""
        self.steps += 1
        self.capacity += share
        self.steps_saturated += saturated
        self.capacity_saturated += saturated * share


class Worker:
    """Moves the faces in its slots a step at a time; whoever is finished leaves before the next call, and others enter.

    A face passes through `entering` (taken from the queue), `_ready` (estimated, x_N drawn), `_running` (in a slot) and
    `_leaving` (on its way to the host).
    """

    def __init__(
        self, slots: Slots, entry: ChainEntry, tables: StepTables, scheduler: Scheduler, report: Report
    ) -> None:
        self._slots, self._entry, self._tables = slots, entry, tables
        self._scheduler, self._report = scheduler, report
        self._free = list(range(slots.count))
        self.entering: list[Request] = []
        self._ready: deque[Estimated] = deque()
        self._running: list[_Running] = []
        self._leaving: deque[tuple[_Running, Readback]] = deque()

    @property
    def slot_count(self) -> int:
        """Faces it can have in chains at once."""
        return self._slots.count

    @property
    def busy(self) -> bool:
        """Whether it has a face to compute."""
        return bool(self._running or self.entering)

    @property
    def requests(self) -> list[Request]:
        """All that it has taken and not settled, longest taken first."""
        left = [running.request for running, _ in self._leaving]
        return [
            *left,
            *(running.request for running in self._running),
            *(face.request for face in self._ready),
            *self.entering,
        ]

    def serve(self) -> None:
        """Restore faces until the scheduler has no more. Raises out of memory, and faults of the engine itself."""
        with self._slots.in_use():
            while self._admit():
                self._step()
                self.deliver()

    def deliver(self, wait: bool = False) -> None:
        """Settle the faces whose pictures are on the host; wait: all that left their slots."""
        while self._leaving and (wait or self._leaving[0][1].arrived()):
            running, readback = self._leaving.popleft()
            running.request.settle(self._outcome(running, readback))

    def report_restart(self) -> None:
        """Take back what was reported of the faces that begin again elsewhere."""
        left = [r.steps_left for r in self._running] + [face.treatment.steps for face in self._ready]
        self._report(decided=-len(left), steps_planned=-sum(left))

    # -- entering --------------------------------------------------------------------------------------------------

    def _admit(self) -> bool:
        """Fill the free slots; with none filled, wait for faces. False once there is nothing left to do."""
        for running in [r for r in self._running if r.request.cancelled]:
            self._release(running)
        while self._free and (self._ready or self._estimate()):
            if self._ready:
                self._place()
        if self._running:
            return not self._scheduler.failed
        self.deliver(wait=True)
        return self._scheduler.wait(self)

    def _estimate(self) -> bool:
        """Estimate the next faces of the queue by one call. False when the queue was empty."""
        taken = self._scheduler.take(self, self._entry.batch)
        if self.entering:
            self._use_threads(self._entry.shapes.threads)
            for request, entered in isolate_failures(tuple(self.entering), self._entry):
                self.entering.pop(0)
                if isinstance(entered, Estimated):
                    self._ready.append(entered)
                    self._report(decided=1, steps_planned=entered.treatment.steps)
                else:
                    self._report(decided=1)
                    request.settle(entered)
        return taken

    def _place(self) -> None:
        """The next estimated face enters a slot."""
        face = self._ready[0]
        if face.request.cancelled:
            self._report(steps_planned=-face.treatment.steps)
        else:
            job, slot = face.request.job, self._free[-1]
            constraint = job.constraint or _hold(face)
            self._slots.place(slot, face.estimated, face.x_n, job.key, constraint)
            eta = job.eta if face.treatment.eta is None else face.treatment.eta
            rows, timesteps = (
                self._tables.rows(face.chain, eta, job.solver),
                self._tables.timesteps(face.chain),
            )
            self._running.append(
                _Running(face.request, face.treatment, face.chain, face.delta, slot, rows, timesteps)
            )
            self._free.pop()
        self._ready.popleft()

    # -- in the slots ----------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """One step for every face in a slot; those at the end of their chain leave."""
        running, batch = self._running, self._slots.batch
        if not running:
            return
        self._use_threads(self._slots.shapes.threads)
        share = self._slots.count / len(running)
        saturated = self._scheduler.has_waiting or bool(self._ready)
        for first in range(0, len(running), batch):
            for one, error in isolate_failures(running[first : first + batch], self._call):
                if error is not None:
                    one.request.settle(error)
                    self._release(one)
                else:
                    one.count_step(share, saturated)
        for one in [r for r in self._running if not r.steps_left]:
            self._leaving.append((one, self._slots.take(one.slot)))
            self._release(one)

    def _call(self, batch: Sequence[_Running]) -> list[None]:
        """One call of the prior, which moves these faces a step."""
        rows = np.stack([r.rows[r.steps] for r in batch])
        timesteps = np.array([r.timesteps[r.steps] for r in batch])
        self._slots.step([r.slot for r in batch], rows, timesteps)
        self._report(steps=len(batch))
        return [None] * len(batch)

    def _release(self, running: _Running) -> None:
        """Free the slot of a face that is finished, failed or cancelled."""
        self._running = [r for r in self._running if r is not running]
        self._free.append(running.slot)
        if running.steps_left:  # it failed, or its caller has given it up
            self._report(steps_planned=-running.steps_left)

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _outcome(self, running: _Running, readback: Readback) -> FaceResult | NonFiniteFace:
        """The result of a face that left its slot. Waits for its pictures."""
        pictures = readback.pictures()
        if pictures is None:
            return NonFiniteFace("the chain of this face left the finite numbers")
        return FaceResult(
            *pictures,
            running.treatment,
            running.delta,
            start_step=int(self._tables.schedule.t[running.chain.start]),
            steps=running.steps,
            capacity=running.capacity,
            steps_saturated=running.steps_saturated,
            capacity_saturated=running.capacity_saturated,
        )

    def _use_threads(self, most: int) -> None:
        """Run the next call in `most` threads where no other worker computes, else in one."""
        count = most if self._scheduler.is_only_busy(self) else 1
        if self._slots.device.type == "cpu" and torch.get_num_threads() != count:
            torch.set_num_threads(count)


def _hold(face: Estimated) -> Hold | None:
    """What holds the chain of a blind face to the low frequencies of its estimate."""
    sigma = face.treatment.hold
    return Hold.to(to_signed(face.estimated), sigma) if sigma else None
