"""The estimator's picture as the restored face: no chain, no noise, one network call for many faces.

What a face is given is bit for bit what an `Engine` with the same estimator would diffuse.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion.engine import (
    FaceJob,
    FaceResult,
    NonFiniteFace,
    each_alone,
    end_of,
    estimate,
    out_of_memory,
    release_memory,
    settle,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Face:
    """A face that waits, and where its result is awaited."""

    job: FaceJob
    future: "Future[FaceResult]"


class DirectEngine:
    """Estimates faces that any thread submits; `workers` threads of its own call the network.

    estimator: [B, 3, S, S] in [0, 1] → the same. lanes: faces of one call. takes_mask: see `Engine`.
    """

    def __init__(
        self,
        estimator: Callable[[Tensor], Tensor],
        side: int,
        lanes: int,
        device: torch.device | str = "cpu",
        workers: int = 1,
        takes_mask: bool = False,
    ) -> None:
        self._estimator, self._side, self._lanes = estimator, side, lanes
        self._device = torch.device(device)
        self._channels = 4 if takes_mask else 3
        # guards the faces waiting, the width of a call, and the end
        self._change = threading.Condition()
        self._waiting: deque[_Face] = deque()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"direct-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later; its treatment has no chain. Its exception is NonFiniteFace, or the network's."""
        if job.crop.shape != (self._side, self._side, 3):
            raise ValueError(
                f"a {self._side}x{self._side} RGB face was wanted, got an array of {job.crop.shape}"
            )
        future: Future[FaceResult] = Future()
        with self._change:
            if self._closed:
                raise RuntimeError("this engine is closed and takes no more faces")
            self._waiting.append(_Face(job, future))
            self._change.notify()
        return future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while True:
                with self._change:
                    self._change.wait_for(lambda: self._waiting or self._closed)
                    lanes = self._lanes
                    group = [self._waiting.popleft() for _ in range(min(lanes, len(self._waiting)))]
                if not group:
                    return
                self._restore([face for face in group if not face.future.done()], lanes)

    def _restore(self, group: Sequence[_Face], lanes: int) -> None:
        """Settle each face of the group by one call, or where that fails by a call each."""
        try:
            for face, result in each_alone(group, lambda faces: self._call(faces, lanes)):
                if isinstance(result, Exception):
                    settle(face.future, error=result)
                else:
                    settle(face.future, result)
        except Exception as error:
            if not out_of_memory(error):
                raise
            self._make_room(group, lanes, error)

    def _call(self, faces: Sequence[_Face], lanes: int) -> list[FaceResult | NonFiniteFace]:
        if not faces:
            return []
        jobs = [face.job for face in faces]
        estimated = estimate(self._estimator, jobs, lanes, self._channels, self._side, self._device)
        return [end_of(job, picture) for job, picture in zip(jobs, estimated.cpu().numpy(), strict=True)]

    def _make_room(self, group: Sequence[_Face], lanes: int, error: Exception) -> None:
        """Halve the calls and put the group back; with calls of one face there is no room to make, and it fails."""
        release_memory(self._device)
        if lanes == 1:
            for face in group:
                settle(face.future, error=error)
            return
        with self._change:
            self._lanes = min(self._lanes, lanes // 2)
            self._waiting.extendleft(reversed(group))
            log.warning("out of memory: calls of %d faces, whose last bits may differ", self._lanes)
            self._change.notify_all()
