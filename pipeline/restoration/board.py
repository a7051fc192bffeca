"""Work counts of the workers of a flow, for the driver's progress bar: a small actor on the driver's node.

Nothing waits for it and nothing depends on it: where it is slow or dead units are restored all the same, and the
driver shows the ledger's numbers alone.
"""

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.console.work_counts import WorkCounts

# A process sends its sums at most so often, in seconds.
SECONDS = 1.0
# Calls that one process may have under way; beyond that the board is too slow, and counts are dropped.
MOST_PENDING = 16
# A board that died is made again so often; every process then sends its sums again.
MOST_DEATHS = 3


class Sums:
    """The actor: the latest sums of each process."""

    def __init__(self) -> None:
        self._of: dict[str, WorkCounts] = {}

    def put(self, process: str, counts: WorkCounts) -> None:
        """Replace what the process sent before."""
        self._of[process] = counts

    def total(self) -> WorkCounts:
        """The sum over all processes, those that have ended too."""
        return sum(self._of.values(), WorkCounts())


class Board:
    """The driver's side. Needs a joined cluster; without an actor, which is said once, nothing is ever known."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._actor: Any = None
        self._asked: Any = None
        self._known: WorkCounts | None = None
        try:
            node = ray.get_runtime_context().get_node_id()
            self._actor = (
                ray.remote(Sums)
                .options(
                    num_cpus=0,
                    max_restarts=MOST_DEATHS,
                    max_pending_calls=MOST_PENDING,
                    # close to whoever asks, and on no machine that may be taken away
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
                )
                .remote()
            )
        except Exception as error:  # the flow is worth more than its bar
            said = str(error) or type(error).__name__
            say(f"warning: progress is shown by finished units only, no actor could be made: {said}")

    @property
    def report(self) -> "Reporter":
        """The stages' side."""
        return Reporter(self._actor)

    def poll(self) -> WorkCounts | None:
        """The newest sums that have come, at once. None while nothing has, and while the board does not answer."""
        if self._actor is None:
            return None
        try:
            if self._asked is not None:
                if not ray.wait([self._asked], timeout=0)[0]:
                    return self._known
                self._known = ray.get(self._asked)
            self._asked = self._actor.total.remote()
        except Exception:  # dead or cut off; the next poll asks again
            self._known = self._asked = None
        return self._known

    def close(self) -> None:
        """End the actor. Later reports are dropped."""
        actor, self._actor = self._actor, None
        if actor is not None:
            with suppress(Exception):  # it or the cluster may be gone already
                ray.kill(actor)


@dataclass(frozen=True)
class Reporter:
    """A `Report` that travels to the workers with their stage; each process sends its own sums."""

    # of Sums; None where there is no board
    actor: Any

    def __call__(self, counts: WorkCounts) -> None:
        if self.actor is not None:
            with suppress(Exception):  # the progress bar is worth no face
                _sender_to(self.actor).add(counts)


_LOCK = threading.Lock()
_senders: dict[Any, "_Sender"] = {}


def _sender_to(actor: Any) -> "_Sender":
    """The sender of this process to that board: every stage and thread of the process shares it."""
    key = actor._actor_id
    with _LOCK:
        if key not in _senders:
            _senders[key] = _Sender(actor)
        return _senders[key]


class _Sender:
    """Adds up what one process reports; a thread of its own sends the sums, so that no stage waits for Ray."""

    def __init__(self, actor: Any) -> None:
        self._actor, self._name = actor, uuid.uuid4().hex
        self._sums = WorkCounts()
        self._lock, self._changed = threading.Lock(), threading.Event()
        threading.Thread(target=self._send, name="work counts", daemon=True).start()

    def add(self, counts: WorkCounts) -> None:
        with self._lock:
            self._sums += counts
        self._changed.set()

    def _send(self) -> None:
        while self._changed.wait():
            self._changed.clear()
            # sums and no differences: a lost call costs nothing once the next one arrives
            with self._lock:
                sums = self._sums
            with suppress(Exception):  # the board is dead, or has too many calls under way
                self._actor.put.remote(self._name, sums)
            time.sleep(SECONDS)
