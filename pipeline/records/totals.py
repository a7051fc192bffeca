"""What is measured of a shard, as values that add."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.records.rows import DECISIONS, LEFT_TEXTS, RUNG_TEXTS, Counts, Decision, LeftFor, Rung
from pipeline.records.verdicts import VERDICT_TEXTS, What

# With --samples: every chain that was drawn, faces that are delivered from several, and those of them that are marked
# as invented.
SAMPLING = ("chains_drawn", "faces_sampled", "faces_invented")

# Sums that a unit's marker carries, besides its counts.
SUMS = (
    # faces by what was decided of them: DECISIONS of records.py
    "faces_left",
    "faces_estimator",
    "faces_chain",
    # of those left, why: LEFT_TEXTS of rows.py; of the others, which treatment passed the gates: RUNG_TEXTS
    *(f"faces_left_{why}" for why in LEFT_TEXTS),
    *(f"faces_rung_{rung}" for rung in RUNG_TEXTS),
    # by the last verdict on them: VERDICT_TEXTS of verdicts.py
    *(f"faces_verdict_{what}" for what in VERDICT_TEXTS),
    *SAMPLING,
    # faces that an engine looked at
    "crops",
    "sharpness_before",
    "sharpness_after",
    "distance",
    "seconds_read",
    "seconds_restore",
    "seconds_measure",
    "seconds_paste",
    "slot_steps",
    "slot_capacity",
    "slot_steps_pressed",
    "slot_capacity_pressed",
    # faces whose picture has no truth, where --truth was given
    "truths_missing",
)

# What a marker carries besides of each measured column, as COLUMN/SUM: faces that have a value, its sum, its squares'.
PER_COLUMN = ("count", "total", "squares")


class Interval(NamedTuple):
    """A mean over faces with the half width of its 95 % interval, as if all faces were independent."""

    mean: float
    half: float
    faces: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.half:.2g} ({self.faces} faces)"


@dataclass(frozen=True)
class ShardMetrics:
    """Counts and sums of any number of units; adding two gives those of both."""

    counts: Counts = field(default_factory=Counts)
    sums: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))

    def __add__(self, other: "ShardMetrics") -> "ShardMetrics":
        names = self.sums.keys() | other.sums.keys()
        sums = {k: self.sums.get(k, 0.0) + other.sums.get(k, 0.0) for k in sorted(names)}
        return ShardMetrics(self.counts + other.counts, sums)

    @classmethod
    def of(cls, counts: Counts, sums: Mapping[str, float]) -> "ShardMetrics":
        """Of a unit's counts and sums; sums of other names are left out."""
        names = [*SUMS, *(k for k in sums if "/" in k)]
        return cls(counts, {k: _finite(sums.get(k, 0.0)) for k in names})

    @property
    def decisions(self) -> dict[Decision, int]:
        """Faces by what was decided of them."""
        return {decision: round(self.sums.get(f"faces_{decision}", 0.0)) for decision in DECISIONS}

    @property
    def left_for(self) -> dict[LeftFor, int]:
        """Faces that were left for each kind of reason; without those that left none."""
        counted = {why: round(self.sums.get(f"faces_left_{why}", 0.0)) for why in LEFT_TEXTS}
        return {why: number for why, number in counted.items() if number}

    @property
    def rungs(self) -> dict[Rung, int]:
        """Faces by the treatment that passed the gates; without those that none had."""
        counted = {rung: round(self.sums.get(f"faces_rung_{rung}", 0.0)) for rung in RUNG_TEXTS}
        return {rung: number for rung, number in counted.items() if number}

    @property
    def verdicts(self) -> dict[What, int]:
        """Faces by the last verdict on them; without those that were given on none."""
        counted = {what: round(self.sums.get(f"faces_verdict_{what}", 0.0)) for what in VERDICT_TEXTS}
        return {what: number for what, number in counted.items() if number}

    @property
    def sampling(self) -> dict[str, int]:
        """What --samples drew and found, by SAMPLING; empty where nothing was drawn so."""
        counted = {name: round(self.sums.get(name, 0.0)) for name in SAMPLING}
        return counted if counted["chains_drawn"] else {}

    def intervals(self) -> dict[str, Interval]:
        """Of each column that was measured of any face."""
        found = {}
        for column in sorted({k.partition("/")[0] for k in self.sums if "/" in k}):
            count, total, squares = (self.sums.get(f"{column}/{name}", 0.0) for name in PER_COLUMN)
            if count:
                mean = total / count
                variance = max(squares - count * mean**2, 0.0) / (count - 1) if count > 1 else 0.0
                found[column] = Interval(mean, 1.96 * math.sqrt(variance / count), round(count))
        return found

    def means(self) -> dict[str, float]:
        """What MLflow shows of a shard. A mean over nothing is left out."""
        counts, sums = self.counts, self.sums
        values: dict[str, float] = {
            "images": counts.images,
            "faces": counts.faces,
        }
        values |= {f"faces_{decision}": number for decision, number in self.decisions.items()}
        values |= {f"faces_left_{why}": number for why, number in self.left_for.items()}
        values |= {f"faces_rung_{rung}": number for rung, number in self.rungs.items()}
        values |= {f"faces_verdict_{what}": number for what, number in self.verdicts.items()}
        values |= self.sampling
        values |= {f"outcome_{name}": number for name, number in counts.outcomes.items()}
        values |= {k: sums[k] for k in ("seconds_read", "seconds_restore", "seconds_paste")}
        values |= {k: sums[k] for k in ("seconds_measure", "truths_missing") if sums[k]}
        if sums["crops"]:
            values |= {
                k: sums[k] / sums["crops"] for k in ("sharpness_before", "sharpness_after", "distance")
            }
        values |= {column: interval.mean for column, interval in self.intervals().items()}
        if sums["seconds_restore"]:
            values["faces_per_second"] = counts.faces / sums["seconds_restore"]
        if sums["slot_capacity"]:
            values["slot_fill"] = sums["slot_steps"] / sums["slot_capacity"]
        if sums["slot_capacity_pressed"]:
            # while other faces were waiting: below 1 the engine itself left slots empty
            values["slot_fill_pressed"] = sums["slot_steps_pressed"] / sums["slot_capacity_pressed"]
        return values


def sampling_text(sampling: Mapping[str, int]) -> str:
    """`ShardMetrics.sampling`, for people."""
    chains, faces, invented = (sampling[name] for name in SAMPLING)
    return f"{chains} chains drawn; {faces} faces are one of several, {invented} marked as invented here"


def _finite(value: float) -> float:
    """One measurement that is no number must not ruin the sum of its shard."""
    return float(value) if math.isfinite(value) else 0.0
