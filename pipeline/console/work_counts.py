"""Counts that workers report for the progress display. The ledger, not these, is the record of what is done."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkCounts:
    """Counts since a pass through the flow began; they add. Repeated work is counted again."""

    # pictures read and searched for faces, and their faces that go to an engine
    pictures: int = 0
    faces: int = 0
    # engines that started to load their networks, and those that are ready
    loading: int = 0
    ready: int = 0
    # faces whose treatment an engine has decided, and faces that it has finished
    decided: int = 0
    restored: int = 0
    # steps in the chains of all decided faces, and how many of them are done
    steps_planned: int = 0
    steps: int = 0
    # estimates and chains beyond the first of each face: further samples, and gentler treatments
    further: int = 0

    def __add__(self, other: "WorkCounts") -> "WorkCounts":
        return WorkCounts(
            self.pictures + other.pictures,
            self.faces + other.faces,
            self.loading + other.loading,
            self.ready + other.ready,
            self.decided + other.decided,
            self.restored + other.restored,
            self.steps_planned + other.steps_planned,
            self.steps + other.steps,
            self.further + other.further,
        )


# Takes the increments since the last call. Never blocks or raises; may be called from any thread.
Report = Callable[[WorkCounts], None]


def ignore(counts: WorkCounts) -> None:
    """The report of a stage without a progress display."""
