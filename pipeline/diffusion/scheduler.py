"""Which waiting face goes to which worker. One lock guards what workers and submitters share."""

import threading
from collections import deque
from typing import Protocol

from pipeline.diffusion.request import EngineFailure, Request


class Member(Protocol):
    """What the scheduler sees of a worker. Only the worker's own thread changes it, but for what `take` adds."""

    # requests whose estimate is not there yet
    entering: list[Request]

    @property
    def slot_count(self) -> int:
        """Faces it can have in chains at once."""
        ...

    @property
    def busy(self) -> bool:
        """Whether it has a face to compute."""
        ...

    @property
    def requests(self) -> list[Request]:
        """All that it has taken and not settled, longest taken first."""
        ...


class Scheduler:
    """First come, first served; of a short queue every worker gets its share.

    A request is always somewhere: in the queue, at a worker, or settled.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._workers: list[Member] = []
        self._closed = False
        self._failure: Exception | None = None
        # faces in chains at most; running out of memory makes it fewer
        self.slot_count = 0

    # -- for who submits -------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Put a request at the end of the queue. Raises RuntimeError when closed, EngineFailure when it has failed."""
        with self._changed:
            if self._failure:
                raise self._failure
            if self._closed:
                raise RuntimeError("this engine is closed and takes no more faces")
            self._waiting.append(request)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the workers leave once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # -- for workers, each in its own thread -----------------------------------------------------------------------

    def take(self, worker: Member, most: int) -> bool:
        """Move the next requests, at most `most` and the worker's share of the queue, to `worker.entering`.

        Cancelled ones are dropped. False when the queue was empty.
        """
        with self._changed:
            share = -(-len(self._waiting) // len(self._workers))
            group = [self._waiting.popleft() for _ in range(min(most, share))]
            worker.entering = [request for request in group if not request.cancelled]
        return bool(group)

    def wait(self, worker: Member) -> bool:
        """Wait for requests. False, and the worker has left, when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed or self._failure)
            if self._waiting and not self._failure:
                return True
            self._workers.remove(worker)
            return False

    def is_only_busy(self, worker: Member) -> bool:
        """Whether no other worker has a face: then this one may use all cores. A hint, read without the lock."""
        return not any(other.busy for other in self._workers if other is not worker)

    @property
    def has_waiting(self) -> bool:
        """Whether requests are in the queue. A hint, read without the lock."""
        return bool(self._waiting)

    @property
    def failed(self) -> bool:
        """Whether the engine has failed and its workers are to leave."""
        return self._failure is not None

    # -- for the pool of workers -----------------------------------------------------------------------------------

    def join(self, worker: Member) -> None:
        """Add a worker and its slots."""
        with self._changed:
            self._workers.append(worker)
            self.slot_count += worker.slot_count

    def withdraw(self, worker: Member, error: Exception) -> bool:
        """Remove a worker that failed with `error`; its requests return to the head of the queue in their order.

        The last worker with a single slot can not be made smaller: its first request is settled with the error.
        Returns whether it was the last worker.
        """
        with self._changed:
            requests = worker.requests
            last = len(self._workers) == 1
            if last and worker.slot_count == 1:
                for given_up in requests[:1]:
                    given_up.settle(error)
                del requests[:1]
            self._waiting.extendleft(reversed(requests))
            self._workers.remove(worker)
            self.slot_count = 0 if last else self.slot_count - worker.slot_count
            self._changed.notify_all()
        return last

    def fail(self, error: Exception) -> None:
        """End the engine by a fault of its own: every request gets an EngineFailure, so that no caller waits."""
        failure = EngineFailure(f"the engine has stopped: {type(error).__name__}: {error}")
        failure.__cause__ = error
        with self._changed:
            self._failure = failure
            requests = [*self._waiting, *(r for worker in self._workers for r in worker.requests)]
            self._waiting.clear()
            self._changed.notify_all()
        for request in requests:
            request.settle(failure)
