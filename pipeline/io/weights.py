"""Where a weights file comes from: the package, a folder or bucket, the cache, or its published address.

The driver resolves every file before any actor starts; an actor resolves it again and finds it in the package, the
folder or its machine's cache. Several processes may do so at once: what a process finds under a final name is whole.

Where the publisher gives no digest, the first fetch records the one it found in a small file beside the weights, and
every later use is held to it.
"""

import fcntl
import hashlib
import http.client
import os
import random
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pipeline import Refusal
from pipeline.io import store

PACKAGED = Path(__file__).parent.parent / "presets" / "weights"
# Ends the name of the file beside a weights file that records its digest, as sha256sum writes and reads it.
RECORD = ".sha256"

# Socket silence after which a download counts as broken, seconds.
TIMEOUT = 30.0
# Tries in a row that bring no new byte before a download is given up.
TRIES = 4
# Bytes moved at a time.
PIECE = 1 << 20
# Seconds between progress lines, on a terminal and elsewhere.
REPORT_EVERY = (0.5, 10.0)

HTTP_PARTIAL, HTTP_RANGE_REFUSED = 206, 416

# What a connection that fails half-way raises.
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class WeightsError(Refusal):
    """A weights file that can not be had, or that is not the one wanted."""


@dataclass(frozen=True)
class Resolved:
    """A weights file on this machine."""

    path: Path
    # hexadecimal digest of its bytes
    sha256: str


@dataclass(frozen=True)
class Copy:
    """A weights file that is there, whether or not it is the one wanted."""

    place: Literal["path", "package", "weights-dir", "cache"]
    file: store.Entry


@dataclass(frozen=True)
class Published:
    """A file that others publish."""

    file: str
    # None for a file of one's own
    url: str | None
    sha256: str | None
    licence: str


# Face detectors by the names that `faces/detect.py` gives them; addresses from facexlib's source.
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/v0.1.0"
DETECTOR_WEIGHTS = {
    "retinaface-mobile0.25": Published(
        file="detection_mobilenet0.25_Final.pth",
        url=f"{_FACEXLIB}/detection_mobilenet0.25_Final.pth",
        sha256="7c417d4a43c5e2100ef40c2fbd2177d2fd0e5090d8e87c0fa31806cfb895c12f",
        licence="MIT",
    ),
    "retinaface-resnet50": Published(
        file="detection_Resnet50_Final.pth",
        url=f"{_FACEXLIB}/detection_Resnet50_Final.pth",
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        licence="MIT",
    ),
}

# Networks that judge, by the metric of `metrics/suite.py` that wants them. The others' lie inside packages.
METRIC_WEIGHTS = {
    # either torchvision's whole AlexNet, published at this address, or its feature layers alone
    "lpips": Published(
        file="alexnet_features.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256=None,
        licence="BSD-3-Clause",
    ),
}

# Networks that enlarge whole pictures, by the names that --background takes. The digests are those that many who
# fetched the authors' release files have written down.
_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
UPSCALER_WEIGHTS = {
    "realesrgan-x2plus": Published(
        file="RealESRGAN_x2plus.pth",
        url=f"{_REAL_ESRGAN}/v0.2.1/RealESRGAN_x2plus.pth",
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        licence="BSD-3-Clause",
    ),
    "realesrgan-x4plus": Published(
        file="RealESRGAN_x4plus.pth",
        url=f"{_REAL_ESRGAN}/v0.1.0/RealESRGAN_x4plus.pth",
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        licence="BSD-3-Clause",
    ),
}


def find_upscaler(choice: str) -> Published:
    """The file of a known name, or a weights file of one's own. Raises WeightsError for a name that is neither."""
    if choice in UPSCALER_WEIGHTS:
        return UPSCALER_WEIGHTS[choice]
    path = Path(choice).expanduser()
    if not path.suffix:
        raise WeightsError(
            f"background network {choice!r} is not known; choose one of {', '.join(UPSCALER_WEIGHTS)}, or give a "
            "weights file (.pth, .safetensors)"
        )
    return Published(str(path.absolute()) if path.is_file() else choice, None, None, "unknown")


def resolve(
    file: str, url: str | None = None, sha256: str | None = None, weights_dir: str | None = None
) -> Resolved:
    """The weights file of this name, on this machine, with its digest.

    file: a name, or a path that is taken as it is where it exists. Looked for in this order: that path, the package,
    `weights_dir` (a folder or a remote prefix), the cache, the published address. Raises WeightsError when it is
    nowhere or its digest is not `sha256`.
    """
    name = Path(file).name
    wanted = sha256.lower() if sha256 else None
    found = next(copies(file, None, weights_dir), None)
    if found is not None:
        with _explained(name, found.file.uri):
            return _taken(found, name, wanted)
    if url is not None:
        return _downloaded(name, url, wanted)
    given = [str(Path(file).expanduser())] if name != file else []
    places = [*given, "the package", *([weights_dir] if weights_dir else []), str(cache_dir())]
    raise WeightsError(
        f"weights file {name} is in none of {', '.join(places)}, and it has no published address; "
        "put it into a folder and give that as --weights-dir"
    )


def copies(file: str, url: str | None = None, weights_dir: str | None = None) -> Iterator[Copy]:
    """The files of this name that are there, in the order in which `resolve` looks; nothing is fetched or read.

    The cache of the published address is looked into where `url` is given. Raises WeightsError when `weights_dir` is
    no folder or can not be asked.
    """
    name = Path(file).name
    if name != file and (path := Path(file).expanduser()).is_file():
        yield Copy("path", store.stat(str(path.absolute())))
    if (path := PACKAGED / name).is_file():
        yield Copy("package", store.stat(str(path)))
    if weights_dir is not None and (found := _in_weights_dir(name, weights_dir)) is not None:
        yield Copy("weights-dir", found)
    for path in (cache_dir() / name, *([_cache_path(url, name)] if url else [])):
        if path.is_file():
            yield Copy("cache", store.stat(str(path.absolute())))


def cache_dir() -> Path:
    """The folder of this machine where fetched files stay: $DIFFACE_CACHE, else ~/.cache/difface."""
    return Path(os.environ.get("DIFFACE_CACHE") or Path.home() / ".cache" / "difface").expanduser()


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
            f"{beside} holds no sha256; delete it, and it is written anew when the file is fetched"
        )
    return line[1]


def record(uri: str, digest: str, source: str | None = None, licence: str | None = None) -> None:
    """Write beside a weights file what it is; `sha256sum --check` reads it, too. Raises store.StoreError."""
    notes = [f"# {what}: {text}" for what, text in (("from", source), ("licence", licence)) if text]
    lines = [*notes, f"{digest}  {store.name_of(uri)}"]
    store.write_bytes(f"{uri}{RECORD}", "".join(f"{line}\n" for line in lines).encode())


def mirror(found: Resolved, folder: str, source: str | None, licence: str) -> bool:
    """Copy a weights file into a folder or prefix, whole or not at all, and record it there; whether it was missing.

    A file that is there is read and compared. Raises WeightsError when another one has the name, store.StoreError.
    """
    uri = store.join(folder, found.path.name)
    there = digest_of(uri) if store.exists(uri) else None
    if there not in (None, found.sha256) and recorded(uri) != found.sha256:
        raise WeightsError(
            f"{uri} is another file than {found.path}: its sha256 is {there} and not {found.sha256}; "
            "mirror to another place, or delete it there first"
        )
    if there != found.sha256:
        store.write_file(uri, found.path)
    if recorded(uri) != found.sha256:
        record(uri, found.sha256, source, licence)
    return there != found.sha256


def discard(found: Resolved) -> bool:
    """Remove a fetched file, and its record, that proved to be something else; whether it was one of ours to remove."""
    ours = found.path.is_relative_to(cache_dir().absolute())
    if ours:
        found.path.unlink(missing_ok=True)
        found.path.with_name(f"{found.path.name}{RECORD}").unlink(missing_ok=True)
    return ours


def _in_weights_dir(name: str, weights_dir: str) -> store.Entry | None:
    """The file in the user's folder; None when it is not there."""
    if not store.is_remote(weights_dir):
        folder = Path(weights_dir.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise WeightsError(
                f"--weights-dir {weights_dir} is not a folder; give the folder that holds {name}"
            )
        path = (folder / name).absolute()
        return store.stat(str(path)) if path.is_file() else None
    uri = store.join(weights_dir, name)
    with _explained(name, weights_dir):
        return store.stat(uri) if store.exists(uri) else None


@contextmanager
def _explained(name: str, place: str) -> Iterator[None]:
    """A storage that does not answer is a weights file that can not be had."""
    try:
        yield
    except store.StoreError as error:
        raise WeightsError(f"weights file {name} could not be read from {place}: {error}") from error


@dataclass(frozen=True)
class _Expected:
    """The digest that a file must have, None where nobody knows it, and what to do when it has another."""

    digest: str | None
    remedy: str = "fetch it again or correct the preset"

    def allows(self, digest: str) -> bool:
        return self.digest in (None, digest)


def _expected(wanted: str | None, *uris: str) -> _Expected:
    """What the preset wants; where it says nothing, what was recorded beside the first of these files that has it."""
    if wanted is not None:
        return _Expected(wanted)
    for uri in uris:
        if (digest := recorded(uri)) is not None:
            return _Expected(digest, f"delete {uri}{RECORD}, which wants it, where the new one is right")
    return _Expected(None)


def _taken(found: Copy, name: str, wanted: str | None) -> Resolved:
    """The copy on this machine, with the digest that is wanted of it."""
    uri = found.file.uri
    if not store.is_remote(uri):
        digest, expected = file_sha256(Path(uri)), _expected(wanted, uri)
        if not expected.allows(digest):
            raise _wrong_digest(uri, expected, digest)
        return Resolved(Path(uri), digest)

    def fetch(partial: Path) -> None:
        with store.open_read(uri) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, PIECE)

    # The version is part of the address: a replaced object is another file.
    path = _cache_path(f"{uri}@{found.file.version}", name)
    return _cached(path, fetch, _expected(wanted, uri, str(path)), uri)


def _downloaded(name: str, url: str, wanted: str | None) -> Resolved:
    if not url.startswith(("https://", "http://")):
        raise WeightsError(
            f"weights file {name}: its address must start with https:// or http://, got {url}; "
            "correct the preset or put the file into --weights-dir"
        )
    path = _cache_path(url, name)
    with _explained(name, url):
        return _cached(path, lambda partial: download(url, partial), _expected(wanted, str(path)), url)


def _cache_path(address: str, name: str) -> Path:
    # The address takes part in the path: files of one name from two places are two files.
    return cache_dir().absolute() / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def _cached(path: Path, fetch: Callable[[Path], None], expected: _Expected, source: str) -> Resolved:
    """The cached file, fetched first where it is not there; one process fetches while others wait."""
    try:
        # First without the lock, which a cache that may only be read would not give.
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
                raise _wrong_digest(f"{path.name} from {source}", expected, digest)
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
            "make room there or set DIFFACE_CACHE to another folder"
        ) from error


def _whole(path: Path, expected: _Expected) -> Resolved | None:
    """A cached file that is there and, where its digest is known, undamaged."""
    if not path.is_file():
        return None
    digest = file_sha256(path)
    return Resolved(path, digest) if expected.allows(digest) else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process or thread of this machine at a time; let go by the system when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wrong_digest(what: str, expected: _Expected, digest: str) -> WeightsError:
    return WeightsError(
        f"weights file {what}: wanted sha256 {expected.digest}, got {digest}; it is another file or a damaged one, "
        f"{expected.remedy}"
    )


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file, computed once a process while size and time of change stay the same."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=64)
def _file_sha256(path: Path, _size: int, _changed: int, _inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, partial: Path) -> None:
    """Fetch a published file into `partial`, going on where an earlier try stopped.

    What was fetched is only continued while the server says that it still has the same file. Raises WeightsError
    when the address does not answer, refuses, or breaks off again and again.
    """
    report = _Progress(url.rsplit("/", 1)[-1])
    failures, why = 0, ""
    while failures < TRIES:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            if _fetch_rest(url, partial, report):
                return
            why = "the connection broke off"
        except urllib.error.HTTPError as error:
            why = f"the server answered {error.code} {error.reason}"
            if error.code == HTTP_RANGE_REFUSED:
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return  # nothing is missing: an earlier process ended between the last byte and the final name
                forget(partial)
            elif error.code < 500 and error.code not in (
                408,
                429,
            ):  # neither a time-out nor too many requests
                break
        except _BROKEN as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        grown = partial.exists() and partial.stat().st_size > before
        failures = 0 if grown else failures + 1
        time.sleep(random.uniform(0.5, 1.0) * 0.5 * 2**failures if failures < TRIES else 0)
    raise WeightsError(
        f"{url} could not be fetched: {why}; run again to go on where it stopped, or fetch it by other means and "
        "give its folder as --weights-dir"
    )


def _fetch_rest(url: str, partial: Path, report: "_Progress") -> bool:
    """One request for what is still missing; whether the file is complete now."""
    mark = _mark(partial)
    have = partial.stat().st_size if partial.exists() and mark.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "difface"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark.read_text())
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != HTTP_PARTIAL:
            have = 0  # the server starts over: it knows no ranges, or has another file by now
        total = _total_size(answer, have)
        validator = _validator(answer)
        if have == 0:
            forget(partial)
        if validator:
            mark.write_text(validator)
        with partial.open("ab" if have else "wb") as target:
            while piece := answer.read(PIECE):
                target.write(piece)
                have += len(piece)
                report(have, total)
    return total is None or have >= total


def _total_size(answer: Any, have: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return have + int(length) if length is not None else None


def _validator(answer: Any) -> str | None:
    """What proves that a later answer is of the same file: a strong ETag, else the time of change."""
    tag: str | None = answer.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    changed: str | None = answer.headers.get("Last-Modified")
    return changed


def _mark(partial: Path) -> Path:
    """Where the validator of a partial file is kept."""
    return partial.with_name(f"{partial.name}.from")


def forget(partial: Path) -> None:
    """Remove a partial file and what belongs to it."""
    partial.unlink(missing_ok=True)
    _mark(partial).unlink(missing_ok=True)


class _Progress:
    """Says on standard error how far a download is: one line rewritten on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, have: int, total: int | None) -> None:
        finished = total is not None and have >= total
        if time.monotonic() < self._next and not finished:
            return
        self._next = time.monotonic() + REPORT_EVERY[0 if self._terminal else 1]
        done = f" of {total / 1e6:.1f} MB ({100 * have // max(total, 1)} %)" if total is not None else " MB"
        end = "\n" if finished or not self._terminal else ""
        start = "\r" if self._terminal else ""
        sys.stderr.write(f"{start}fetching {self._name}: {have / 1e6:.1f}{done}{end}")
        sys.stderr.flush()
