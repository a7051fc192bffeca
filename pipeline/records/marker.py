"""A unit's marker: the file that says it is done."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.records.totals import ShardMetrics


@dataclass(frozen=True)
class Marker:
    """One finished unit: what it delivered, and its measurements."""

    unit: str
    shard: str
    part: int
    metrics: ShardMetrics
    finished_at: float
    outputs: tuple[dict[str, Any], ...] = ()
    attempts: int = 1
    # images by outcome and `stage: reason`, of those that were skipped or failed
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    # identity of the run that it belongs to
    run: str = ""

    @classmethod
    def from_json(cls, text: str | bytes) -> "Marker":
        values = json.loads(text)
        return cls(
            unit=values["unit"],
            shard=values["shard"],
            part=values["part"],
            metrics=ShardMetrics.from_marker(values),
            finished_at=values["finished_at"],
            outputs=tuple(values["outputs"]),
            attempts=values.get("attempts", 1),
            reasons=values.get("reasons", {}),
            run=values.get("run", ""),
        )

    def failed(self, reason: str | None = None) -> bool:
        """Whether an image failed; with a reason, whether one did for that reason or in the stage of that name.

        A marker that does not say why its images failed is one of every reason.
        """
        causes = self.reasons.get("failed", {})
        if reason is None or not causes:
            return self.metrics.counts.outcomes["failed"] > 0
        return any(reason in cause.split(": ", 1) for cause in causes)
