"""The lease of an output: one process at a time works on it, so that nothing is restored twice.

Every start makes `_ledger/drivers/NNNN.json`, the next number, by a conditional write: of several starts one gets it.
The highest number holds the lease and renews it every few seconds. The lease of a process that died is taken at once
on its own machine, elsewhere when it has not been renewed for a while. No decision depends on the time of day: clocks
are set while machines run. A holder that was only paused finds, when it wakes, that it has a successor, and writes
nothing more (pipeline/io/fence.py). Until then both may finish the same units: markers, too, are made by conditional
writes.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path

import psutil

from pipeline import Refusal
from pipeline.io import fence, layout, store

# seconds between renewals, and until a holder elsewhere that does not renew counts as dead
BEAT, TIMEOUT = 10.0, 35.0
START_BYTES = 1024


class AlreadyLeased(Refusal, ValueError):
    """Another process is at work on the output; the command exits with code 2."""


@dataclass(frozen=True)
class Start:
    """One start of a job on an output, as its file says."""

    number: int
    host: str
    pid: int
    # which process of that number, as `process_identity`; empty where the machine does not say
    process: str
    # seconds since 1970, for people
    began_at: float
    # the same of its last sign of life; from elsewhere, that it changes is what counts
    seen_at: float
    # None while it works, and for ever where it was killed
    ended_at: float | None = None
    exit_code: int | None = None
    # what ended it, where that was no end of the work
    reason: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def path(self) -> str:
        """Where its file lies below the output."""
        return layout.start_path(self.number)

    @property
    def stop_path(self) -> str:
        """While this object exists, no stage begins a further unit for this start."""
        return layout.stop_path(self.number)

    @property
    def who(self) -> str:
        """The process, for people."""
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began_at))
        return f"process {self.pid} on {self.host}, started {began}"

    def lives(self) -> bool | None:
        """Whether its process runs; None where one look can not say."""
        if self.ended_at is not None:
            return False
        if self.host == socket.gethostname() and self.process:
            return process_identity(self.pid) == self.process
        return None

    def seems_to_live(self, now: float) -> bool:
        """Whether its process runs, as far as one look can say; `now` in seconds since 1970."""
        lives = self.lives()
        return now - self.seen_at <= TIMEOUT if lives is None else lives

    def to_json(self) -> bytes:
        # of one size, so that the end can be written over the beginning where a disk is full
        return json.dumps(asdict(self), indent=1).encode().ljust(START_BYTES)


def last_start(output: str) -> Start | None:
    """The newest start on an output; None where there was none. Raises StoreError."""
    uri = store.join(output, layout.DRIVERS)
    names = [e.path for e in store.list_files(uri)] if store.exists(uri) else []
    numbers = [int(n.removesuffix(".json")) for n in names if n.endswith(".json")]
    return _read(output, max(numbers)) if numbers else None


def _read(output: str, number: int) -> Start:
    try:
        values = json.loads(store.read_bytes(store.join(output, layout.start_path(number))))
        known = {f.name for f in fields(Start)}
        # a start of an earlier version says nothing of its process but the number
        return Start(**{"process": ""} | {name: values[name] for name in known & values.keys()})
    except (ValueError, TypeError, AttributeError):  # a damaged file names nobody who could be waited for
        return Start(number, "", 0, "", 0.0, 0.0, ended_at=0.0)


def process_identity(pid: int) -> str:
    """What no other process has that ever gets this number: when it began, in ticks since boot, and which boot.

    Empty where there is no such process. Times of day would not do: they move when the clock is set.
    """
    try:
        # the name, in brackets, may hold anything
        began = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return ""
        with suppress(psutil.Error):  # no Linux
            return f"{psutil.Process(pid).create_time()}"
        return ""
    return f"{_boot()}:{began}"


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Lease:
    """This process as the holder of an output. A context manager: its block is the time that this start is at work."""

    def __init__(self, output: str, start: Start) -> None:
        self._output = output
        self._start = start
        self._done = threading.Event()
        # the start that took the lease while we seemed to be dead
        self.successor: Start | None = None
        self.exit_code: int | None = None
        # what ended this start, where that was no end of the work
        self.reason = ""
        self._withdrawn = False
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    @classmethod
    def take(cls, output: str, say: Callable[[str], None], timeout: float = TIMEOUT) -> "Lease":
        """Take the lease of an output. Raises AlreadyLeased while another one lives.

        say: is given one sentence when we wait to see whether one does, for at most `timeout` seconds.
        """
        while True:
            last = last_start(output)
            if last is not None:
                _await_death(output, last, say, timeout)
            now, pid = time.time(), os.getpid()
            number = last.number + 1 if last else 1
            mine = Start(number, socket.gethostname(), pid, process_identity(pid), now, now)
            uri = store.join(output, mine.path)
            with fence.changing(output):
                created = store.create_bytes(uri, mine.to_json())
            # our own file may be found when the answer to its making was lost on the way
            if created or _read(output, number).token == mine.token:
                _clear_stops(output)
                return cls(output, mine)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        now = time.time()
        ended = replace(self._start, seen_at=now, ended_at=now, exit_code=self.exit_code, reason=self.reason)
        with suppress(store.StoreError):  # a start that can not say that it ended is found dead by the next
            if self._withdrawn:
                store.delete(store.join(self._output, ended.path))
            else:
                store.rewrite_bytes(store.join(self._output, ended.path), ended.to_json())
        with suppress(store.StoreError):
            store.delete(self.stop_uri)

    @property
    def number(self) -> int:
        """The number of this start on the output, from 1."""
        return self._start.number

    @property
    def stop_uri(self) -> str:
        """While this object exists, no stage begins a further unit for us."""
        return store.join(self._output, self._start.stop_path)

    def stop(self) -> None:
        """Let the stages finish what they began, and begin nothing more."""
        store.write_bytes(self.stop_uri, b"")

    def is_held(self) -> bool:
        """Whether no start has taken the lease since, by a fresh look; else stops the stages. Raises StoreError."""
        following = replace(self._start, number=self._start.number + 1)
        if self.successor is None and store.exists(store.join(self._output, following.path)):
            successor = _read(self._output, following.number)
            with suppress(store.StoreError):  # its workers notice for themselves whose output it is
                self.stop()
            self.successor = successor
        return self.successor is None

    def withdraw(self) -> None:
        """Leave no trace at the end: this start was refused before it did anything."""
        self._withdrawn = True

    def _beat(self) -> None:
        """The background thread: renew the lease, unless another start has it."""
        while not self._done.wait(BEAT):
            try:
                if not self.is_held():
                    return
                self._start = replace(self._start, seen_at=time.time())
                store.write_bytes(store.join(self._output, self._start.path), self._start.to_json())
            except store.StoreError:
                continue  # a store that does not answer now is tried again at the next beat


def _clear_stops(output: str) -> None:
    """Take away what earlier starts could not: they were killed while they were stopping."""
    for entry in store.list_files(store.join(output, layout.DRIVERS)):
        if entry.path.endswith(".stop"):
            store.delete(entry.uri)


def _await_death(output: str, last: Start, say: Callable[[str], None], timeout: float) -> None:
    """Return when the last holder is dead. Raises AlreadyLeased when it lives."""
    lives = last.lives()
    if lives is None:
        say(f"waiting up to {timeout:.0f} s to see whether {last.who} still works on this output")
        give_up = time.monotonic() + timeout
        while lives is None and time.monotonic() < give_up:
            time.sleep(min(BEAT / 5, timeout / 5))
            seen = _read(output, last.number)
            lives = False if seen.ended_at is not None else (seen.seen_at != last.seen_at or None)
    if lives:
        raise AlreadyLeased(
            f"{store.name_of(output)} is being worked on by {last.who}; wait for its end (jobs.status shows how far "
            "it is), or stop it first"
        )
