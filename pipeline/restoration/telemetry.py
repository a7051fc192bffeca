"""What a run does at this moment, as metrics on the cluster's Prometheus endpoint.

Ray puts `ray_` before each name, and `_total` after that of a counter. Workers report what units took, the driver
what is done: each unit once, whatever died on its way. All of it is read off the rows, so that no stage and no engine
knows of it. A process that dies takes its last seconds with it: exact numbers are in the ledger.
"""

import collections
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram, Metric

from pipeline.io import s3
from pipeline.records.marker import Marker
from pipeline.records.rows import Row

# Seconds of a unit in a stage: a GPU takes some, a laptop's core many minutes.
BUCKETS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]

# Name → kind, what it says, labels. The dashboard in cluster/grafana asks for these.
METRICS: Mapping[str, tuple[type[Metric], str, tuple[str, ...]]] = {
    # of the driver
    "difface_units_pending": (Gauge, "Units that this start has yet to do", ()),
    "difface_units": (Counter, "Units done", ()),
    "difface_images": (Counter, "Images done, by outcome", ("outcome",)),
    "difface_faces": (Counter, "Faces of the images done", ()),
    # of the workers
    "difface_stage_seconds": (Histogram, "Seconds a unit took in a stage", ("stage",)),
    "difface_engine_faces": (Counter, "Faces that left an engine", ()),
    "difface_engine_steps": (Counter, "Steps of faces: network calls times the faces in each", ()),
    "difface_engine_slots": (Counter, "Slots that were there for these steps, empty or not", ()),
    "difface_engine_steps_pressed": (Counter, "The steps taken while other faces waited", ()),
    "difface_engine_slots_pressed": (Counter, "Slots that were there for those steps", ()),
    "difface_storage_retries": (Counter, "Requests to S3 that were retried, by reason", ("reason",)),
}
# What a unit's row has of its engine's work, and the metric that it adds to.
ENGINE_SUMS = {
    "slot_steps": "difface_engine_steps",
    "slot_capacity": "difface_engine_slots",
    "slot_steps_pressed": "difface_engine_steps_pressed",
    "slot_capacity_pressed": "difface_engine_slots_pressed",
}

_LOCK = threading.Lock()
_reported: collections.Counter[str] = collections.Counter()


@cache
def metric(name: str) -> Any:
    """The metric of this process; what is reported before the process has joined Ray is lost."""
    kind, description, labels = METRICS[name]
    further = {"boundaries": BUCKETS} if kind is Histogram else {}
    return kind(name, description, tag_keys=labels, **further)


def count(name: str, number: float, **labels: str) -> None:
    """Add to a counter, which takes nothing but more."""
    if number > 0:
        metric(name).inc(number, tags=labels)


class Watched:
    """A stage that reports what its units took; rows go in and out as they are."""

    def __init__(self, stage: Callable[[Row], Row], name: str) -> None:
        self._stage, self._name = stage, name

    def __call__(self, row: Row) -> Row:
        return watch(self._stage, self._name, row)


def watched_actor(make: Callable[[Any], Callable[[Row], Row]], name: str, called: str) -> type:
    """The class of an actor whose stage is made by `make` and reports what units took of it.

    name: of the stage; called: by this name Ray's dashboard and process list show the actor.
    """

    class Actor:
        def __init__(self, settings: Any) -> None:
            self._stage = make(settings)

        def __call__(self, row: Row) -> Row:
            done = watch(self._stage, name, row)
            if name == "restore" and done.get("sums"):
                _count_steps(json.loads(done["sums"]), json.loads(done["faces"]))
            return done

    Actor.__name__ = Actor.__qualname__ = called
    return Actor


def watch(stage: Callable[[Row], Row], name: str, row: Row) -> Row:
    """The stage's row; its time and the storage's retries are reported."""
    began = time.monotonic()
    try:
        return stage(row)
    finally:
        metric("difface_stage_seconds").observe(time.monotonic() - began, tags={"stage": name})
        _count_retries()


def _count_retries() -> None:
    """Retries of this process since the last call, of all threads."""
    with _LOCK:
        for reason, times in dict(s3.retries).items():
            count("difface_storage_retries", times - _reported[reason], reason=reason)
            _reported[reason] = times


def _count_steps(sums: Mapping[str, float], faces: list[dict[str, Any]]) -> None:
    for name, counter in ENGINE_SUMS.items():
        count(counter, sums.get(name, 0.0))
    count("difface_engine_faces", len(faces))


def counted(rows: Iterator[Row], units: int) -> Iterator[Row]:
    """The rows of units as they come to the driver; those that are done are counted."""
    pending = units
    metric("difface_units_pending").set(pending)
    for row in rows:
        if row.get("marker") is not None:
            _count_marker(Marker.from_json(row["marker"]))
            pending -= 1
            metric("difface_units_pending").set(pending)
        yield row


def _count_marker(marker: Marker) -> None:
    count("difface_units", 1)
    count("difface_faces", marker.counts.faces)
    for outcome, images in marker.counts.outcomes.items():
        count("difface_images", images, outcome=outcome)
