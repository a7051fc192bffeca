"""Files by URI: a local path, or anything fsspec opens (`s3://bucket/key`). The only file that imports fsspec or s3fs.

Credentials and endpoints of S3 come the standard AWS way (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_PROFILE, ...).
Every S3 request is tried again after passing errors (pipeline/objects.py). Safe to use from threads and in forked or
spawned workers: fsspec keeps one client per process.
"""

import errno
import mmap
import os
import posixpath
import re
import secrets
import stat as modes
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast

import fsspec
from fsspec.asyn import sync

from pipeline import objects
from pipeline.delivery import redact

# hidden by its dot; the same name every time, so that rights without delete leave one empty object at most
PROBE = ".write-check"
# ends the hidden name under which a local file is written before it gets its own; no input's name ends so
TEMPORARY = ".difface-part"

_PRECONDITION_FAILED = 412

T = TypeVar("T")


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
        if not _is_s3(uri):
            return bool(_filesystem(uri).exists(uri))
        return _head(uri) is not None or _first_below(uri) is not None


def stat(uri: str) -> Entry:
    """Size and version of one file. Raises StoreError when there is no such file."""
    with _explained("look up", uri):
        if not is_remote(uri):
            return _local_entry(uri, _local(uri), name_of(uri))
        if _is_s3(uri):
            return _s3_entry(uri)
        info = _filesystem(uri).info(uri)
        if info["type"] != "file":
            raise IsADirectoryError(uri)
        return _remote_entry(uri, info, name_of(uri))


def open_read(uri: str) -> BinaryIO:
    """The file, buffered and seekable; close it, or use it in a `with`. Raises StoreError when it can not be opened.

    Reading from S3 raises StoreError too, also when the object is replaced meanwhile.
    """
    with _explained("read", uri):
        if not is_remote(uri):
            return _local(uri).open("rb")
        if not _is_s3(uri):
            # asked for here, because fsspec would find a missing file only at the first read
            size = _filesystem(uri).info(uri)["size"]
            block = objects.LARGEST_BLOCK
            opened = _filesystem(uri).open(uri, "rb", block_size=block, cache_type="readahead", size=size)
            return cast(BinaryIO, opened)
        found = _s3_entry(uri)

    def fetch(begin: int, end: int) -> bytes:
        return _exactly(uri, begin, end - begin, found.version)

    return cast(BinaryIO, objects.RangeReader(fetch, found.size))


def read_bytes(uri: str) -> bytes:
    """The whole content of a file. Raises StoreError."""
    with _explained("read", uri):
        if _is_s3(uri):
            return _ask(uri, objects.read_range, _place(uri), 0, sys.maxsize)
        return cast(bytes, _filesystem(uri).cat_file(uri)) if is_remote(uri) else _local(uri).read_bytes()


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of a file. Raises StoreError, also when the file ends before that."""
    return _exactly(uri, offset, length)


def _exactly(uri: str, offset: int, length: int, version: str = "") -> bytes:
    """As `read_range`; of an S3 object that version only."""
    with _explained("read", uri):
        if length == 0:
            return b""
        if _is_s3(uri):
            data = _ask(uri, objects.read_range, _place(uri), offset, offset + length, version)
        elif is_remote(uri):
            data = cast(bytes, _filesystem(uri).cat_file(uri, start=offset, end=offset + length))
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
        if _is_s3(uri):
            _ask(uri, objects.put, _place(uri), data)
        elif is_remote(uri):
            _filesystem(uri).pipe_file(uri, data)
        else:
            path = _local(uri)
            with _finished_beside(path, data) as finished:
                os.replace(finished, path)
            _sync_folder(path.parent)


def write_file(uri: str, path: Path) -> None:
    """Copy a local file to a URI, whole or not at all, without reading it whole into memory. Raises StoreError."""
    with _explained("write", uri), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < 2 * objects.PART_BYTES:
            write_bytes(uri, file.read())
        elif is_remote(uri) and not _is_s3(uri):
            _filesystem(uri).put_file(str(path), uri)
        else:
            # its pieces are read from the disk where they are asked for
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                write_bytes(uri, cast(bytes, data))


def create_bytes(uri: str, data: bytes) -> bool:
    """Make a file that must not exist yet; True when we made it, False when somebody was first. Raises StoreError.

    Of several callers exactly one gets True, on S3 by a conditional put (If-None-Match). A put whose answer was
    lost on the way and that is tried again finds its own object: then nobody gets True, and the file is there.
    """
    with _explained("write", uri):
        return _create_remote(uri, data) if is_remote(uri) else _create_local(_local(uri), data)


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error, nor asks for the right. Raises StoreError."""
    with _explained("delete", uri):
        if not is_remote(uri):
            _local(uri).unlink(missing_ok=True)
        elif _is_s3(uri):
            try:
                _ask(uri, objects.ask, "delete_object", **_place(uri))
            except PermissionError:
                if _head(uri) is not None:
                    raise
        else:
            with suppress(FileNotFoundError):
                _filesystem(uri).rm_file(uri)


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
        if _is_s3(uri):
            below = _first_below(uri, objects.CHECK_ATTEMPTS)
            # to list and to read are two rights; of an archived object this asks for no more than the right
            key = _place(uri)["Key"] if below is None else below
            if not key or _ask(uri, objects.head, _place(uri) | {"Key": key}) is None:
                raise FileNotFoundError(uri)
        elif is_remote(uri):
            _filesystem(uri).info(uri)
        elif _local(uri).is_dir():
            next(_local(uri).iterdir(), None)
        else:
            _local(uri).open("rb").close()


def check_writable(uri: str) -> None:
    """Return when files can be made below the folder `uri`; else raise StoreError. Leaves nothing behind."""
    with _explained("write to", uri):
        probe = join(uri, PROBE)
        if _is_s3(uri):
            _ask(uri, objects.ask, "put_object", attempts=objects.CHECK_ATTEMPTS, Body=b"", **_place(probe))
            # rights that let us write but not delete are enough for everything we do
            with suppress(PermissionError):
                _ask(uri, objects.ask, "delete_object", **_place(probe))
            return
        if is_remote(uri):
            _filesystem(uri).pipe_file(probe, b"")
            _filesystem(uri).rm_file(probe)
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
    # a listing must show what other workers wrote a moment ago
    options = {"config_kwargs": objects.OPTIONS, "use_listings_cache": False} if _is_s3(uri) else {}
    filesystem, _ = fsspec.core.url_to_fs(uri, **options)
    if _is_s3(uri):
        # of a whole call, around botocore's of a request
        filesystem.retries = 1
    return filesystem


def _ask(uri: str, deed: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
    """The result of a coroutine of pipeline/objects.py."""
    filesystem = _filesystem(uri)
    return cast(T, sync(filesystem.loop, deed, filesystem, *args, **options))


def _place(uri: str) -> objects.Place:
    """Bucket and Key of an object. Raises StoreError for credentials in the address: what we show and record has it."""
    netloc, _, rest = uri.partition("://")[2].partition("/")
    if "@" in netloc or (":" in netloc and "@" in rest and not netloc.startswith("arn:")):
        raise StoreError(
            f"{uri.partition('://')[0]}://***: an address without credentials was wanted; "
            "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    bucket, key, _ = _filesystem(uri).split_path(uri)
    return {"Bucket": bucket, "Key": key}


def _folder(key: str) -> str:
    """What the keys of everything below a folder begin with."""
    return f"{key.rstrip('/')}/" if key else ""


def _head(uri: str) -> dict[str, Any] | None:
    """Size and ETag of an object; None where there is none."""
    place = _place(uri)
    return _ask(uri, objects.head, place) if place["Key"] else None


def _first_below(uri: str, attempts: int = 0) -> str | None:
    """The first key below a folder."""
    place = _place(uri)
    return _ask(uri, objects.first_below, place["Bucket"], _folder(place["Key"]), attempts)


def _s3_entry(uri: str) -> Entry:
    found = _head(uri)
    if found is None:
        # asks for the bucket, too, which the answer above does not tell of
        raise FileNotFoundError(uri) if _first_below(uri) is None else IsADirectoryError(uri)
    return Entry(uri, name_of(uri), int(found["ContentLength"]), str(found.get("ETag", "")).strip('"'))


def _remote_entry(uri: str, info: dict[str, Any], relative: str) -> Entry:
    version = (
        info.get("ETag") or info.get("etag") or f"{info['size']}-{info.get('mtime', info.get('created'))}"
    )
    return Entry(uri, relative, int(info["size"]), str(version).strip('"'))


def _list_remote(uri: str) -> Iterator[Entry]:
    with _explained("list", uri):
        if _is_s3(uri):
            place = _place(uri)
            root = _folder(place["Key"])
            listed = _ask(uri, objects.list_below, place["Bucket"], root)
            infos = {o["Key"]: {"type": "file", "size": o["Size"], "ETag": o["ETag"]} for o in listed}
            if not infos and root:
                yield _s3_entry(uri)
                return
        else:
            filesystem = _filesystem(uri)
            root = filesystem._strip_protocol(uri).rstrip("/")
            infos = filesystem.find(root, detail=True)
            if not infos and not filesystem.exists(root):
                raise FileNotFoundError(uri)
    for name, info in infos.items():
        relative = name[len(root) :].lstrip("/")
        if not relative:
            yield _remote_entry(uri, info, name_of(uri))
        # a name that ends with a slash is some console's idea of a folder
        elif info["type"] == "file" and not name.endswith("/") and not re.search(r"(^|/)\.", relative):
            yield _remote_entry(join(uri, relative), info, relative)


def _create_remote(uri: str, data: bytes) -> bool:
    try:
        if _is_s3(uri):
            _ask(uri, objects.put, _place(uri), data, create=True)
        else:
            _filesystem(uri).pipe_file(uri, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # s3fs reports a lost race as EINVAL; the status behind it tells
        if objects.status(error) == _PRECONDITION_FAILED:
            return False
        raise
    return True


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
    if isinstance(error, UnicodeEncodeError) or objects.code(error) == "KeyTooLongError":
        return True
    return isinstance(error, OSError) and error.errno in _OF_NAMES and not objects.code(error)


def _sentence(deed: str, uri: str, error: BaseException) -> str:
    return f"could not {deed} {_shown(uri)}: {_reason(uri, error)}"


def _reason(uri: str, error: BaseException) -> str:
    """What happened and what to do about it."""
    by_code = {
        "NoSuchBucket": f"the bucket {_bucket(uri)!r} does not exist; create it or correct the address",
        "InvalidAccessKeyId": "the server does not know the access key; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
        "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the session has expired; renew the credentials",
        **dict.fromkeys(
            ("SlowDown", "503", "429"), "the server turns us away for too many requests; use fewer readers"
        ),
    }
    by_name = {
        "NoCredentialsError": _NO_CREDENTIALS,
        "PartialCredentialsError": _NO_CREDENTIALS,
        "ProfileNotFound": "AWS_PROFILE names a profile that is not configured; correct it",
        "EndpointConnectionError": _NO_ANSWER,
        "ConnectTimeoutError": _NO_ANSWER,
        "ReadTimeoutError": _NO_ANSWER,
        "AioReadTimeoutError": _NO_ANSWER,
        "Changed": "it was replaced while it was being read; leave it alone during a run",
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
    if known := by_code.get(objects.code(error)) or by_name.get(type(error).__name__):
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


def _bucket(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


def _shown(uri: str) -> str:
    """The URI without the user and password that some protocols carry in it."""
    return redact(uri)


# of a signed request, in a header or an address
_SIGNED = re.compile(
    r"(?i)\b(credential|signature|x-amz-security-token|authorization)([\"']?\s*[=:]\s*)[^\s,&]+"
)


def _without_secrets(text: str) -> str:
    """One line of `text`, without any credential of this process."""
    line = _SIGNED.sub(r"\1\2***", redact(" ".join(text.split())))
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        if value := os.environ.get(name):
            line = line.replace(value, "***")
    return line
