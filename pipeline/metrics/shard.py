"""What is measured of a shard, as values that add."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.records import Counts

# Sums that a unit's marker carries, besides its counts.
SUMS = (
    "faces_kept",
    "sharpness_before",
    "sharpness_after",
    "distance",
    "seconds_read",
    "seconds_restore",
    "seconds_paste",
    "slot_steps",
    "slot_capacity",
    "slot_steps_pressed",
    "slot_capacity_pressed",
)


@dataclass(frozen=True)
class ShardMetrics:
    """Counts and sums of any number of units; adding two gives those of both."""

    counts: Counts = field(default_factory=Counts)
    sums: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))

    def __add__(self, other: "ShardMetrics") -> "ShardMetrics":
        return ShardMetrics(self.counts + other.counts, {k: self.sums[k] + other.sums[k] for k in SUMS})

    @classmethod
    def from_marker(cls, marker: Mapping[str, Any]) -> "ShardMetrics":
        """The measurements in a unit's marker."""
        counts = Counts(marker["images"], marker["faces"], dict(marker["outcomes"]))
        return cls(counts, {k: _finite(marker["sums"].get(k, 0.0)) for k in SUMS})

    def means(self) -> dict[str, float]:
        """What MLflow is told of a shard. A mean over nothing is left out."""
        counts, sums = self.counts, self.sums
        told: dict[str, float] = {
            "images": counts.images,
            "faces": counts.faces,
            "faces_kept": sums["faces_kept"],
        }
        told |= {f"outcome_{name}": number for name, number in counts.outcomes.items()}
        told |= {k: sums[k] for k in ("seconds_read", "seconds_restore", "seconds_paste")}
        if counts.faces:
            told |= {k: sums[k] / counts.faces for k in ("sharpness_before", "sharpness_after", "distance")}
        if sums["seconds_restore"]:
            told["faces_per_second"] = counts.faces / sums["seconds_restore"]
        if sums["slot_capacity"]:
            told["slot_fill"] = sums["slot_steps"] / sums["slot_capacity"]
        if sums["slot_capacity_pressed"]:
            # while other faces were waiting: below 1 the engine itself left slots empty
            told["slot_fill_pressed"] = sums["slot_steps_pressed"] / sums["slot_capacity_pressed"]
        return told


def _finite(value: float) -> float:
    """One measurement that is no number must not spoil the sum of its shard."""
    return float(value) if math.isfinite(value) else 0.0
