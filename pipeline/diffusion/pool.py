"""The engine's workers and their threads, as many as memory carries."""

import logging
import threading
import traceback
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
        self._make_worker, self._partial = make_worker, partial
        # faces of one call; running out of memory makes it fewer
        self.batch = batch
        self._device, self._scheduler = device, scheduler
        self._threads: list[threading.Thread] = []

    def start(self, count: int, slots: int) -> None:
        """Start `count` workers of `slots` slots each, or what memory carries of that; one slot at least."""
        workers = self._fitting(count, slots)
        for worker in workers:
            self._scheduler.join(worker)
        self._threads = [
            threading.Thread(target=self._run, args=([worker],), name=f"engine-{i}", daemon=True)
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
        if self._device.type != "cpu":  # there every call has all the slots of its worker
            self._narrow(slots)
        while len(workers) < count:
            try:
                workers.append(self._make_worker(slots, self.batch))
            except Exception as error:
                if not out_of_memory(error) or (not workers and slots == 1):
                    raise
                release_memory(self._device)
                if workers:
                    log.warning("out of memory: %d slots instead of %d", len(workers) * slots, count * slots)
                    break
                count, slots = 1, slots // 2
                log.warning("out of memory: trying %d slots", slots)
                self._narrow(slots)
        return workers

    def _run(self, handed: list[Worker]) -> None:
        """A thread: serve until the engine is closed, or memory does not carry the worker.

        handed: the worker, which is taken out: a thread keeps its arguments, and so would keep the worker's memory.
        """
        torch.set_num_threads(1)
        slots = self._serve(handed.pop())
        while slots:
            # nothing refers to the former worker any more: its memory is free for a smaller one
            release_memory(self._device)
            try:
                successor = self._smaller(slots)
            except Exception as fault:
                self._fail(fault)
                return
            slots = self._serve(successor)
            del successor

    def _serve(self, worker: Worker) -> int:
        """Let the worker restore faces to the end; the slots of its successor where memory did not carry it, else 0."""
        try:
            worker.serve()
            return 0
        except Exception as error:
            if not out_of_memory(error):
                self._fail(error)
                return 0
            try:
                return self._give_up(worker, error)
            except Exception as fault:
                self._fail(fault)
                return 0
            finally:
                # the frames that the error came through hold the worker, and the tensors of the call
                traceback.clear_frames(error.__traceback__)
                error.__traceback__ = None

    def _give_up(self, worker: Worker, error: Exception) -> int:
        """Withdraw a worker that ran out of memory; the slots of its successor, 0 where others go on.

        Its faces begin again, and end the same.
        """
        worker.deliver(wait=True)
        worker.report_restart()
        slots = max(worker.slot_count // 2, 1)
        if self._scheduler.withdraw(worker, error):
            return slots
        log.warning("out of memory: going on with %d slots", self._scheduler.slot_count)
        return 0

    def _fail(self, fault: Exception) -> None:
        """End the engine: whoever waits for a face learns why."""
        log.error("the engine stops", exc_info=fault)
        self._scheduler.fail(fault)

    def _smaller(self, slots: int) -> Worker:
        """The only worker from here on, with so many slots."""
        self._narrow(slots)
        worker = self._make_worker(slots, self.batch)
        self._scheduler.join(worker)
        log.warning("out of memory: going on with %d slots", self._scheduler.slot_count)
        return worker

    def _narrow(self, slots: int) -> None:
        """Let calls have no more faces than a worker has slots; said where that may change bits."""
        if slots < self.batch and not self._partial:
            log.warning("calls of %d faces instead of %d, whose last bits may differ", slots, self.batch)
        self.batch = min(self.batch, slots)
