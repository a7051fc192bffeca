"""What a job logs to MLflow. Used by the driver only.

Tracking never stops a job: everything is handed to one background thread, a server that is away costs one
warning, and what was not delivered is kept. What was delivered is recorded in a small JSON file, so that
the next start of the same job can pass every shard again and only the missing ones are sent. A point sent
twice (same key, step, time and value) is one point to MLflow.
"""

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.io import store
from pipeline.io.errors import reason_of, redact
from pipeline.io.names import escape_surrogates
from pipeline.tracking import client
from pipeline.tracking.address import NO_TRACKING
from pipeline.tracking.client import PARAM_LENGTH, TAG_LENGTH, Client, Status, as_name, as_texts
from pipeline.tracking.delivery import StateFile, make_point
from pipeline.tracking.outbox import Item, Outbox
from pipeline.tracking.sender import Job, Sender

# Seconds until the next delivery to a server that is away, doubling from first to last, and until the one retry of a
# delivery that failed at once.
RETRY_FIRST, RETRY_LAST, RETRY_AT_ONCE = 5.0, 60.0, 0.5
_log = logging.getLogger(__name__)


class RunTracker:
    """One MLflow run of one job. Every method returns at once, and none raises for the server's sake.

    A `with` block of it that ends by an error closes the run as FAILED, or as KILLED where somebody stopped it.
    """

    def __init__(
        self,
        job: Job,
        run_id: str | None,
        state_uri: str | None,
        interval: float,
        warn: Callable[[str], None],
        owns: Callable[[], bool],
    ) -> None:
        """Arguments as of `open`, which starts the delivery."""
        self._uri, self._interval, self._warn = job.uri, interval, warn
        self._owns, self._lost = owns, False
        self._warned = False
        state = StateFile(state_uri, self._complain)
        self._outbox = Outbox(job.tags)
        self._sender = Sender(job, state.load(run_id, warn), state, self._outbox)
        self._closed = False
        self._status: Status | None = None
        # guards the counts of begun and ended deliveries
        self._changed = threading.Condition()
        self._begun = self._ended = 0
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    @classmethod
    def open(
        cls,
        uri: str,
        experiment: str,
        run_name: str,
        run_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        *,
        state_uri: str | None = None,
        interval: float = 2.0,
        warn: Callable[[str], None] = _log.warning,
        owns: Callable[[], bool] = lambda: True,
    ) -> "RunTracker":
        """A tracker for this job; the connection is made in the background.

        Goes on with `run_id`, else with the run that the state file names; where the server knows neither, a
        new run begins, and counts as empty. A parameter with another value than in the continued run becomes
        a tag `changed.NAME`, since MLflow's parameters cannot change.
        state_uri: JSON file, local or remote, that records what was delivered; None: only while this process
        lives. interval: seconds between deliveries. warn: is given one sentence, once, when something is not
        delivered. owns: whether the job still is this process's, by a fresh look; once it is not, the run is
        left to the process that has taken it over. uri: `none` gives a tracker that sends nothing.
        """
        if uri == NO_TRACKING:
            return Untracked()
        client.load()  # here, so that the thread does not import it while the caller imports something else
        job = Job(
            uri,
            escape_surrogates(experiment),
            escape_surrogates(run_name),
            as_texts(params or {}, PARAM_LENGTH),
            as_texts(tags or {}, TAG_LENGTH),
        )
        tracker = cls(job, run_id, state_uri, interval, warn, owns)
        tracker._thread.start()
        return tracker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._status is None:
            self.finish("KILLED" if issubclass(kind, (KeyboardInterrupt, SystemExit)) else "FAILED")

    @property
    def run_id(self) -> str | None:
        """The run's id, once the server has given one."""
        return self._sender.run_id

    def log_shard(self, step: int, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Numbers of one settled shard; not sent when the run has them.

        `step` is the shard's place in the plan and `timestamp_ms` the time at which it was finished, so that
        a later start of the job gives the same point. A newer time means that the shard was done again.
        """
        self._outbox.add_shard(make_point(step, timestamp_ms, _named(metrics)))

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Numbers of one step of series that only go forward, such as a training's.

        Not sent up to the last step that an earlier start of this job delivered, series by series.
        """
        now = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._outbox.add_step(make_point(step, now, _named(metrics)))

    def log_artifact(self, uri: str, name: str) -> None:
        """A local or remote file, read when it is delivered, as `name`, which may hold folders."""

        def digest() -> str:
            return hashlib.sha256(store.read_bytes(uri)).hexdigest()

        def send(client: Client, run_id: str) -> None:
            client.log_artifact(run_id, uri, name)

        self._put(Item(name, digest, send))

    def log_image(self, key: str, array: NDArray[np.uint8], step: int = 0) -> None:
        """A picture, [H, W, 3] uint8 RGB; the UI shows a key's pictures by step."""
        key, array = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", key), array.copy()
        digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()

        def send(client: Client, run_id: str) -> None:
            client.log_image(run_id, key, array, step)

        self._put(Item(f"image {key} {step}", lambda: digest, send))

    def log_input(self, uri: str, digest: str, context: str = "input") -> None:
        """Where the job's input lies, and its fingerprint."""
        uri = escape_surrogates(redact(uri))

        def send(client: Client, run_id: str) -> None:
            client.log_input(run_id, uri, digest, context)

        self._put(Item(f"{context} {uri}", lambda: digest, send))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """More tags, or new values of tags."""
        self._outbox.add_tags(as_texts(tags, TAG_LENGTH))

    def flush(self, timeout: float = 30.0) -> int:
        """Try to deliver now, for at most `timeout` seconds; how many things still wait."""
        with self._changed:
            # a delivery that is under way may have begun before the caller's last call
            wanted = self._begun + 1
            self._wake.set()
            self._changed.wait_for(lambda: self._ended >= wanted or not self._thread.is_alive(), timeout)
        return self.undelivered

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> int:
        """Deliver what waits and close the run, in at most `timeout` seconds; how many things were left."""
        self._status = status
        self._wake.set()
        self._thread.join(timeout)
        return self.undelivered

    @property
    def undelivered(self) -> int:
        """How many shards, steps, artifacts, images and inputs wait.

        A run that could not be made, or not be closed, counts as one more.
        """
        if self._lost:
            return 0
        return len(self._outbox) + (self.run_id is None or (self._status is not None and not self._closed))

    def _put(self, item: Item) -> None:
        self._outbox.add_item(item)

    def _complain(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"MLflow at {redact(self._uri)} did not take everything ({reason_of(error)}); "
                "the job goes on, and what was not delivered is kept and sent later"
            )

    def _work(self) -> None:
        """The background thread: a delivery every few seconds, less often while the server is away."""
        wait, failures = 0.0, 0
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            last = self._status is not None
            with self._changed:
                self._begun += 1
            began = time.monotonic()
            failure = self._deliver(last)
            # one call in many fails under load; a server that does not answer costs its time-out only once
            if failure is not None and not failures and time.monotonic() - began < RETRY_FIRST:
                time.sleep(RETRY_AT_ONCE)
                failure = self._deliver(last)
            if failure is not None:
                self._complain(failure)
            failures = 0 if failure is None else failures + 1
            with self._changed:
                self._ended = self._begun
                self._changed.notify_all()
            if last or self._lost:
                return
            wait = min(RETRY_FIRST * 2 ** (failures - 1), RETRY_LAST) if failures else self._interval

    def _deliver(self, last: bool) -> Exception | None:
        """Deliver everything that waits; what kept some of it from arriving, or None."""
        try:
            if self._is_lost():
                return None
            failure = self._sender.send()
            if last and not self._closed and not self._is_lost():
                assert self._status is not None
                self._sender.close(self._status)
                self._closed = True
        except Exception as error:  # whatever server, network or database do, the job goes on
            self._sender.disconnect()
            failure = error
        if not self._lost:
            self._sender.save()
        return failure

    def _is_lost(self) -> bool:
        """Whether another process has taken the job over: it has the run's state and delivers the rest."""
        self._lost = self._lost or not self._owns()
        return self._lost


class Untracked(RunTracker):
    """A run that is not tracked."""

    def __init__(self) -> None:
        """Connects to nothing."""

    _status = None
    run_id = None
    undelivered = 0

    def log_shard(self, step: int, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Nothing."""

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Nothing."""

    def flush(self, timeout: float = 30.0) -> int:
        """Nothing waits."""
        return 0

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> int:
        """Nothing is left."""
        return 0

    def _put(self, item: Item) -> None:
        pass


def _named(metrics: Mapping[str, float]) -> dict[str, float]:
    return {as_name(k): v for k, v in metrics.items()}
