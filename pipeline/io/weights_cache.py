"""The folder of this machine where fetched weights files stay.

Several processes may fetch at once: what a process finds under a final name is whole. Where the publisher gives no
digest, the first fetch records the one it found beside the file, and every later use is held to it.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.io.digests import RECORD, Expected, file_sha256, record
from pipeline.io.download import forget
from pipeline.io.published import WeightsError


@dataclass(frozen=True)
class Resolved:
    """A weights file on this machine."""

    path: Path
    # hexadecimal digest of its bytes
    sha256: str


def cache_dir() -> Path:
    """The folder of this machine where fetched files stay: $DIFFACE_CACHE, else ~/.cache/difface."""
    return Path(os.environ.get("DIFFACE_CACHE") or Path.home() / ".cache" / "difface").expanduser()


def cache_path(address: str, name: str) -> Path:
    """Where the file of this name from this address is kept: files of one name from two addresses are two files."""
    return cache_dir().absolute() / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def cached(path: Path, fetch: Callable[[Path], None], expected: Expected, source: str) -> Resolved:
    """The cached file, fetched first where it is not there; one process fetches while others wait."""
    try:
        # First without the lock, which a read-only cache would refuse.
        if (found := _whole(path, expected)) is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f"{path.name}.lock")):
            if (found := _whole(path, expected)) is not None:
                return found
            partial = path.with_name(f"{path.name}.partial")
            fetch(partial)
            digest = file_sha256(partial)
            if not expected.allows(digest):
                forget(partial)
                raise expected.refusal(f"{path.name} from {source}", digest)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            # first the record: what is found under the final name has one
            record(str(path), digest, source)
            partial.replace(path)
            forget(partial)
            return Resolved(path, digest)
    except OSError as error:
        raise WeightsError(
            f"weights file {path.name} can not be kept under {path.parent} ({error.strerror or error}); "
            "free space there or set DIFFACE_CACHE to another folder"
        ) from error


def _whole(path: Path, expected: Expected) -> Resolved | None:
    """A cached file that is there and, where its digest is known, undamaged."""
    if not path.is_file():
        return None
    digest = file_sha256(path)
    return Resolved(path, digest) if expected.allows(digest) else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process or thread of this machine at a time; released by the system when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def discard(found: Resolved) -> bool:
    """Remove a fetched file, and its record, that proved to be something else; whether it was one of ours to remove."""
    ours = found.path.is_relative_to(cache_dir().absolute())
    if ours:
        found.path.unlink(missing_ok=True)
        found.path.with_name(f"{found.path.name}{RECORD}").unlink(missing_ok=True)
    return ours
