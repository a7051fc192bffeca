"""What workers report while they work: sums for a person who waits. The books are the ledger's."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hints:
    """Counts since a walk through the flow began; they add. What is done twice is counted twice."""

    # pictures that were read and searched, and the faces of them that go to an engine
    pictures: int = 0
    faces: int = 0
    # engines that began to load their networks, and those that can be used
    loading: int = 0
    ready: int = 0
    # faces of which an engine has decided what is done with them, and those that left it
    decided: int = 0
    restored: int = 0
    # steps of the chains of all decided faces, and how many of them were taken
    steps_planned: int = 0
    steps: int = 0

    def __add__(self, other: "Hints") -> "Hints":
        return Hints(
            self.pictures + other.pictures,
            self.faces + other.faces,
            self.loading + other.loading,
            self.ready + other.ready,
            self.decided + other.decided,
            self.restored + other.restored,
            self.steps_planned + other.steps_planned,
            self.steps + other.steps,
        )


# Takes what is new since the last call. It neither waits nor raises, and any thread may call it.
Report = Callable[[Hints], None]


def ignore(hints: Hints) -> None:
    """The report of a stage that nobody watches."""
