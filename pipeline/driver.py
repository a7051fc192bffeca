"""Who drives a run. One driver at a time works on an output, so that nothing is restored twice.

Every start makes `_ledger/drivers/NNNN.json`, the next number, by a conditional write: of several starts one gets it.
The highest number drives. Its driver says every few seconds that it lives; one that died is followed at once on its
own machine, elsewhere after it has kept silent for a while. A driver that was only paused finds, when it wakes, that
it was followed, and stops. Until then both may finish the same units: markers are made by conditional writes too.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import psutil

from pipeline import store

DRIVERS = "_ledger/drivers"
# seconds between signs of life, and until a driver elsewhere that gives none counts as dead
BEAT, PATIENCE = 10.0, 35.0
# A clock that is wrong by more than this is not believed to be possible.
LONG_AGO = 3600.0


class AlreadyDriven(ValueError):
    """Somebody else is at work on the output; the command exits with code 2."""


@dataclass(frozen=True)
class Start:
    """One start of a job on an output, as its file says."""

    number: int
    host: str
    pid: int
    # when that process began, by its machine's clock: numbers of processes are used again
    process_began: float
    began_at: float
    seen_at: float
    # None while it works, and for ever where it was killed
    ended_at: float | None = None
    exit_code: int | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def path(self) -> str:
        """Where its file lies below the output."""
        return f"{DRIVERS}/{self.number:04d}.json"

    @property
    def stop_path(self) -> str:
        """While this object exists, no stage begins a further unit for this driver."""
        return f"{DRIVERS}/{self.number:04d}.stop"

    @property
    def who(self) -> str:
        """The driver, for people."""
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began_at))
        return f"process {self.pid} on {self.host}, started {began}"

    def lives(self, now: float) -> bool | None:
        """Whether its process runs; None where one look can not tell."""
        if self.ended_at is not None or now - self.seen_at > LONG_AGO:
            return False
        if self.host == socket.gethostname():
            return _process_began(self.pid) == self.process_began
        return None

    def seems_to_live(self, now: float) -> bool:
        """Whether its process runs, as far as one look tells."""
        lives = self.lives(now)
        return now - self.seen_at <= PATIENCE if lives is None else lives

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


def last_start(output: str) -> Start | None:
    """The newest start on an output; None where there was none. Raises StoreError."""
    uri = store.join(output, DRIVERS)
    names = [e.path for e in store.list_files(uri)] if store.exists(uri) else []
    numbers = [int(n.removesuffix(".json")) for n in names if n.endswith(".json")]
    return _read(output, max(numbers)) if numbers else None


def _read(output: str, number: int) -> Start:
    try:
        return Start(**json.loads(store.read_bytes(store.join(output, f"{DRIVERS}/{number:04d}.json"))))
    except (ValueError, TypeError):  # a damaged file names nobody who could be waited for
        return Start(number, "", 0, 0.0, 0.0, 0.0, ended_at=0.0)


def _process_began(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


class Driver:
    """This process as the driver of an output. A context manager: its block is the time that this start is at work."""

    def __init__(self, output: str, start: Start) -> None:
        self._output = output
        self._start = start
        self._done = threading.Event()
        # the start that followed ours while we seemed to be dead
        self.follower: Start | None = None
        self.exit_code: int | None = None
        self._withdrawn = False
        self._thread = threading.Thread(target=self._beat, name="driver", daemon=True)

    @classmethod
    def take(cls, output: str, say: Callable[[str], None], patience: float = PATIENCE) -> "Driver":
        """Become the driver of an output. Raises AlreadyDriven while another one lives.

        say: told one sentence when we wait to see whether one does, for at most `patience` seconds.
        """
        while True:
            last = last_start(output)
            if last is not None:
                _await_death(output, last, say, patience)
            now, pid = time.time(), os.getpid()
            number = last.number + 1 if last else 1
            mine = Start(number, socket.gethostname(), pid, _process_began(pid), now, now)
            uri = store.join(output, mine.path)
            # our own file may be found when the answer to its making was lost on the way
            if store.create_bytes(uri, mine.to_json()) or _read(output, number).token == mine.token:
                if last is not None:  # killed while it was stopping, it could not take this away
                    store.delete(store.join(output, last.stop_path))
                return cls(output, mine)

    def __enter__(self) -> "Driver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        now = time.time()
        ended = replace(self._start, seen_at=now, ended_at=now, exit_code=self.exit_code)
        with suppress(store.StoreError):  # a start that can not say that it ended is found dead by the next
            if self._withdrawn:
                store.delete(store.join(self._output, ended.path))
            else:
                store.write_bytes(store.join(self._output, ended.path), ended.to_json())
            if self.follower is None:
                store.delete(self.stop_uri)

    @property
    def number(self) -> int:
        """The how manieth start on this output we are."""
        return self._start.number

    @property
    def stop_uri(self) -> str:
        """While this object exists, no stage begins a further unit for us."""
        return store.join(self._output, self._start.stop_path)

    def stop(self) -> None:
        """Let the stages finish what they began, and begin nothing more."""
        store.write_bytes(self.stop_uri, b"")

    def withdraw(self) -> None:
        """Leave no trace at the end: this start was refused before it did anything."""
        self._withdrawn = True

    def _beat(self) -> None:
        """The background thread: say that we live, and look whether we were followed."""
        following = replace(self._start, number=self._start.number + 1)
        while not self._done.wait(BEAT):
            try:
                if store.exists(store.join(self._output, following.path)):
                    follower = _read(self._output, following.number)
                    self.stop()
                    self.follower = follower
                    return
                self._start = replace(self._start, seen_at=time.time())
                store.write_bytes(store.join(self._output, self._start.path), self._start.to_json())
            except store.StoreError:
                continue  # a store that is away now is asked again at the next beat


def _await_death(output: str, last: Start, say: Callable[[str], None], patience: float) -> None:
    """Return when the last driver is dead. Raises AlreadyDriven when it lives."""
    lives = last.lives(time.time())
    if lives is None:
        say(f"waiting up to {patience:.0f} s to see whether {last.who} still works on this output")
        give_up = time.monotonic() + patience
        while lives is None and time.monotonic() < give_up:
            time.sleep(min(BEAT / 5, patience / 5))
            seen = _read(output, last.number)
            lives = False if seen.ended_at is not None else (seen.seen_at != last.seen_at or None)
    if lives:
        raise AlreadyDriven(
            f"{store.name_of(output)} is being worked on by {last.who}; wait for its end (jobs.status shows how far "
            "it is), or stop it first"
        )
