"""A unit's marker, the file that says it is done: what it delivered, its counts, and measurements that add."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pipeline.records.rows import Counts
from pipeline.records.seal import SEAL, is_intact, sealed
from pipeline.records.totals import ShardMetrics


class Output(NamedTuple):
    """A delivered object."""

    # below the output
    path: str
    sha256: str
    # bytes
    size: int


@dataclass(frozen=True)
class Marker:
    """One finished unit."""

    unit: str
    shard: str
    part: int
    # the shard has no later part
    last: bool
    counts: Counts
    # measurements that add, by name: SUMS of totals.py and COLUMN/SUM of what was measured besides
    sums: Mapping[str, float]
    # seconds since 1970
    finished_at: float
    outputs: tuple[Output, ...] = ()
    attempts: int = 1
    # images by outcome and `stage: reason`, of those that were skipped or failed
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    # identity of the run that it belongs to; empty in outputs of versions that gave none
    run: str = ""
    # type of the device that its faces were restored on; empty where that was not recorded
    device: str = ""
    # what the last bits of its faces depend on beside the settings (networks/environment.py); empty where not recorded
    environment: Mapping[str, str] = field(default_factory=dict)
    # digest of the verdicts on its faces that it was done with, and of those that decide pixels by image's place
    verdicts: str = ""
    verdicts_by_place: Mapping[str, str] = field(default_factory=dict)
    # whether its checksum fits: versions before it had one wrote "none"
    checksum: Literal["fits", "broken", "none"] = "none"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Marker":
        """Raises ValueError, KeyError, TypeError or AttributeError for what `to_json` did not write."""
        values = json.loads(text)
        checksum: Literal["fits", "broken", "none"] = "none"
        if SEAL in values:
            checksum = "fits" if is_intact(values) else "broken"
        return cls(
            unit=values["unit"],
            shard=values["shard"],
            part=values["part"],
            last=values["last"],
            counts=Counts(values["images"], values["faces"], dict(values["outcomes"])),
            sums=dict(values["sums"]),
            finished_at=values["finished_at"],
            outputs=tuple(Output(o["path"], o["sha256"], o["size"]) for o in values["outputs"]),
            attempts=values.get("attempts", 1),
            reasons=values.get("reasons", {}),
            run=values.get("run", ""),
            device=str(values.get("device", "")),
            environment={str(k): str(v) for k, v in values.get("environment", {}).items()},
            verdicts=str(values.get("verdicts", {}).get("digest", "")),
            verdicts_by_place=dict(values.get("verdicts", {}).get("pictures", {})),
            checksum=checksum,
        )

    def to_json(self) -> str:
        """Its text, with a checksum."""
        values: dict[str, Any] = {
            "run": self.run,
            "unit": self.unit,
            "shard": self.shard,
            "part": self.part,
            "last": self.last,
            "images": self.counts.images,
            "faces": self.counts.faces,
            "outcomes": self.counts.outcomes,
            "reasons": self.reasons,
            "attempts": self.attempts,
            "outputs": [output._asdict() for output in self.outputs],
            "sums": self.sums,
            "finished_at": self.finished_at,
            "device": self.device,
            "environment": dict(self.environment),
        }
        if self.verdicts:
            values["verdicts"] = {"digest": self.verdicts, "pictures": dict(self.verdicts_by_place)}
        return json.dumps(sealed(values), indent=1)

    @cached_property
    def metrics(self) -> ShardMetrics:
        """Counts and sums as values that add."""
        return ShardMetrics.of(self.counts, self.sums)

    @property
    def sha256(self) -> dict[str, str]:
        """Of each delivered object, by path."""
        return {output.path: output.sha256 for output in self.outputs}

    def failed(self, reason: str | None = None) -> bool:
        """Whether an image failed; with a reason, whether one did for that reason or in the stage of that name.

        A marker that does not say why its images failed is one of every reason.
        """
        causes = self.reasons.get("failed", {})
        if reason is None or not causes:
            return self.counts.outcomes["failed"] > 0
        return any(reason in cause.split(": ", 1) for cause in causes)


def environment_text(found: Mapping[str, str]) -> str:
    """A marker's environment in a line; empty where the version that wrote it recorded none."""
    if not found:
        return ""
    known = ("device", "torch", "kernels", "precision")
    parts = [found.get("device", ""), f"torch {found.get('torch', '?')}"]
    parts += [found[name] for name in known[2:] if name in found]
    return ", ".join([*parts, *(f"{name} {value}" for name, value in found.items() if name not in known)])
