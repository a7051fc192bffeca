"""A BagIt bag (RFC 8493) that is filled unit by unit, in a folder or an object store.

For each unit a receipt says what of it lies in the bag; with it the next start knows what is there. The checksums of
the manifest are those of the run's markers: a file's bytes are hashed once, while they are copied, to compare them.
bagit.txt is written last, so that what is unfinished is no bag.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline import Refusal
from pipeline.io import store
from pipeline.io.names import escape_surrogates
from pipeline.io.prefetch import ahead
from pipeline.records.seal import is_intact, sealed

PAYLOAD, RECEIPTS = "data", "receipts"
BAGIT, INFO, MANIFEST, TAG_MANIFEST = (
    "bagit.txt",
    "bag-info.txt",
    "manifest-sha256.txt",
    "tagmanifest-sha256.txt",
)
DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
# Says whose bag it is; units have other names.
CLAIM = f"{RECEIPTS}/bag.json"
# Receipts read at once.
READERS = 16
# Files of more bytes are copied in pieces, through a file of their own on this machine.
MOST_IN_MEMORY, PIECE = 64 << 20, 1 << 20
# What a manifest would have to escape; validators do not agree how (RFC 8493, 2.1.3; bagit-python 1.9).
_ESCAPED = re.compile(r"[\r\n]|%(?=0[AaDd]|25)")
_DATE = "Bagging-Date"


class NoBag(Refusal, ValueError):
    """A place that can not become this bag; the command exits with code 2."""


class Altered(ValueError):
    """An object of the output that is not what its marker says."""


class File(NamedTuple):
    """A file of the payload."""

    # below the payload
    path: str
    sha256: str
    # bytes
    size: int
    # of what the run delivered, where it was signed on the way; else empty
    unsigned: str = ""


@dataclass(frozen=True)
class Receipt:
    """What of a unit lies in the bag."""

    unit: str
    # sha256 of what lists it: its marker
    listed: str
    # what it was packaged with: PREMIS, signatures
    how: str
    files: tuple[File, ...] = ()

    def to_json(self) -> bytes:
        values = {"unit": self.unit, "listed": self.listed, "how": self.how}
        return json.dumps(sealed(values | {"files": [f._asdict() for f in self.files]}), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Receipt":
        """Raises ValueError, KeyError or TypeError for what `to_json` did not write."""
        values = json.loads(data)
        if not is_intact(values):
            raise ValueError("its checksum does not match its contents")
        return cls(values["unit"], values["listed"], values["how"], tuple(File(**f) for f in values["files"]))


def payload_path(path: str) -> str:
    """Where a delivered object lies in the payload: under its own name, where a manifest can have it."""
    return _ESCAPED.sub(lambda found: f"\\x{ord(found[0]):02x}", escape_surrogates(path))


@dataclass(frozen=True)
class Bag:
    """The bag of one run."""

    uri: str
    run: str
    # size by path of the payload's files that an earlier start has left; `claim` fills it
    there: dict[str, int] = field(default_factory=dict, compare=False)

    def claim(self) -> None:
        """Begin the bag, or go on with it. Raises NoBag where something else lies there, or StoreError."""
        store.check_writable(self.uri)
        mine = json.dumps({"run": self.run}).encode()
        claim = store.join(self.uri, CLAIM)
        if not store.exists(claim):
            if _holds_files(self.uri):
                raise NoBag(f"--bag {self.uri} holds something else already; choose an empty place")
            if store.create_bytes(claim, mine):
                return
        try:
            theirs = json.loads(store.read_bytes(claim))["run"]
        except (ValueError, KeyError, TypeError):
            theirs = "?"
        if theirs != self.run:
            raise NoBag(
                f"--bag {self.uri} is the bag of another run; choose another place, or delete that one"
            )
        self.there.update((entry.path, entry.size) for entry in self._payload_files())

    def receipt(self, unit: str) -> Receipt | None:
        """The receipt of a unit; None where it has none that can be read. Raises StoreError."""
        uri = self._receipt_uri(unit)
        if not store.exists(uri):
            return None
        try:
            return Receipt.from_json(store.read_bytes(uri))
        except (ValueError, KeyError, TypeError):
            return None

    def keeps(self, receipt: Receipt) -> bool:
        """Whether every file of a receipt was there, with its size, when this start began."""
        return all(self.there.get(f.path) == f.size for f in receipt.files)

    def write_receipt(self, receipt: Receipt, before: Receipt | None) -> None:
        """Make a unit's receipt, after its files; what only the one before has goes. Raises StoreError."""
        kept = {f.path for f in receipt.files}
        for file in before.files if before else ():
            if file.path not in kept:
                store.delete(self._payload(file.path))
        store.write_bytes(self._receipt_uri(receipt.unit), receipt.to_json())

    def open(self) -> None:
        """From here on, until `finish`, it is no bag. Raises StoreError."""
        store.delete(store.join(self.uri, BAGIT))

    def copy(self, source: str, path: str, sha256: str, size: int) -> File:
        """The object as a file of the payload; one that is there already stays.

        Raises StoreError, or Altered where the object is not what was wanted.
        """
        target = payload_path(path)
        if not self._is_there(target, sha256, size):
            self._copy(source, target, sha256, size)
        return File(target, sha256, size)

    def write(self, path: str, data: bytes, unsigned: str = "") -> File:
        """New bytes as a file of the payload. Raises StoreError."""
        target, sha256 = payload_path(path), hashlib.sha256(data).hexdigest()
        store.write_bytes(self._payload(target), data)
        return File(target, sha256, len(data), unsigned)

    def finish(self, units: Sequence[str], info: dict[str, str], date: str, changed: bool) -> tuple[int, int]:
        """Write the manifests over the receipts of these units, and make it a bag; files and bytes of the payload.

        changed: whether anything was copied; where nothing was, and it is a bag with this info, it stays as it is.
        Raises StoreError, or NoBag where the payload holds files that nobody delivered.
        """
        listed: set[str] = set()
        octets = 0
        with tempfile.TemporaryDirectory() as folder:
            manifest, tags = Path(folder) / MANIFEST, Path(folder) / TAG_MANIFEST
            with manifest.open("w", newline="") as lines, tags.open("w", newline="") as tag_lines:
                tag_lines.write(f"{self._digest(CLAIM)}  {CLAIM}\n")
                for receipt in self._receipts(units):
                    digest = hashlib.sha256(receipt.to_json()).hexdigest()
                    tag_lines.write(f"{digest}  {_receipt_path(receipt.unit)}\n")
                    for file in receipt.files:
                        lines.write(f"{file.sha256}  {PAYLOAD}/{file.path}\n")
                        listed.add(file.path)
                        octets += file.size
            self._refuse_strangers(listed)
            whole = {"Payload-Oxum": f"{octets}.{len(listed)}", "Bag-Size": _readable(octets)} | info
            if not changed and self._is_bag(whole):
                return len(listed), octets
            self.open()
            text = "".join(f"{name}: {value}\n" for name, value in ({_DATE: date} | whole).items()).encode()
            digests = {INFO: hashlib.sha256(text).hexdigest(), MANIFEST: _file_digest(manifest)}
            with tags.open("a", newline="") as tag_lines:
                digests[BAGIT] = hashlib.sha256(DECLARATION).hexdigest()
                tag_lines.writelines(f"{digest}  {name}\n" for name, digest in digests.items())
            store.write_bytes(store.join(self.uri, INFO), text)
            store.write_file(store.join(self.uri, MANIFEST), manifest)
            store.write_file(store.join(self.uri, TAG_MANIFEST), tags)
            store.write_bytes(store.join(self.uri, BAGIT), DECLARATION)
        return len(listed), octets

    def _receipts(self, units: Sequence[str]) -> Iterator[Receipt]:
        """The receipts of these units, in their order. Raises NoBag where one is gone."""
        with ThreadPoolExecutor(READERS) as pool:
            found = ahead(pool, (partial(self.receipt, unit) for unit in units), 2 * READERS)
            for unit, receipt in zip(units, found, strict=True):
                if receipt is None:
                    raise NoBag(f"the receipt of {unit} is gone from {self.uri}; run the same command again")
                yield receipt

    def _is_bag(self, info: dict[str, str]) -> bool:
        """Whether it is finished, with this info but for the date."""
        if not store.exists(store.join(self.uri, BAGIT)):
            return False
        lines = store.read_bytes(store.join(self.uri, INFO)).decode(errors="replace").splitlines()
        found = [line for line in lines if not line.startswith(f"{_DATE}: ")]
        return found == [f"{name}: {value}" for name, value in info.items()]

    def _refuse_strangers(self, listed: set[str]) -> None:
        strangers = [entry.path for entry in self._payload_files() if entry.path not in listed]
        if strangers:
            raise NoBag(
                f"{len(strangers)} files in {store.join(self.uri, PAYLOAD)} are not of the run, {strangers[0]} is the "
                "first; "
                "remove them, and run the same command again"
            )

    def _copy(self, source: str, target: str, sha256: str, size: int) -> None:
        uri = self._payload(target)
        if size <= MOST_IN_MEMORY:
            data = store.read_bytes(source)
            _compare(source, (hashlib.sha256(data).hexdigest(), len(data)), (sha256, size))
            store.write_bytes(uri, data)
            return
        with tempfile.NamedTemporaryFile() as held:
            hashed, found = hashlib.sha256(), 0
            for piece in _pieces(source):
                hashed.update(piece)
                found += len(piece)
                held.write(piece)
            held.flush()
            _compare(source, (hashed.hexdigest(), found), (sha256, size))
            store.write_file(uri, Path(held.name))

    def _is_there(self, target: str, sha256: str, size: int) -> bool:
        """Whether a file of an interrupted unit is there whole."""
        if self.there.get(target) != size:
            return False
        hashed = hashlib.sha256()
        for piece in _pieces(self._payload(target)):
            hashed.update(piece)
        return hashed.hexdigest() == sha256

    def _payload_files(self) -> list[store.Entry]:
        folder = store.join(self.uri, PAYLOAD)
        return store.list_files(folder) if store.exists(folder) else []

    def _digest(self, path: str) -> str:
        return hashlib.sha256(store.read_bytes(store.join(self.uri, path))).hexdigest()

    def _payload(self, path: str) -> str:
        return store.join(self.uri, PAYLOAD, path)

    def _receipt_uri(self, unit: str) -> str:
        return store.join(self.uri, _receipt_path(unit))


def _receipt_path(unit: str) -> str:
    return payload_path(f"{RECEIPTS}/{unit}.json")


def _holds_files(uri: str) -> bool:
    return store.exists(uri) and bool(store.list_files(uri))


def _pieces(uri: str) -> Iterator[bytes]:
    with store.open_read(uri) as source:
        while piece := source.read(PIECE):
            yield piece


def _compare(source: str, found: tuple[str, int], wanted: tuple[str, int]) -> None:
    if found != wanted:
        raise Altered(
            f"{source}: {wanted[1]} bytes with sha256 {wanted[0][:16]} were wanted, as its marker says, "
            f"{found[1]} bytes with {found[0][:16]} are there; jobs.verify names all that is wrong"
        )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readable(octets: int) -> str:
    size, unit = float(octets), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if unit != "B" else f"{octets} B"
