"""What a verification finds: one sentence per difference, and what the sentences add up to."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "run",  # the run file
    "plan",  # the plan, or a shard's part of it
    "marker",  # a marker that is damaged or disagrees with the plan or the records
    "missing",  # an object that a marker names is not there
    "unreadable",  # it is there and can not be read
    "altered",  # its bytes are not those that were written
    "picture",  # its bytes are those the marker names, and are not the picture they should be
    "records",  # a record table disagrees with plan, marker or settings
    "stray",  # an object that nothing names
    "unfinished",  # units without a marker
    "input",  # an original that is gone or changed
    "repeat",  # restoring a picture again gives something else
]

# Findings kept for the machine-readable report; a run that is damaged all over has as many as it has images.
MOST_KEPT = 10_000


@dataclass(frozen=True)
class Finding:
    """One difference between what an output should hold and what it holds."""

    kind: Kind
    # path below the output
    where: str
    # what was wanted, what is there, what to do
    sentence: str
    # the marker to delete, so that the same restore command does its unit again; empty where that would not help
    marker: str = ""


def redoable(kind: Kind, where: str, what: str, marker: str) -> Finding:
    """A finding that doing the unit again puts right."""
    advice = f"delete {marker} and run the same restore command again"
    return Finding(kind, where, f"{where}: {what}; {advice}", marker)


@dataclass
class Findings:
    """All findings counted, the first of them kept."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    # markers to delete, in the order found; as many as findings are kept
    markers: dict[str, None] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count it, and keep it up to MOST_KEPT."""
        self.counts[finding.kind] += 1
        if len(self.kept) < MOST_KEPT:
            self.kept.append(finding)
            if finding.marker:
                self.markers[finding.marker] = None

    @property
    def differences(self) -> int:
        """Findings that are more than work not done yet."""
        return self.counts.total() - self.counts["unfinished"]

    @property
    def unfinished(self) -> bool:
        return self.counts["unfinished"] > 0
