"""Joining a Ray cluster, or starting one on this machine: whatever is in the way is one sentence, and Ray is quiet."""

import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

import ray

from pipeline.console.options import UsageError
from pipeline.io.errors import reason_of

# A Unix socket's path has at most so many bytes, and Ray makes its sockets so far below its folder.
LONGEST_SOCKET = 107
DEEPEST_SOCKET = "/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.1"
LONGEST_FOLDER = LONGEST_SOCKET - len(DEEPEST_SOCKET)
# Seconds that a cluster's head has to answer.
TIMEOUT = 20.0
# What Ray's logs need to begin with.
FREE_BYTES = 64 << 20
# Ray's remark, once a process, on an actor that may be restarted and was made of large arguments. Those of Ray Data's
# actors are held until the flow has ended.
REMARK = b"has constructor arguments in the object store"

# How a line of another process begins that Ray brings to the driver's screen, with or without colour.
BROUGHT = re.compile(r"(\x1b\[\d+m)?\((raylet|autoscaler|((?P<name>\S+) )?pid=\w+)(, ip=\S+)?\)(\x1b\[0m)? ")

_LOCK = threading.Lock()


def join(address: str | None, log_to_driver: bool = False) -> None:
    """Join the cluster of `address` or RAY_ADDRESS; without either start one that ends with this process.

    A process that has joined one already stays there. log_to_driver: show what workers print. Raises UsageError where
    no cluster answers, or where Ray finds no folder for its sockets and logs.
    """
    if not ray.is_initialized():
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": log_to_driver}
        if address == "local":
            _start(quiet)
        else:
            _join(address, quiet)
    # what Ray deprecates of its own; the line of a call of ours is still ours
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.")


def _start(quiet: dict[str, Any]) -> None:
    folder = choose_folder()
    try:
        # CPUs are logical here: a small machine still runs one task of every stage.
        cpus = max(os.cpu_count() or 1, 4)
        ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **quiet)
    except Exception as error:  # Ray raises plain ones, too
        raise UsageError(
            f"Ray was to start with its files in {folder}, but {reason_of(error)}; its logs are below "
            f"{folder}/session_latest/logs, and RAY_TMPDIR names another folder"
        ) from error


def _join(address: str, quiet: dict[str, Any]) -> None:
    try:
        _knock(address)
        ray.init(address, **quiet)
    except Exception as error:  # Ray raises plain ones, too
        raise UsageError(
            f"a Ray cluster was wanted at {address}, but {reason_of(error)}; see that it runs, or give neither "
            "--ray-address nor RAY_ADDRESS to start one here"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nothing answers at host:port. Ray itself asks for many minutes, and says nothing."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "//" not in address:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()


def choose_folder() -> str:
    """Where a cluster on this machine has its sockets and logs: an existing, absolute path.

    Below RAY_TMPDIR where that is set, else below TMPDIR or /tmp, whichever serves. Raises UsageError where none does.
    """
    named = os.environ.get("RAY_TMPDIR")
    usual = [os.environ.get("TMPDIR") or "/tmp", "/tmp"]
    folders = [Path(place, "ray").absolute() for place in ([named] if named else usual)]
    if not named:  # what another user made may be closed to us
        folders.append(Path(f"/tmp/ray-{os.getuid()}"))
    return first_fit(dict.fromkeys(map(str, folders)))


def first_fit(folders: Iterable[str]) -> str:
    """The first folder that can hold Ray's files; made where it is not there. Raises UsageError where none can."""
    against = []
    for folder in folders:
        if not (reason := unfit(folder)):
            return folder
        against.append(f"{folder} {reason}")
    raise UsageError(
        f"Ray wants a folder for its sockets and logs with {FREE_BYTES >> 20} MiB free and a path of at most "
        f"{LONGEST_FOLDER} bytes, but {' and '.join(against)}; name a short one on another disk with RAY_TMPDIR"
    )


def unfit(folder: str) -> str:
    """Why a folder can not hold Ray's files; empty where it can."""
    if (length := len(os.fsencode(folder))) > LONGEST_FOLDER:
        return f"is {length} bytes long"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 16))
            probe.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"can not be written ({error.strerror or error})"
    return "" if free >= FREE_BYTES else f"has {free >> 20} MiB free"


@cache
def hear_remark() -> None:
    """Let Ray make its remark now, where it is not shown: C++ writes it at any log level, and only once."""
    with suppress(Exception), without_lines(REMARK):  # a quiet screen is worth no run
        actor: Any = ray.remote(_Idle).options(num_cpus=0, max_restarts=1).remote(ray.put(b""))
        ray.kill(actor)


class _Idle:
    """An actor that does nothing and is ended at once."""

    def __init__(self, token: object) -> None:
        pass


@contextmanager
def without_lines(unwanted: bytes) -> Iterator[None]:
    """What is written to stderr inside the block appears at its end, without the lines that hold `unwanted`."""
    with _LOCK, os.fdopen(os.memfd_create("stderr"), "w+b") as caught:  # in memory: disks may be full
        sys.stderr.flush()
        screen = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            caught.seek(0)
            if kept := b"".join(line for line in caught if unwanted not in line):
                os.write(screen, kept)
            os.close(screen)


@contextmanager
def hearing(name: str) -> Iterator[None]:
    """Inside the block, what the workers of this name print on stdout is shown as their own words, on ours.

    Nothing else of Ray's other processes is: its logs have it. Takes `join` with log_to_driver.
    """
    with redirect_stdout(Heard(sys.stdout, name)), redirect_stderr(Heard(sys.stderr)):
        yield


class Heard(TextIOBase):
    """A stream that lets lines of this process through, and of others those of one name, without Ray's prefix."""

    def __init__(self, out: TextIO, name: str | None = None) -> None:
        self._out, self._name = out, name
        # a line that is not ended yet, of each thread
        self._begun = threading.local()

    def write(self, text: str) -> int:
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            brought = BROUGHT.match(line)
            if brought is None or brought["name"] == self._name:
                self._out.write(line[brought.end() if brought else 0 :] + "\n")
        self._out.flush()
        return len(text)

    def flush(self) -> None:
        self._out.flush()
