"""Continuous batching of the reverse chain: faces enter, walk and leave a fixed set of slots one by one.

Every network call has the same shape, `lanes` faces, padded where fewer are waiting. A face's result therefore
depends on the face, its settings and the device type alone: not on its neighbours, the number of slots, the order
of arrival, or the size of the last batch. On a CPU this holds when torch computes each call in one thread
(`torch.set_num_threads(1)`), because its kernels round by how they share their work out; then several calls at
once use the machine's cores.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.difface import NoisePredictor, from_signed, to_signed
from pipeline.diffusion.noise import DRAW_X_N, NoiseKey, key_tensor, normal_noise
from pipeline.diffusion.sampler import coefficients, ddim_step, diffuse, predict_x0, step_table
from pipeline.diffusion.schedule import Chain, Schedule

G = TypeVar("G")
T = TypeVar("T")


class NonFiniteFace(ArithmeticError):
    """A face whose chain left the finite numbers; it fails alone."""


@dataclass(frozen=True)
class FaceJob:
    """One face to restore."""

    # [S, S, 3] uint8 RGB
    crop: NDArray[np.uint8]
    key: NoiseKey
    eta: float
    chain: Chain


@dataclass(frozen=True)
class FaceResult:
    """What became of a face: two [S, S, 3] uint8 RGB images, and what the chain took."""

    estimated: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    # network calls the face took part in
    steps: int = 0
    # its share of the room in those calls: equal to `steps` when every call was full
    room: float = 0.0


class _Walk:
    """A face in a slot: its state x, and how far along the chain it is."""

    def __init__(self, job: FaceJob, future: "Future[FaceResult]", estimated: Tensor, x: Tensor) -> None:
        self.job = job
        self.future = future
        self.estimated = estimated  # [3, S, S] float32 in [0, 1]
        self.x = x  # [3, S, S] float32
        self.taken = 0
        self.room = 0.0

    @property
    def index(self) -> int:
        return self.job.chain.walk[self.taken]


class Engine:
    """Restores faces that any thread submits; threads of its own run the networks.

    estimator: [B, 3, S, S] in [0, 1] → the same. prior: see NoisePredictor. slots: faces in flight, rounded up to
    whole calls of `lanes`; 0: as many as keep every thread busy. threads: network calls made at once.
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
    ) -> None:
        self._estimator = estimator
        self._prior = prior
        self._schedule = schedule
        self._side = side
        self._lanes = lanes
        self.slots = -(-(slots or lanes * threads) // lanes) * lanes
        self._device = torch.device(device)
        self._tables: dict[float, Tensor] = {}
        self._waiting: queue.SimpleQueue[tuple[FaceJob, Future[FaceResult]] | None] = queue.SimpleQueue()
        self._walks: list[_Walk] = []
        self._callers = ThreadPoolExecutor(threads, "engine-call") if threads > 1 else None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later. Its exception is NonFiniteFace, or what the networks raised."""
        if job.crop.shape != (self._side, self._side, 3):
            raise ValueError(
                f"a {self._side}x{self._side} RGB face was wanted, got an array of {job.crop.shape}"
            )
        future: Future[FaceResult] = Future()
        self._waiting.put((job, future))
        return future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._waiting.put(None)
        self._thread.join()
        if self._callers is not None:
            self._callers.shutdown()

    @torch.inference_mode()
    def _run(self) -> None:
        open_ = True
        while open_ or self._walks:
            open_ = self._admit() and open_
            if self._walks:
                self._step()

    def _admit(self) -> bool:
        """Fill free slots with waiting faces; wait for one when there is nothing to do. False once closed."""
        jobs: list[tuple[FaceJob, Future[FaceResult]]] = []
        while len(self._walks) + len(jobs) < self.slots:
            try:
                item = self._waiting.get(block=not self._walks and not jobs)
            except queue.Empty:
                break
            if item is None:
                self._enter(jobs)
                return False
            if item[1].set_running_or_notify_cancel():
                jobs.append(item)
        self._enter(jobs)
        return True

    def _enter(self, jobs: "list[tuple[FaceJob, Future[FaceResult]]]") -> None:
        """Estimate and diffuse newcomers, `lanes` at a time."""
        groups = self._calls(jobs)
        for group, begun in zip(groups, self._each(self._begin, groups), strict=True):
            if isinstance(begun, Exception):
                for _, future in group:
                    future.set_exception(begun)
                continue
            for (job, future), estimated, x in zip(group, *begun, strict=False):
                self._walks.append(_Walk(job, future, estimated, x))

    def _calls(self, faces: Sequence[G]) -> list[Sequence[G]]:
        """The faces of each network call."""
        return [faces[i : i + self._lanes] for i in range(0, len(faces), self._lanes)]

    def _each(self, work: Callable[[Sequence[G]], T], groups: list[Sequence[G]]) -> list[T | Exception]:
        """What `work` gives for every group, several at once; its exception where it raised one."""

        @torch.inference_mode()
        def attempt(group: Sequence[G]) -> T | Exception:
            try:
                return work(group)
            except Exception as error:
                return error

        return list(self._callers.map(attempt, groups) if self._callers else map(attempt, groups))

    def _begin(self, group: "Sequence[tuple[FaceJob, Future[FaceResult]]]") -> tuple[Tensor, Tensor]:
        """Estimates in [0, 1] and x_N, [lanes, 3, S, S] each; rows past the jobs are padding."""
        jobs = [job for job, _ in group]
        pixels = np.stack([j.crop for j in jobs]).transpose(0, 3, 1, 2)
        faces = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device).float() / 255
        # one memory layout for every call: a network's bits depend on it
        estimated = self._estimator(self._padded(faces)).float().clamp(0, 1).contiguous()
        keys = key_tensor([j.key for j in jobs], self._device)
        steps = torch.full((len(jobs),), DRAW_X_N, dtype=torch.int64, device=self._device)
        noise = self._padded(normal_noise(keys, steps, (3, self._side, self._side)))
        ab = torch.tensor([float(self._schedule.ab[j.chain.start]) for j in jobs], dtype=torch.float64)
        signal, spread = (self._padded(v.float().to(self._device)) for v in (ab.sqrt(), (1 - ab).sqrt()))
        shape = (-1, 1, 1, 1)
        return estimated, diffuse(to_signed(estimated), noise, signal.view(shape), spread.view(shape))

    def _padded(self, values: Tensor) -> Tensor:
        """`values` with zeros up to `lanes` rows."""
        missing = self._lanes - len(values)
        return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing else values

    def _step(self) -> None:
        """One step for every face in a slot, `lanes` at a time; those at the end of their chain leave."""
        staying: list[_Walk] = []
        groups = self._calls(self._walks)
        for group, error in zip(groups, self._each(self._advance, groups), strict=True):
            for walk in group:
                if error is not None:
                    walk.future.set_exception(error)
                    continue
                walk.taken += 1
                if walk.taken == len(walk.job.chain.walk):
                    self._leave(walk)
                else:
                    staying.append(walk)
        self._walks = staying

    def _advance(self, group: Sequence[_Walk]) -> None:
        """x ← one DDIM step, each face at its own index and η."""
        rows = torch.stack([self._table(w.job.eta)[w.index] for w in group])
        steps = torch.tensor([int(self._schedule.t[w.index]) for w in group], device=self._device)
        x = self._padded(torch.stack([w.x for w in group]))
        eps = self._prior(x, self._padded(steps))[:, :3].float()
        z = normal_noise(
            key_tensor([w.job.key for w in group], self._device), steps, (3, self._side, self._side)
        )
        n = len(group)
        c = coefficients(rows)
        moved = ddim_step(predict_x0(x[:n], eps[:n], c), eps[:n], z, c)
        for walk, x_next in zip(group, moved, strict=True):
            walk.x = x_next
            walk.room += self._lanes / n

    def _table(self, eta: float) -> Tensor:
        if eta not in self._tables:
            self._tables[eta] = step_table(self._schedule, eta).to(self._device)
        return self._tables[eta]

    def _leave(self, walk: _Walk) -> None:
        if not bool(torch.isfinite(walk.x).all()):
            walk.future.set_exception(NonFiniteFace("the chain of this face left the finite numbers"))
            return
        restored = to_bytes(from_signed(walk.x))
        walk.future.set_result(FaceResult(to_bytes(walk.estimated), restored, walk.taken, walk.room))


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """[3, S, S] in [0, 1] → [S, S, 3] uint8, rounded."""
    array: NDArray[np.uint8] = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return array
