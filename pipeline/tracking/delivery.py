"""What was delivered of one job to its tracking server, kept in a small JSON file between the job's starts.

Knows no server: pipeline/tracking/sender.py sends.
"""

import json
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.io import store
from pipeline.io.errors import reason_of, redact

# Seconds between writes of the state file during one long delivery.
SAVE_EVERY = 10.0


class Point(NamedTuple):
    """Numbers of one step: step, time in milliseconds since 1970, value by metric name."""

    step: int
    timestamp_ms: int
    metrics: dict[str, float]


def make_point(step: int, timestamp_ms: int, metrics: Mapping[str, float]) -> Point:
    """A point of the finite metrics: a mean over nothing is left out, not drawn."""
    return Point(step, timestamp_ms, {k: float(v) for k, v in metrics.items() if math.isfinite(v)})


def grouped(points: Sequence[Point], metrics: int) -> Iterator[Sequence[Point]]:
    """The points in order, in groups of at most so many metrics; a larger point is a group by itself."""
    start, count = 0, 0
    for place, point in enumerate(points):
        if place > start and count + len(point.metrics) > metrics:
            yield points[start:place]
            start, count = place, 0
        count += len(point.metrics)
    if start < len(points):
        yield points[start:]


@dataclass
class Delivered:
    """What the server has of one job."""

    # marks the job's run on the server, so that a run is found again when the answer to its making was lost
    token: str = ""
    run_id: str | None = None
    # time of the newest delivered point of each shard, in milliseconds, by step
    shards: dict[int, int] = field(default_factory=dict)
    # last delivered step of each forward-going series
    series: dict[str, int] = field(default_factory=dict)
    # digest of each delivered artifact, image and input
    items: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: bytes) -> "Delivered":
        """Raises ValueError for anything that `to_json` did not write."""
        values = json.loads(data)
        if not isinstance(values, dict) or values.keys() != cls.__dataclass_fields__.keys():
            raise ValueError("it is not a tracking state of this version")
        shards = {int(step): ms for step, ms in values["shards"].items()}
        return cls(**values | {"shards": shards})

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()

    def has(self, point: Point) -> bool:
        """The shard of this step is there. One whose numbers are newer, because it was done again, is not."""
        return self.shards.get(point.step, -1) >= point.timestamp_ms

    def add(self, points: Iterable[Point]) -> None:
        """The shards of these steps are there now."""
        self.shards |= {point.step: point.timestamp_ms for point in points}

    def add_steps(self, points: Iterable[Point]) -> None:
        """The steps of these series are there now."""
        for point in points:
            self.series |= dict.fromkeys(point.metrics, point.step)


class StateFile:
    """Where what was delivered is kept; without a URI only while this process lives."""

    def __init__(self, uri: str | None, complain: Callable[[Exception], None]) -> None:
        """complain: is given the error of a write; the job goes on."""
        self._uri, self._complain = uri, complain
        self._saved, self._saved_at = b"", 0.0

    def load(self, run_id: str | None, warn: Callable[[str], None]) -> Delivered:
        """What an earlier start delivered, to the run of this id where one is given.

        A file that cannot be read counts as empty, with a warning: everything is sent again.
        """
        delivered = Delivered()
        try:
            if self._uri is not None and store.exists(self._uri):
                delivered = Delivered.from_json(store.read_bytes(self._uri))
        except (store.StoreError, OSError, ValueError) as error:
            warn(
                f"{redact(self._uri or '')}: wanted the tracking state of an earlier start, but "
                f"{reason_of(error)}; everything is sent to MLflow again"
            )
        delivered.token = delivered.token or uuid.uuid4().hex
        if run_id is not None and run_id != delivered.run_id:
            delivered = Delivered(delivered.token, run_id)
        return delivered

    def save(self, delivered: Delivered) -> None:
        """Write the file where something has changed."""
        body = delivered.to_json()
        if self._uri is None or body == self._saved:
            return
        try:
            store.write_bytes(self._uri, body)
            self._saved, self._saved_at = body, time.monotonic()
        except (store.StoreError, OSError) as error:
            self._complain(error)

    def save_at_times(self, delivered: Delivered) -> None:
        """As `save`, once every SAVE_EVERY seconds."""
        if time.monotonic() - self._saved_at > SAVE_EVERY:
            self.save(delivered)
