"""The sha256 of weights files, and the record of it beside a file, as sha256sum writes and reads it."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.io import store
from pipeline.io.published import WeightsError

# Ends the name of the record.
RECORD = ".sha256"
# Bytes read at a time.
PIECE = 1 << 20


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file, computed once a process while size and time of change stay the same."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=64)
def _file_sha256(path: Path, _size: int, _changed: int, _inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(uri: str) -> str:
    """Hexadecimal digest of a file's bytes, all of them read now. Raises store.StoreError."""
    digest = hashlib.sha256()
    with store.open_read(uri) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def recorded(uri: str) -> str | None:
    """The digest that was recorded beside a weights file. Raises WeightsError on a damaged record, store.StoreError."""
    beside = f"{uri}{RECORD}"
    if not store.exists(beside):
        return None
    line = re.search(r"(?m)^([0-9a-f]{64})\b", store.read_bytes(beside).decode(errors="replace"))
    if line is None:
        raise WeightsError(
            f"{beside} holds no sha256; delete it, and it is written again when the file is fetched"
        )
    return line[1]


def record(uri: str, digest: str, source: str | None = None, licence: str | None = None) -> None:
    """Write beside a weights file what it is; `sha256sum --check` reads it, too. Raises store.StoreError."""
    notes = [f"# {what}: {text}" for what, text in (("from", source), ("licence", licence)) if text]
    lines = [*notes, f"{digest}  {store.name_of(uri)}"]
    store.write_bytes(f"{uri}{RECORD}", "".join(f"{line}\n" for line in lines).encode())


@dataclass(frozen=True)
class Expected:
    """The digest that a file must have, None where it is not known, and what to do when it has another."""

    digest: str | None
    remedy: str = "fetch it again or correct the preset"

    def allows(self, digest: str) -> bool:
        """Whether a file of this digest is the one."""
        return self.digest in (None, digest)

    def refusal(self, what: str, digest: str) -> WeightsError:
        """The error of a file that is not."""
        return WeightsError(
            f"weights file {what}: wanted sha256 {self.digest}, got {digest}; it is another file or a damaged one, "
            f"{self.remedy}"
        )


def expected_digest(wanted: str | None, *uris: str) -> Expected:
    """What the preset wants; where it says nothing, what was recorded beside the first of these files that has it."""
    if wanted is not None:
        return Expected(wanted)
    for uri in uris:
        if (digest := recorded(uri)) is not None:
            return Expected(digest, f"delete {uri}{RECORD}, which wants it, where the new one is right")
    return Expected(None)
