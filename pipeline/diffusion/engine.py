"""Continuous batching of the reverse chain: faces enter, walk and leave a fixed number of slots one by one.

Every worker of the engine has some of the slots as lanes of its own (`lanes.py`) and moves the faces in them a step
at a time; whoever finishes leaves, and the next one enters before the next call. A face's bits depend on the face,
its settings and the device type alone; docs/engine.md says what makes it so, and what it costs.
"""

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.constraints import Constraint, Hold
from pipeline.diffusion.difface import NoisePredictor, to_signed
from pipeline.diffusion.noise import DRAW_X_N, NoiseKey, key_tensor, normal_noise
from pipeline.diffusion.sampler import Solver, diffuse, step_table
from pipeline.diffusion.schedule import Chain, Schedule
from pipeline.diffusion.slots import Forms, Lanes, Taken, find_forms, make_lanes, to_bytes, to_device
from pipeline.diffusion.treatment import Treatment, Treatments, estimated_change

log = logging.getLogger(__name__)

G = TypeVar("G")
T = TypeVar("T")

# Takes counts by name, which add: faces `decided`, `steps_planned` of their chains, and `steps` taken. It neither waits
# nor raises, and any thread calls it.
Report = Callable[..., None]


def ignore(**counts: int) -> None:
    """The report of an engine that nobody watches."""


class NonFiniteFace(ArithmeticError):
    """A face whose chain left the finite numbers; it fails alone."""


@dataclass(frozen=True)
class FaceJob:
    """One face to restore."""

    # [S, S, 3] uint8 RGB
    crop: NDArray[np.uint8]
    key: NoiseKey
    eta: float
    # or what chooses it by how far the estimator changes the face
    treatment: Treatment | Treatments
    solver: Solver = "ddim"
    # what is known of the clean face, and each step is held to
    constraint: Constraint | None = None
    # [S, S], True where the crop holds nothing: what an estimator that takes a mask is to fill
    hole: NDArray[np.bool_] | None = None
    # [S, S], True where the crop shows the picture; None: everywhere
    inside: NDArray[np.bool_] | None = None

    def treated(self, delta: float) -> Treatment:
        """What is done with the face, whose δ is this."""
        return self.treatment if isinstance(self.treatment, Treatment) else self.treatment(delta)


@dataclass(frozen=True)
class FaceResult:
    """What became of a face: two [S, S, 3] uint8 RGB images, how it was treated, and what the chain took.

    Summed over faces, a pair of `steps` and `room` tells how full the slots were: equal when every slot had a face.
    """

    estimated: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    treatment: Treatment
    # δ of treatment.py
    estimated_change: float
    # the original step number N at which its chain was entered; None without a chain
    start_step: int | None = None
    # network calls the face took part in
    steps: int = 0
    # its share of the slots in those calls
    room: float = 0.0
    # the same of the calls during which other faces were waiting
    steps_pressed: int = 0
    room_pressed: float = 0.0


@dataclass(frozen=True)
class _Face:
    """A face on its way through the engine, and where its result is awaited."""

    job: FaceJob
    future: "Future[FaceResult]"


@dataclass(frozen=True)
class _Estimate:
    """A face that may enter a lane."""

    face: _Face
    treatment: Treatment
    delta: float
    estimated: Tensor  # [3, S, S] in [0, 1]
    x: Tensor  # its x_N


@dataclass
class _Walk:
    """A face in a lane."""

    face: _Face
    treatment: Treatment
    delta: float
    lane: int
    rows: NDArray[np.float32]  # [K, 7] of its step table
    steps: NDArray[np.int64]  # [K] original step numbers
    taken: int = 0
    room: float = 0.0
    taken_pressed: int = 0
    room_pressed: float = 0.0


class _Worker:
    """One thread's lanes and the faces in and around them."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.free = list(range(lanes.count))
        self.entering: list[_Face] = []
        self.ready: deque[_Estimate] = deque()
        self.walks: list[_Walk] = []
        self.leaving: deque[tuple[_Walk, Taken]] = deque()

    @property
    def faces(self) -> list[_Face]:
        """All of them, longest here first."""
        left = [walk.face for walk, _ in self.leaving]
        return [*left, *(w.face for w in self.walks), *(e.face for e in self.ready), *self.entering]


class Engine:
    """Restores faces that any thread submits; threads of its own run the networks.

    estimator: [B, 3, S, S] in [0, 1] → the same. prior: see NoisePredictor. lanes: faces of one call of the prior.
    slots: faces in flight; 0 takes a full call of every worker. On a CPU there is a worker for each of `threads`
    cores, on a GPU one for every `lanes` slots. estimator_lanes: faces of one call of the estimator.
    takes_mask: the estimator is given 4 channels, the face with 0 in its hole and 1 where that is.
    report: is given what is decided of faces and the steps they take, from the engine's own threads.
    """

    def __init__(
        self,
        estimator: Callable[[Tensor], Tensor],
        prior: NoisePredictor,
        schedule: Schedule,
        side: int,
        lanes: int,
        slots: int = 0,
        device: torch.device | str = "cpu",
        threads: int = 1,
        estimator_lanes: int = 1,
        takes_mask: bool = False,
        report: Report = ignore,
    ) -> None:
        self._report = report
        self._channels = 4 if takes_mask else 3
        self._estimator, self._prior, self._schedule = estimator, prior, schedule
        self._side, self._width, self._estimator_lanes = side, lanes, estimator_lanes
        self._device = torch.device(device)
        on_cpu = self._device.type == "cpu"
        self._forms = self._estimator_forms = Forms()
        if on_cpu:
            self._find_forms(threads)
        slots = slots or lanes * (threads if on_cpu else 1)
        count = min(threads, slots) if on_cpu else -(-slots // lanes)
        self._tables: dict[tuple[Chain, float, Solver], NDArray[np.float32]] = {}
        # guards what the workers share: the faces waiting, the list of workers, and the two ends
        self._change = threading.Condition()
        self._waiting: deque[_Face] = deque()
        self._workers = self._hire(count, -(-slots // count) if on_cpu else lanes)
        # faces in flight at most; running out of memory makes it fewer
        self.slots = sum(w.lanes.count for w in self._workers)
        self._closed = False
        self._broken: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, args=(w,), name=f"engine-{i}", daemon=True)
            for i, w in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later. Its exception is NonFiniteFace, or what the networks raised.

        Cancelling the future takes the face out even on its way: its slot is free at the next step.
        """
        if job.crop.shape != (self._side, self._side, 3):
            raise ValueError(
                f"a {self._side}x{self._side} RGB face was wanted, got an array of {job.crop.shape}"
            )
        future: Future[FaceResult] = Future()
        with self._change:
            if self._closed or self._broken:
                raise RuntimeError("this engine is closed and takes no more faces") from self._broken
            self._waiting.append(_Face(job, future))
            self._change.notify_all()
        return future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _find_forms(self, threads: int) -> None:
        """Find out in which forms the two networks may be called."""
        most = max(self._width, self._estimator_lanes)
        x = torch.randn(most, 4, self._side, self._side, generator=torch.Generator().manual_seed(0))
        faces, given = x[:, :3].contiguous(), x[:, : self._channels].contiguous()
        t = torch.full((most,), int(self._schedule.t[0]))
        self._forms = find_forms(lambda n: self._prior(faces[:n], t[:n]), self._width, threads)
        self._estimator_forms = find_forms(
            lambda n: self._estimator(given[:n]), self._estimator_lanes, threads
        )

    # -- workers ---------------------------------------------------------------------------------------------------

    def _hire(self, count: int, each: int) -> list[_Worker]:
        """`count` workers of `each` lanes, or what memory carries of that; one lane at least."""
        workers: list[_Worker] = []
        while len(workers) < count:
            try:
                workers.append(self._worker(each))
            except Exception as error:
                if not out_of_memory(error) or (not workers and each == 1):
                    raise
                release_memory(self._device)
                if workers:
                    log.warning("out of memory: %d slots instead of %d", len(workers) * each, count * each)
                    break
                count, each = 1, each // 2
                log.warning("out of memory: trying %d slots", each)
        return workers

    def _worker(self, lanes: int) -> _Worker:
        return _Worker(make_lanes(self._prior, self._side, lanes, self._width, self._device, self._forms))

    def _work(self, worker: _Worker) -> None:
        """What a worker's thread does until the engine is closed, or memory has no room for the worker."""
        torch.set_num_threads(1)
        serving: _Worker | None = worker
        while serving is not None:
            try:
                self._serve(serving)
                return
            except Exception as error:
                try:
                    serving = self._make_room(serving, error)
                except Exception as fault:
                    self._collapse(fault)
                    return

    def _serve(self, worker: _Worker) -> None:
        with worker.lanes.in_use():
            while self._admit(worker):
                self._step(worker)
                self._deliver(worker)

    def _make_room(self, worker: _Worker, error: Exception) -> _Worker | None:
        """Give up a worker, or half the lanes of the last one; its faces begin again, and end the same.

        The last lane has nothing to give: its face fails, and the next is tried. Raises any other error.
        """
        if not out_of_memory(error):
            raise error
        self._deliver(worker, wait=True)
        lanes, faces = worker.lanes.count, worker.faces
        self._report(**undone(worker))
        with self._change:
            last = len(self._workers) == 1
            if last and lanes == 1:
                failed, faces = faces[:1], faces[1:]
                for face in failed:
                    settle(face.future, error=error)
            self._waiting.extendleft(reversed(faces))
            self._workers.remove(worker)
            self.slots -= lanes
            self._change.notify_all()
        del worker
        release_memory(self._device)
        smaller = None
        if last:
            lanes = max(lanes // 2, 1)
            if lanes < self._width and not self._forms.narrow:
                log.warning("out of memory: calls of %d faces, whose last bits may differ", lanes)
            self._width = min(self._width, lanes)
            smaller = self._worker(lanes)
            self._workers.append(smaller)
            self.slots = smaller.lanes.count
        log.warning("out of memory: going on with %d slots", self.slots)
        return smaller

    def _collapse(self, error: Exception) -> None:
        """A fault of the engine itself: whoever waits for a face is told, and nobody waits for ever."""
        log.error("the engine stops", exc_info=error)
        with self._change:
            self._broken = error
            faces = [*self._waiting, *(f for w in self._workers for f in w.faces)]
            self._waiting.clear()
            self._change.notify_all()
        for face in faces:
            settle(face.future, error=error)

    # -- the way of a face -----------------------------------------------------------------------------------------

    def _admit(self, worker: _Worker) -> bool:
        """Fill the free lanes; with none filled, wait for faces. False once there is nothing left to do."""
        self._drop_cancelled(worker)
        while worker.free and (worker.ready or self._estimate(worker)):
            if worker.ready:
                self._place(worker)
        if worker.walks:
            return not self._broken
        self._deliver(worker, wait=True)
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed or self._broken)
            if self._waiting and not self._broken:
                return True
            self._workers.remove(worker)
            return False

    def _drop_cancelled(self, worker: _Worker) -> None:
        for walk in [w for w in worker.walks if w.face.future.cancelled()]:
            self._free(worker, walk)

    def _estimate(self, worker: _Worker) -> bool:
        """Estimate and diffuse the next faces that wait: a full call ahead of need, or this worker's share of few."""
        with self._change:
            share = -(-len(self._waiting) // len(self._workers))
            group = [self._waiting.popleft() for _ in range(min(self._estimator_lanes, share))]
            # under the same lock: a face is always somewhere
            worker.entering = [face for face in group if not face.future.cancelled()]
        if worker.entering:
            self._use_threads(self._estimator_forms.team if self._alone(worker) else 1)
            for face, begun in each_alone(tuple(worker.entering), self._begin):
                worker.entering.pop(0)
                if isinstance(begun, _Estimate):
                    worker.ready.append(begun)
                    self._report(decided=1, steps_planned=begun.treatment.steps)
                    continue
                self._report(decided=1)
                if isinstance(begun, Exception):
                    settle(face.future, error=begun)
                else:
                    settle(face.future, begun)
        return bool(group)

    def _begin(self, faces: Sequence[_Face]) -> list[_Estimate | FaceResult | NonFiniteFace]:
        """What becomes of each face by one call of the estimator's own fixed shape: its x_N, or already its end."""
        jobs = [face.job for face in faces]
        estimated = estimate(
            self._estimator, jobs, self._estimator_lanes, self._channels, self._side, self._device
        )
        ends = [end_of(job, picture) for job, picture in zip(jobs, estimated.cpu().numpy(), strict=True)]
        begun: list[_Estimate | FaceResult | NonFiniteFace] = list(ends)
        entering = {
            i: end
            for i, end in enumerate(ends)
            if isinstance(end, FaceResult) and end.treatment.chain is not None
        }
        if entering:
            starts = [end.treatment.chain.start for end in entering.values() if end.treatment.chain]
            x = self._diffused([jobs[i] for i in entering], estimated[list(entering)], starts)
            for (i, end), x_n in zip(entering.items(), x, strict=True):
                begun[i] = _Estimate(faces[i], end.treatment, end.estimated_change, estimated[i], x_n)
        return begun

    def _diffused(self, jobs: Sequence[FaceJob], estimated: Tensor, starts: Sequence[int]) -> Tensor:
        """x_N of faces that enter the chain at these indices (Eq. 11)."""
        n = len(jobs)
        keys = to_device(key_tensor([j.key for j in jobs]), self._device)
        draw = torch.full((n,), DRAW_X_N, dtype=torch.int64, device=self._device)
        noise = normal_noise(keys, draw, (3, self._side, self._side))
        ab = torch.tensor([float(self._schedule.ab[start]) for start in starts], dtype=torch.float64)
        weights = torch.stack([ab.sqrt(), (1 - ab).sqrt()]).float().view(2, n, 1, 1, 1)
        signal, spread = to_device(weights, self._device)
        return diffuse(to_signed(estimated), noise, signal, spread)

    def _place(self, worker: _Worker) -> None:
        """The next estimated face enters a lane."""
        estimate = worker.ready[0]
        if not estimate.face.future.cancelled():
            job, treatment, lane = estimate.face.job, estimate.treatment, worker.free[-1]
            chain, constraint = treatment.chain, job.constraint or self._hold(estimate)
            assert chain is not None
            worker.lanes.place(lane, estimate.estimated, estimate.x, job.key, constraint)
            steps, rows = self._schedule.t[list(chain.walk)], self._rows(chain, job.eta, job.solver)
            worker.walks.append(_Walk(estimate.face, treatment, estimate.delta, lane, rows, steps))
            worker.free.pop()
        else:
            self._report(steps_planned=-estimate.treatment.steps)
        worker.ready.popleft()

    @staticmethod
    def _hold(estimate: _Estimate) -> Hold | None:
        sigma = estimate.treatment.hold
        return Hold.to(to_signed(estimate.estimated), sigma) if sigma else None

    def _rows(self, chain: Chain, eta: float, solver: Solver) -> NDArray[np.float32]:
        """The step table of a chain, made once."""
        key = (chain, eta, solver)
        if key not in self._tables:
            self._tables[key] = step_table(self._schedule, chain, eta, solver).numpy()
        return self._tables[key]

    def _step(self, worker: _Worker) -> None:
        """One step for every face in a lane; those at the end of their chain leave."""
        lanes, walks = worker.lanes, worker.walks
        if not walks:
            return
        self._use_threads(lanes.forms.team if self._alone(worker) else 1)
        share = lanes.count / len(walks)
        pressed = bool(self._waiting or worker.ready)
        for first in range(0, len(walks), lanes.width):
            for walk, error in each_alone(walks[first : first + lanes.width], lambda g: self._call(lanes, g)):
                if error is not None:
                    settle(walk.face.future, error=error)
                    self._free(worker, walk)
                    continue
                walk.taken += 1
                walk.room += share
                walk.taken_pressed += pressed
                walk.room_pressed += pressed * share
        for walk in [w for w in worker.walks if w.taken == len(w.steps)]:
            worker.leaving.append((walk, lanes.take(walk.lane)))
            self._free(worker, walk)

    def _call(self, lanes: Lanes, walks: Sequence[_Walk]) -> list[None]:
        rows = np.stack([w.rows[w.taken] for w in walks])
        lanes.step([w.lane for w in walks], rows, np.array([w.steps[w.taken] for w in walks]))
        self._report(steps=len(walks))
        return [None] * len(walks)

    def _free(self, worker: _Worker, walk: _Walk) -> None:
        worker.walks = [w for w in worker.walks if w is not walk]
        worker.free.append(walk.lane)
        if walk.taken < len(walk.steps):  # it failed, or nobody waits for it any more
            self._report(steps_planned=walk.taken - len(walk.steps))

    def _deliver(self, worker: _Worker, wait: bool = False) -> None:
        """Hand over the faces that have come to the host."""
        while worker.leaving and (wait or worker.leaving[0][1].arrived()):
            walk, taken = worker.leaving.popleft()
            pictures = taken.pictures()
            if pictures is None:
                settle(
                    walk.face.future, error=NonFiniteFace("the chain of this face left the finite numbers")
                )
                continue
            estimated, restored = pictures
            assert walk.treatment.chain is not None
            result = FaceResult(
                estimated,
                restored,
                walk.treatment,
                walk.delta,
                start_step=int(self._schedule.t[walk.treatment.chain.start]),
                steps=walk.taken,
                room=walk.room,
                steps_pressed=walk.taken_pressed,
                room_pressed=walk.room_pressed,
            )
            settle(walk.face.future, result)

    def _alone(self, worker: _Worker) -> bool:
        """Whether no other worker has a face: then this one may use all cores."""
        return not any(other.walks or other.entering for other in self._workers if other is not worker)

    def _use_threads(self, count: int) -> None:
        """Let this worker's next call run in so many threads."""
        if self._device.type == "cpu" and torch.get_num_threads() != count:
            torch.set_num_threads(count)


def undone(worker: _Worker) -> dict[str, int]:
    """What is taken back of the counts when a worker's faces begin again."""
    left = [len(w.steps) - w.taken for w in worker.walks] + [e.treatment.steps for e in worker.ready]
    return {"decided": -len(left), "steps_planned": -sum(left)}


def estimate(
    estimator: Callable[[Tensor], Tensor],
    jobs: Sequence[FaceJob],
    lanes: int,
    channels: int,
    side: int,
    device: torch.device,
) -> Tensor:
    """f(y_0) of the faces, [n, 3, S, S] float32 in [0, 1] on the device, by one call of `lanes` faces.

    channels: 4 for an estimator that is given the face with 0 in its hole, and 1 where that is.
    """
    n = len(jobs)
    crops = np.zeros((lanes, channels, side, side), np.uint8)
    crops[:n, :3] = np.stack([j.crop for j in jobs]).transpose(0, 3, 1, 2)
    if channels == 4:
        for crop, job in zip(crops, jobs, strict=False):
            if job.hole is not None:
                crop[:3, job.hole], crop[3, job.hole] = 0, 255
    pixels = to_device(torch.from_numpy(crops), device)
    return estimator(pixels.float() / 255)[:n].float().clamp(0, 1).contiguous()


def end_of(job: FaceJob, estimated: NDArray[np.float32]) -> FaceResult | NonFiniteFace:
    """How a face is treated, with the result of one that enters no chain. estimated: [3, S, S] in [0, 1]."""
    if not np.isfinite(estimated).all():
        return NonFiniteFace("the estimate of this face left the finite numbers")
    picture = to_bytes(torch.from_numpy(estimated)).numpy()
    delta = estimated_change(job.crop, estimated, job.inside)
    treatment = job.treated(delta)
    restored = job.crop.copy() if treatment.way == "left" else picture
    return FaceResult(picture, restored, treatment, delta)


def each_alone(
    group: Sequence[G], work: Callable[[Sequence[G]], Sequence[T]]
) -> Iterator[tuple[G, T | Exception]]:
    """What `work` gives for each of the group; where it raises, each is tried alone, so that the culprit fails alone.

    Out of memory is nobody's fault and is raised.
    """
    try:
        yield from zip(group, work(group), strict=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        if len(group) == 1:
            yield group[0], error
            return
        for one in group:
            yield from each_alone([one], work)


def settle(
    future: "Future[FaceResult]", result: FaceResult | None = None, error: Exception | None = None
) -> None:
    """Give a future its end, unless it was cancelled or has one."""
    if future.done() or not future.set_running_or_notify_cancel():
        return
    if result is not None:
        future.set_result(result)
    else:
        future.set_exception(error)


def out_of_memory(error: Exception) -> bool:
    """Whether the device or the host had no memory left for a call."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def release_memory(device: torch.device) -> None:
    """Give cached blocks back, so that a smaller attempt finds them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
