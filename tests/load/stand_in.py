"""Stand-ins of fixed cost for the stages that need networks, so that a test sees the pipeline and not the method.

Everything around them is the product's own: plan, flow, ledger, markers, records, samples, tracking, report.
"""

import hashlib
import json
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ray

from pipeline.io.units import Unit
from pipeline.records.rows import FaceRecord, ImageRecord, Row, dump_records
from pipeline.stages.publish import Output, Pasted, Publish


@dataclass(frozen=True)
class StandInRead:
    """Row with `work` → row with a face of the given side in every so many images; nothing is read."""

    side: int
    every: int = 1
    # as of the product's, which looks more closely at units that killed workers
    careful: bool = False

    def __call__(self, row: Row) -> Row:
        unit = Unit.from_json(row["work"])
        digests = [hashlib.sha256(f"{unit.name}/{a.member}".encode()).hexdigest() for a in unit.images]
        records = [ImageRecord(a.member, d, 640, 480) for a, d in zip(unit.images, digests, strict=True)]
        faces = [
            FaceRecord(
                i, 0, [8.0, 8.0, 72.0, 72.0], [24.0] * 10, [1.0, 0.0, 0.0] * 2, 0.9, 1.0, treatment="chain"
            )
            for i in range(0, len(records), self.every)
        ]
        return row | {
            "images": dump_records(records),
            "faces": dump_records(faces),
            "crops": bytes(len(faces) * self.side * self.side * 3),
            "sums": json.dumps({"seconds_read": 0.001}),
        }


@dataclass(frozen=True)
class EngineCost:
    """What a unit costs an engine, in seconds. log: folder to which each engine writes a line a unit, if any."""

    seconds: float = 0.0
    log: str = ""
    # units that cost otherwise, and a file for which some units wait
    slow: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


class StandInEngine:
    """Row with `crops` → row with `estimated`, `restored`, both the crops, after a wait.

    One unit after the other, as in a full engine; those that are slow or wait hold up none but themselves.
    """

    def __init__(self, cost: EngineCost) -> None:
        self._cost = cost
        self._turn = threading.Lock()
        self._node = ray.get_runtime_context().get_node_id()

    def __call__(self, row: Row) -> Row:
        name, cost = row["unit"], self._cost
        if name in cost.waiting:
            while not Path(cost.waiting[name]).exists():
                time.sleep(0.02)
        elif name in cost.slow:
            time.sleep(cost.slow[name])
        else:
            with self._turn:
                time.sleep(cost.seconds)
        if cost.log:
            with Path(cost.log, self._node).open("a") as log:
                log.write(f"{name}\n")
        sums = json.loads(row["sums"]) | {"seconds_restore": 0.001, "slot_steps": 1.0, "slot_capacity": 1.0}
        return row | {"estimated": row["crops"], "restored": row["crops"], "sums": json.dumps(sums)}


@dataclass(frozen=True)
class StandInPublish(Publish):
    """The product's last stage without the pictures: records, sample, marker."""

    def _deliver(
        self, unit: Unit, records: list[ImageRecord], pasted: Iterator[Pasted], earlier: Collection[str]
    ) -> list[Output]:
        for record in records:
            record.settle("restored")
        return []
