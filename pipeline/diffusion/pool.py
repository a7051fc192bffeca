"""The engine's workers and their threads, as many as memory carries."""

import logging
import threading
from collections.abc import Callable

import torch

from pipeline.diffusion.recovery import out_of_memory, release_memory
from pipeline.diffusion.scheduler import Scheduler
from pipeline.diffusion.worker import Worker

log = logging.getLogger(__name__)


class WorkerPool:
    """Starts workers, and makes their slots fewer when a call runs out of memory.

    make_worker: (slots, faces of one call of the prior) → a worker; may raise out of memory. batch: faces of one call.
    partial: whether calls of fewer faces change no bit.
    """

    def __init__(
        self,
        make_worker: Callable[[int, int], Worker],
        batch: int,
        partial: bool,
        device: torch.device,
        scheduler: Scheduler,
    ) -> None:
        self._make_worker, self._batch, self._partial = make_worker, batch, partial
        self._device, self._scheduler = device, scheduler
        self._threads: list[threading.Thread] = []

    def start(self, count: int, slots: int) -> None:
        """Start `count` workers of `slots` slots each, or what memory carries of that; one slot at least."""
        workers = self._fitting(count, slots)
        for worker in workers:
            self._scheduler.join(worker)
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"engine-{i}", daemon=True)
            for i, worker in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all workers have left."""
        for thread in self._threads:
            thread.join()

    def _fitting(self, count: int, slots: int) -> list[Worker]:
        workers: list[Worker] = []
        while len(workers) < count:
            try:
                workers.append(self._make_worker(slots, self._batch))
            except Exception as error:
                if not out_of_memory(error) or (not workers and slots == 1):
                    raise
                release_memory(self._device)
                if workers:
                    log.warning("out of memory: %d slots instead of %d", len(workers) * slots, count * slots)
                    break
                count, slots = 1, slots // 2
                log.warning("out of memory: trying %d slots", slots)
        return workers

    def _run(self, worker: Worker) -> None:
        """A thread: serve until the engine is closed, or memory does not carry the worker."""
        torch.set_num_threads(1)
        serving: Worker | None = worker
        while serving is not None:
            try:
                serving.serve()
                return
            except Exception as error:
                try:
                    serving = self._recover(serving, error)
                except Exception as fault:
                    log.error("the engine stops", exc_info=fault)
                    self._scheduler.fail(fault)
                    return

    def _recover(self, worker: Worker, error: Exception) -> Worker | None:
        """Give up a worker that ran out of memory, or half the slots of the last one, and return its successor.

        Its faces begin again, and end the same. Raises any other error.
        """
        if not out_of_memory(error):
            raise error
        worker.deliver(wait=True)
        worker.report_restart()
        slots = worker.slot_count
        last = self._scheduler.withdraw(worker, error)
        del worker
        release_memory(self._device)
        successor = self._smaller(max(slots // 2, 1)) if last else None
        log.warning("out of memory: going on with %d slots", self._scheduler.slot_count)
        return successor

    def _smaller(self, slots: int) -> Worker:
        """The only worker from here on, with so many slots."""
        if slots < self._batch and not self._partial:
            log.warning("out of memory: calls of %d faces, whose last bits may differ", slots)
        self._batch = min(self._batch, slots)
        worker = self._make_worker(slots, self._batch)
        self._scheduler.join(worker)
        return worker
