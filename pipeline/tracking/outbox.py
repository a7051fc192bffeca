"""What waits to be delivered to the run of one job: shards, steps of series, tags, and single items.

Filled by the job's threads and emptied by the thread that delivers; every method is atomic.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipeline.tracking.client import Client
from pipeline.tracking.delivery import Point


class Item(NamedTuple):
    """An artifact, image or input: name and digest say whether the run has it, send takes client and run id."""

    name: str
    digest: Callable[[], str]
    send: Callable[[Client, str], None]


class Outbox:
    """The things that wait, and the tags."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._shards: dict[int, Point] = {}
        self._series: list[Point] = []
        self._items: list[Item] = []
        self._tags = dict(tags)

    def __len__(self) -> int:
        """How many shards, steps, artifacts, images and inputs wait."""
        with self._lock:
            return len(self._shards) + len(self._series) + len(self._items)

    def add_shard(self, point: Point) -> None:
        """The point of a shard, in the place of an earlier one of the same step."""
        with self._lock:
            self._shards[point.step] = point

    def shards(self, delivered: Callable[[Point], bool]) -> list[Point]:
        """The shards by step; those that were delivered are dropped."""
        with self._lock:
            self._shards = {s: p for s, p in self._shards.items() if not delivered(p)}
            return sorted(self._shards.values(), key=lambda p: p.step)

    def remove_shards(self, points: Sequence[Point]) -> None:
        """Drop these; one that was replaced meanwhile stays."""
        with self._lock:
            for point in points:
                if self._shards.get(point.step) is point:
                    del self._shards[point.step]

    def add_step(self, point: Point) -> None:
        """A step of series."""
        with self._lock:
            self._series.append(point)

    def steps(self) -> list[Point]:
        """The steps of series, in the order in which they came."""
        with self._lock:
            return list(self._series)

    def remove_steps(self, count: int) -> None:
        """Drop so many of the first."""
        with self._lock:
            del self._series[:count]

    def add_item(self, item: Item) -> None:
        """An artifact, image or input."""
        with self._lock:
            self._items.append(item)

    def items(self) -> list[Item]:
        """The items, in the order in which they came."""
        with self._lock:
            return list(self._items)

    def remove_item(self, item: Item) -> None:
        """Drop one."""
        with self._lock:
            self._items.remove(item)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Tags, or new values of tags."""
        with self._lock:
            self._tags |= tags

    def add_missing_tags(self, tags: Mapping[str, str]) -> None:
        """Tags that no waiting ones take the place of."""
        with self._lock:
            self._tags = dict(tags) | self._tags

    def tags(self) -> dict[str, str]:
        """The tags."""
        with self._lock:
            return dict(self._tags)

    def remove_tags(self, sent: Mapping[str, str]) -> None:
        """Drop these; one that has got another value meanwhile stays."""
        with self._lock:
            self._tags = {k: v for k, v in self._tags.items() if sent.get(k) != v}
