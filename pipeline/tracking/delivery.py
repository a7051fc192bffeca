"""What a tracking server already has of one job, as a small JSON file, and what may be told to it.

Knows no server: pipeline/tracking/tracker.py sends, this file remembers.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


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
    start, held = 0, 0
    for place, point in enumerate(points):
        if place > start and held + len(point.metrics) > metrics:
            yield points[start:place]
            start, held = place, 0
        held += len(point.metrics)
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
