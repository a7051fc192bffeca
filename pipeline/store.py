"""Files by URI: a local path, or anything fsspec opens (`s3://bucket/key`). The only file that imports fsspec or s3fs.

Credentials and endpoints of S3 come the standard AWS way (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_PROFILE, ...).
Every S3 request is tried again after passing errors, by botocore, with jittered exponential back-off. Safe to use
from threads and in forked or spawned workers: fsspec keeps one client per process.
"""

import errno
import os
import posixpath
import random
import re
import secrets
import stat as modes
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import fsspec

# one readahead of a streamed object
BLOCK_BYTES = 8 << 20
# tries of one S3 request, botocore's "standard" mode: jittered, doubling, at most 20 s apart
ATTEMPTS = 6
# hidden by its dot; the same name every time, so that rights without delete leave one empty object at most
PROBE = ".write-check"
# ends the hidden name under which a local file is written before it gets its own; no input's name ends so
TEMPORARY = ".difface-part"

_PRECONDITION_FAILED = 412
_CONFLICT = 409


class StoreError(Exception):
    """A file could not be listed, read or written; one sentence, never with credentials."""


@dataclass(frozen=True)
class Entry:
    """One file of a listing."""

    uri: str
    # relative to the listed root, '/' between its parts
    path: str
    # bytes
    size: int
    # changes with the content: the ETag of an object, "size-mtime_ns" of a local file
    version: str


class NameRefused(StoreError):
    """A file could not be made because the store takes no such name; others can be."""


def is_remote(uri: str) -> bool:
    """Whether the URI names something that is not a local file."""
    return "://" in uri and not uri.startswith("file://")


def join(uri: str, *parts: str) -> str:
    """The URI of what lies at `parts` below `uri`."""
    return posixpath.join(uri, *parts)


def name_of(uri: str) -> str:
    """The last part of the URI."""
    return posixpath.basename(uri.rstrip("/"))


def list_files(uri: str) -> list[Entry]:
    """All files below `uri`, sorted by path; a file gives itself. Names that start with a dot are left out.

    Raises StoreError when nothing is there.
    """
    entries = _list_remote(uri) if is_remote(uri) else _list_local(uri)
    return sorted(entries, key=lambda entry: entry.path)


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StoreError when that can not be found out."""
    if not is_remote(uri):
        return _local(uri).exists()
    with _explained("look for", uri):
        return bool(_filesystem(uri).exists(uri))


def stat(uri: str) -> Entry:
    """Size and version of one file. Raises StoreError when there is no such file."""
    with _explained("look up", uri):
        if not is_remote(uri):
            return _local_entry(uri, _local(uri), name_of(uri))
        info = _filesystem(uri).info(uri)
        if info["type"] != "file":
            raise IsADirectoryError(uri)
        return _remote_entry(uri, info, name_of(uri))


def open_read(uri: str) -> BinaryIO:
    """The file, buffered and seekable; close it, or use it in a `with`. Raises StoreError when it can not be opened."""
    with _explained("read", uri):
        if not is_remote(uri):
            return _local(uri).open("rb")
        # asked for here, because fsspec would find a missing object only at the first read
        size = _filesystem(uri).info(uri)["size"]
        opened = _filesystem(uri).open(uri, "rb", block_size=BLOCK_BYTES, cache_type="readahead", size=size)
        return cast(BinaryIO, opened)


def read_bytes(uri: str) -> bytes:
    """The whole content of a file. Raises StoreError."""
    with _explained("read", uri):
        return cast(bytes, _filesystem(uri).cat_file(uri)) if is_remote(uri) else _local(uri).read_bytes()


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of a file. Raises StoreError, also when the file ends before that."""
    with _explained("read", uri):
        if length == 0:
            return b""
        if is_remote(uri):
            data = _remote_range(uri, offset, length)
        else:
            with _local(uri).open("rb", buffering=0) as file:
                data = _pread(file.fileno(), length, offset)
    if len(data) != length:
        raise StoreError(
            f"{_shown(uri)}: {length} bytes at {offset} wanted, only {len(data)} are there; "
            "the file is shorter than when it was listed, list it again"
        )
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Make or replace a file, whole or not at all, creating local folders. Raises StoreError."""
    with _explained("write", uri):
        if is_remote(uri):
            _filesystem(uri).pipe_file(uri, data)
            return
        path = _local(uri)
        with _finished_beside(path, data) as finished:
            os.replace(finished, path)
        _sync_folder(path.parent)


def create_bytes(uri: str, data: bytes) -> bool:
    """Make a file that must not exist yet; True when we made it, False when somebody was first. Raises StoreError.

    Of several callers exactly one gets True, on S3 by a conditional put (If-None-Match). A put whose answer was
    lost on the way and that is tried again finds its own object: then nobody gets True, and the file is there.
    """
    with _explained("write", uri):
        return _create_remote(uri, data) if is_remote(uri) else _create_local(_local(uri), data)


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error. Raises StoreError."""
    with _explained("delete", uri):
        if not is_remote(uri):
            _local(uri).unlink(missing_ok=True)
            return
        try:
            _filesystem(uri).rm_file(uri)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise


def sweep(uri: str) -> None:
    """Remove what killed writers left half-written below a folder, where nobody may write now. Raises StoreError.

    An object store has no such thing: what was not written whole is not there.
    """
    if is_remote(uri):
        return
    with _explained("clear", uri):
        for folder, _, files in os.walk(_local(uri)):
            for name in files:
                if name.startswith(".") and name.endswith(TEMPORARY):
                    Path(folder, name).unlink(missing_ok=True)


def check_readable(uri: str) -> None:
    """Return when `uri` holds a file or a folder with something in it that we may read; else raise StoreError."""
    with _explained("read", uri):
        if not is_remote(uri):
            path = _local(uri)
            if path.is_dir():
                next(path.iterdir(), None)
            else:
                path.open("rb").close()
            return
        filesystem = _filesystem(uri)
        if _is_s3(uri):
            bucket, key, _ = filesystem.split_path(uri)
            found = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
            if not found.get("KeyCount", 0):
                raise FileNotFoundError(uri)
        else:
            filesystem.info(uri)


def check_writable(uri: str) -> None:
    """Return when files can be made below the folder `uri`; else raise StoreError. Leaves nothing behind."""
    with _explained("write to", uri):
        if is_remote(uri):
            probe = join(uri, PROBE)
            _filesystem(uri).pipe_file(probe, b"")
            # rights that let us write but not delete are enough for everything we do
            try:
                _filesystem(uri).rm_file(probe)
            except PermissionError:
                return
            return
        folder = _local(uri).absolute()
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(str(folder))
        # without a name where the file system can do that, so that one who is killed here leaves nothing
        tempfile.TemporaryFile(dir=folder).close()


# ---- local files


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _local_entry(uri: str, path: Path, relative: str) -> Entry:
    found = path.stat()
    if not modes.S_ISREG(found.st_mode):
        raise IsADirectoryError(uri)
    return Entry(uri, relative, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _list_local(uri: str) -> Iterator[Entry]:
    root = _local(uri)
    with _explained("list", uri):
        if not root.is_dir():
            yield _local_entry(uri, root, root.name)
            return

    def give_up(error: OSError) -> NoReturn:
        raise StoreError(_sentence("list", error.filename or uri, error)) from error

    for folder, folders, files in os.walk(root, onerror=give_up):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            # a link to nowhere, a socket or a pipe holds no bytes that we could restore
            if name.startswith(".") or not path.is_file():
                continue
            relative = path.relative_to(root).as_posix()
            with _explained("list", str(path)):
                yield _local_entry(join(uri, relative), path, relative)


def _pread(file: int, length: int, offset: int) -> bytes:
    """Up to `length` bytes; fewer only at the end of the file (one pread gives 2 GiB at most)."""
    data = os.pread(file, length, offset)
    while data and len(data) < length:
        more = os.pread(file, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


@contextmanager
def _finished_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A hidden file with `data` on the disk, in the folder of `path`; gone at the end of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # short, because `path` may already have the longest name that the file system allows
    beside = path.parent / f".{secrets.token_hex(8)}{TEMPORARY}"
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _create_local(path: Path, data: bytes) -> bool:
    with _finished_beside(path, data) as finished:
        try:
            os.link(finished, path)
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    """Make the folder's new name survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- remote files


def _is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def _filesystem(uri: str) -> Any:
    """fsspec's file system for the URI; the same object for every call in this process."""
    options: dict[str, Any] = {}
    if _is_s3(uri):
        options = {
            "config_kwargs": {"retries": {"mode": "standard", "max_attempts": ATTEMPTS}},
            # a listing must show what other workers wrote a moment ago
            "use_listings_cache": False,
        }
    filesystem, _ = fsspec.core.url_to_fs(uri, **options)
    return filesystem


def _remote_entry(uri: str, info: dict[str, Any], relative: str) -> Entry:
    version = (
        info.get("ETag") or info.get("etag") or f"{info['size']}-{info.get('mtime', info.get('created'))}"
    )
    return Entry(uri, relative, int(info["size"]), str(version).strip('"'))


def _list_remote(uri: str) -> Iterator[Entry]:
    with _explained("list", uri):
        filesystem = _filesystem(uri)
        root = filesystem._strip_protocol(uri).rstrip("/")
        found = filesystem.find(root, detail=True)
        if not found and not filesystem.exists(root):
            raise FileNotFoundError(uri)
    for name, info in found.items():
        relative = name[len(root) :].lstrip("/")
        if not relative:
            yield _remote_entry(uri, info, name_of(uri))
        # a name that ends with a slash is some console's idea of a folder
        elif info["type"] == "file" and not name.endswith("/") and not re.search(r"(^|/)\.", relative):
            yield _remote_entry(join(uri, relative), info, relative)


def _remote_range(uri: str, offset: int, length: int) -> bytes:
    try:
        return cast(bytes, _filesystem(uri).cat_file(uri, start=offset, end=offset + length))
    except OSError as error:
        if _code(error) == "InvalidRange":
            return b""
        raise


def _create_remote(uri: str, data: bytes) -> bool:
    for attempt in range(ATTEMPTS):
        try:
            _filesystem(uri).pipe_file(uri, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # s3fs reports a lost race as EINVAL; the status behind it tells
            if _http_status(error) == _PRECONDITION_FAILED:
                return False
            # AWS's answer to puts that crossed each other: nobody has won yet, try again
            if _http_status(error) != _CONFLICT or attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        else:
            return True
    raise AssertionError("unreachable")


# ---- errors


@contextmanager
def _explained(deed: str, uri: str) -> Iterator[None]:
    """Turn what goes wrong in the block into a StoreError of one sentence.

    A remote error is not kept as the cause: its text and attributes may hold parts of the signed request.
    """
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError, ImportError) as error:
        refused = deed == "write" and _is_about_the_name(error)
        raise (NameRefused if refused else StoreError)(_sentence(deed, uri, error)) from (
            None if is_remote(uri) else error
        )
    except Exception as error:
        # botocore's own errors share no ancestor with Python's; everything else is a mistake of ours
        if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise
        raise StoreError(_sentence(deed, uri, error)) from None


# Too long, bytes that the file system does not take, or a file where a folder is wanted and the other way round.
_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST})


def _is_about_the_name(error: BaseException) -> bool:
    if isinstance(error, UnicodeEncodeError) or _code(error) == "KeyTooLongError":
        return True
    return isinstance(error, OSError) and error.errno in _OF_NAMES and not _code(error)


def _sentence(deed: str, uri: str, error: BaseException) -> str:
    return f"could not {deed} {_shown(uri)}: {_reason(uri, error)}"


def _reason(uri: str, error: BaseException) -> str:
    """What happened and what to do about it."""
    by_code = {
        "NoSuchBucket": f"the bucket {_bucket(uri)!r} does not exist; create it or correct the address",
        "InvalidAccessKeyId": "the server does not know the access key; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
        "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the session has expired; renew the credentials",
    }
    by_name = {
        "NoCredentialsError": _NO_CREDENTIALS,
        "PartialCredentialsError": _NO_CREDENTIALS,
        "ProfileNotFound": "AWS_PROFILE names a profile that is not configured; correct it",
        "EndpointConnectionError": _NO_ANSWER,
        "ConnectTimeoutError": _NO_ANSWER,
        "ReadTimeoutError": _NO_ANSWER,
    }
    by_kind: list[tuple[type[BaseException], str]] = [
        (FileNotFoundError, "there is nothing of that name; correct the address"),
        (
            PermissionError,
            "the rights or credentials we have do not allow it; ask for the right or use others",
        ),
        (NotADirectoryError, "a file stands where a folder was wanted; choose another place"),
        (IsADirectoryError, "it is not a file; give the address of one file"),
        (TimeoutError, _NO_ANSWER),
    ]
    if known := by_code.get(_code(error)) or by_name.get(type(error).__name__):
        return known
    if known := next((text for kind, text in by_kind if isinstance(error, kind)), None):
        return known
    if isinstance(error, OSError) and error.errno and not is_remote(uri):
        return f"{os.strerror(error.errno)}; put that right and try again"
    return f"{type(error).__name__}: {_without_secrets(str(error))}"


_NO_CREDENTIALS = (
    "no complete credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
_NO_ANSWER = "the server does not answer; check AWS_ENDPOINT_URL and the network"


def _response(error: BaseException) -> dict[str, Any]:
    """The S3 answer behind an error, or {}: s3fs translates botocore's error and keeps it as the cause."""
    response = getattr(error.__cause__ or error, "response", None)
    return response if isinstance(response, dict) else {}


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _http_status(error: BaseException) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _bucket(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


def _shown(uri: str) -> str:
    """The URI without the user and password that some protocols carry in it."""
    return re.sub(r"://[^/@]*@", "://", uri)


def _without_secrets(text: str) -> str:
    """One line of `text`, without any credential of this process."""
    line = " ".join(_shown(text).split())
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        if value := os.environ.get(name):
            line = line.replace(value, "***")
    return line
