"""The estimator's picture as the restored face: no chain, no noise, one network call for many faces.

What a face is given is bit for bit what an `Engine` with the same estimator would diffuse.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from pipeline.diffusion.estimation import BatchEstimator, treat
from pipeline.diffusion.recovery import isolate_failures, out_of_memory, release_memory
from pipeline.diffusion.request import EngineFailure, FaceJob, FaceResult, NonFiniteFace, Request

log = logging.getLogger(__name__)


class EstimatorEngine:
    """Estimates faces that any thread submits; `workers` threads of its own call the network.

    estimator: [B, 3, S, S] float32 in [0, 1] → the same. batch: faces of one call. unknown: see `Engine`.
    """

    def __init__(
        self,
        estimator: Callable[[Tensor], Tensor],
        side: int,
        batch: int,
        device: torch.device | str = "cpu",
        workers: int = 1,
        unknown: int = 0,
    ) -> None:
        self._side, self._device = side, torch.device(device)
        self._estimate = BatchEstimator(estimator, side, self._device, unknown)
        # guards the requests waiting, the faces of a call, and the end
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        # faces of one call; running out of memory makes it fewer
        self.batch = batch
        self._closed = False
        self._failure: EngineFailure | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"estimator-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later; its treatment has no chain. Its exception is NonFiniteFace, or the network's.

        Raises ValueError when the crop has another side, RuntimeError when the engine is closed, EngineFailure when it
        has failed.
        """
        request = Request.of(job, self._side)
        with self._changed:
            if self._failure:
                raise self._failure
            if self._closed:
                raise RuntimeError("this engine is closed and takes no more faces")
            self._waiting.append(request)
            self._changed.notify()
        return request.future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                    batch = self.batch
                    group = [self._waiting.popleft() for _ in range(min(batch, len(self._waiting)))]
                if not group:
                    return
                self._restore([request for request in group if not request.future.done()], batch)

    def _restore(self, group: Sequence[Request], batch: int) -> None:
        """Settle each face of the group by one call, or where that fails by a call each."""
        try:
            for request, outcome in isolate_failures(group, lambda requests: self._call(requests, batch)):
                request.settle(outcome)
        except Exception as error:
            if out_of_memory(error):
                self._shrink(group, batch, error)
            else:
                self._fail(group, error)

    def _fail(self, group: Sequence[Request], error: Exception) -> None:
        """End the engine by a fault of its own: every request gets an EngineFailure, so that no caller waits."""
        log.error("the engine stops", exc_info=error)
        failure = EngineFailure(f"the engine has stopped: {type(error).__name__}: {error}")
        failure.__cause__ = error
        with self._changed:
            self._failure, self._closed = failure, True
            requests = [*group, *self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        for request in requests:
            request.settle(failure)

    def _call(self, requests: Sequence[Request], batch: int) -> list[FaceResult | NonFiniteFace]:
        if not requests:
            return []
        jobs = [request.job for request in requests]
        estimated = self._estimate(jobs, batch)
        return [treat(job, picture) for job, picture in zip(jobs, estimated.cpu().numpy(), strict=True)]

    def _shrink(self, group: Sequence[Request], batch: int, error: Exception) -> None:
        """Halve the calls and put the group back; where a call of one face does not fit, its face fails."""
        release_memory(self._device)
        if batch == 1:
            for request in group:
                request.settle(error)
            return
        with self._changed:
            self.batch = min(self.batch, batch // 2)
            self._waiting.extendleft(reversed(group))
            log.warning("out of memory: calls of %d faces, whose last bits may differ", self.batch)
            self._changed.notify_all()
