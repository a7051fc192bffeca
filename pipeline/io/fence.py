"""Late writes of a process that no longer owns an output are refused.

A process may be paused for any time between checking that an output is still its own and writing. A fence closes that
gap. On a local file system check and replacement happen under a shared lock, and the owner changes under the exclusive
one. In an object store an object is replaced only where it is still the one that was there before the check (If-Match,
If-None-Match): what the owner wrote since stays.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.io import layout, store

# Most bytes of a conditional put; of a larger object, which is written in parts, the owner is checked before.
MOST_CONDITIONAL = 1 << 30

Holds = Callable[[], bool]


class Fenced(store.StoreError):
    """A write that is refused because the output now belongs to another run or start."""


@dataclass(frozen=True)
class RunFence:
    """Lets one run's workers write into its output, until another run takes it over."""

    output: str
    # the run's identity; empty for an output of a version that gave none
    run: str
    # bytes of a run file → the identity in it
    identity: Callable[[bytes], str]

    def holds(self) -> bool:
        """Whether the output still is this run's, by a fresh look. Raises StoreError."""
        uri = store.join(self.output, layout.RUN)
        return self.run == (self.identity(store.read_bytes(uri)) if store.exists(uri) else "")

    def write(self, path: str, data: bytes) -> None:
        """`write_while` for this run."""
        write_while(self.holds, self.output, path, data)

    def delete(self, path: str) -> None:
        """Remove a file of the output. Raises Fenced or StoreError."""
        with store.locked(store.join(self.output, layout.LOCK), exclusive=False):
            if not self.holds():
                raise _fenced(path)
            store.delete(store.join(self.output, path))


def write_while(holds: Holds, output: str, path: str, data: bytes, changes_owner: bool = False) -> None:
    """Make or replace a file of an output while `holds()`. Raises Fenced where it does not, or StoreError.

    changes_owner: other fences look at this very file.
    """
    uri = store.join(output, path)
    if store.can_swap(uri) and len(data) <= MOST_CONDITIONAL:
        _swap(holds, uri, path, data)
        return
    with store.locked(store.join(output, layout.LOCK), exclusive=changes_owner):
        if not holds():
            raise _fenced(path)
        store.write_bytes(uri, data)


@contextmanager
def changing(output: str) -> Iterator[None]:
    """While the owner of an output is changed: no fenced write to a local output is under way."""
    with store.locked(store.join(output, layout.LOCK), exclusive=True):
        yield


def _swap(holds: Holds, uri: str, path: str, data: bytes) -> None:
    """The write to an object store. A new object is made without a check: the owner would replace it."""
    if store.swap_bytes(uri, data, ""):
        return
    while True:
        there = store.version_of(uri)
        if not holds():
            raise _fenced(path)
        if store.swap_bytes(uri, data, there):
            return


def _fenced(path: str) -> Fenced:
    return Fenced(f"{path} is not written: another run or start has taken the output over since")
