"""Files by URI: a local path, or anything fsspec opens (`s3://bucket/key`). The only file that imports fsspec or s3fs.

Credentials and endpoints of S3 come the standard AWS way (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_PROFILE, ...).
Every S3 request is tried again after passing errors (pipeline/io/s3.py). Safe to use from threads and in forked or
spawned workers: fsspec keeps one client per process.
"""

import errno
import fcntl
import mmap
import os
import posixpath
import re
import secrets
import stat as modes
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast

import fsspec
from fsspec.asyn import sync

from pipeline import Refusal
from pipeline.io import exclusive, s3
from pipeline.io.errors import redact

# hidden by its dot; the same name every time, so that rights without delete leave one empty object at most
PROBE = ".write-check"
# ends the hidden name under which a local file is written before it gets its own; no input's name ends so
TEMPORARY = ".difface-part"

_PRECONDITION_FAILED = 412
# Seconds that a lock is waited for, and between two tries; it is held for milliseconds, unless by a suspended process.
LOCK_PATIENCE, LOCK_POLL = 30.0, 0.02

T = TypeVar("T")


class StoreError(Refusal):
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


class StoreFull(StoreError):
    """There is no room for what was to be written, or a quota is used up; the same command goes on once there is."""


# of an address; a name may hold the same signs further on
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_remote(uri: str) -> bool:
    """Whether the URI names something that is not a local file."""
    found = _PROTOCOL.match(uri)
    return found is not None and found[1] != "file"


def join(uri: str, *parts: str) -> str:
    """The URI of what lies at `parts` below `uri`, whatever the parts look like: nothing in them is a root."""
    for part in parts:
        uri = f"{uri}{part}" if not uri or uri.endswith("/") else f"{uri}/{part}"
    return uri


def absolute(uri: str) -> str:
    """A local path made absolute, for processes in other folders; other addresses as they are."""
    return uri if is_remote(uri) else str(Path(uri.removeprefix("file://")).expanduser().absolute())


def name_of(uri: str) -> str:
    """The last part of the URI."""
    return posixpath.basename(uri.rstrip("/"))


def list_files(
    uri: str,
    excluded: Callable[[str], bool] = lambda path: False,
    refused: Callable[[StoreError], None] | None = None,
) -> list[Entry]:
    """All files below `uri`, sorted by path; a file gives itself. Names that start with a dot are left out.

    excluded: whether the file of this path, or the folder with a slash at its end, is left out with everything below
    it; such a local folder is not even looked into. refused: is given the error of each local folder or file below
    `uri` that can not be looked at, which is then left out; without it, that error is raised.
    Raises StoreError when nothing is there.
    """
    if is_remote(uri):
        entries = [e for e in _list_remote(uri) if not any(map(excluded, _and_folders(e.path)))]
    else:
        entries = list(_list_local(uri, excluded, refused or _give_up))
    return sorted(entries, key=lambda entry: entry.path)


def listed() -> int:
    """How many files this process has listed so far; during a long listing it grows."""
    return s3.listed.total()


def _and_folders(path: str) -> Iterator[str]:
    """A path's folders, outermost first and each with a slash at its end, and the path."""
    yield from (path[: place + 1] for place, sign in enumerate(path) if sign == "/")
    yield path


def _give_up(error: StoreError) -> NoReturn:
    raise error


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StoreError when that can not be found out."""
    if not is_remote(uri):
        return _local(uri).exists()
    with _explained("look for", uri):
        if not _is_s3(uri):
            return bool(_filesystem(uri).exists(_path(uri)))
        return _head(uri) is not None or _first_below(uri) is not None


def stat(uri: str) -> Entry:
    """Size and version of one file. Raises StoreError when there is no such file."""
    with _explained("look up", uri):
        if not is_remote(uri):
            return _local_entry(uri, _local(uri), name_of(uri))
        if _is_s3(uri):
            return _s3_entry(uri)
        info = _filesystem(uri).info(_path(uri))
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
            filesystem, path = _filesystem(uri), _path(uri)
            size = filesystem.info(path)["size"]
            block = s3.LARGEST_BLOCK
            opened = filesystem.open(path, "rb", block_size=block, cache_type="readahead", size=size)
            return cast(BinaryIO, opened)
        found = _s3_entry(uri)

    def fetch(begin: int, end: int) -> bytes:
        return _exactly(uri, begin, end - begin, found.version)

    return cast(BinaryIO, s3.RangeReader(fetch, found.size))


def read_bytes(uri: str) -> bytes:
    """The whole content of a file. Raises StoreError."""
    with _explained("read", uri):
        if _is_s3(uri):
            return _ask(uri, s3.read_range, _place(uri), 0, sys.maxsize)
        if is_remote(uri):
            return cast(bytes, _filesystem(uri).cat_file(_path(uri)))
        return _local(uri).read_bytes()


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of a file. Raises StoreError, also when the file ends before that."""
    return _exactly(uri, offset, length)


def _exactly(uri: str, offset: int, length: int, version: str = "") -> bytes:
    """As `read_range`; of an S3 object that version only."""
    with _explained("read", uri):
        if length == 0:
            return b""
        if _is_s3(uri):
            data = _ask(uri, s3.read_range, _place(uri), offset, offset + length, version)
        elif is_remote(uri):
            data = cast(bytes, _filesystem(uri).cat_file(_path(uri), start=offset, end=offset + length))
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
            _ask(uri, s3.put, _place(uri), data)
        elif is_remote(uri):
            _filesystem(uri).pipe_file(_path(uri), data)
        else:
            path = _local(uri)
            with _finished_beside(path, data) as finished:
                os.replace(finished, path)
            _sync_folder(path.parent)


def rewrite_bytes(uri: str, data: bytes) -> None:
    """Replace a small file as `write_bytes`; on a full disk in its place, which takes no room. Raises StoreError."""
    try:
        write_bytes(uri, data)
    except StoreFull:
        if is_remote(uri):
            raise
        with _explained("write", uri), _local(uri).open("r+b") as file:
            file.write(data)
            file.truncate()
            os.fsync(file.fileno())


def write_file(uri: str, path: Path) -> None:
    """Copy a local file to a URI, whole or not at all, without reading it whole into memory. Raises StoreError."""
    with _explained("write", uri), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < 2 * s3.PART_BYTES:
            write_bytes(uri, file.read())
        elif is_remote(uri) and not _is_s3(uri):
            _filesystem(uri).put_file(str(path), _path(uri))
        else:
            # its pieces are read from the disk where they are asked for
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                write_bytes(uri, cast(bytes, data))


def create_bytes(uri: str, data: bytes) -> bool:
    """Make a file that must not exist yet; True when we made it, False when somebody was first. Raises StoreError.

    Of several callers exactly one gets True, on S3 by one plain conditional put (If-None-Match). A put whose answer
    was lost on the way and that is tried again finds its own object: then nobody gets True, and the file is there.
    What is larger than objects.LARGEST_CLAIM is refused everywhere: write it under a name made from its content, and
    let a small file claim that name.
    """
    if len(data) > s3.LARGEST_CLAIM:
        raise StoreError(
            f"could not write {_shown(uri)}: at most {s3.LARGEST_CLAIM} bytes can be made under the condition "
            f"that nothing is there, got {len(data)}; write them under a name of their own and let a small file name it"
        )
    with _explained("write", uri):
        return _create_remote(uri, data) if is_remote(uri) else _create_local(_local(uri), data)


def can_swap(uri: str) -> bool:
    """Whether `swap_bytes` works there."""
    return _is_s3(uri)


def version_of(uri: str) -> str:
    """The version of an object, as `Entry.version`; empty where there is none. Raises StoreError."""
    with _explained("look up", uri):
        found = _head(uri)
    return "" if found is None else str(found.get("ETag", "")).strip('"')


def swap_bytes(uri: str, data: bytes, version: str) -> bool:
    """Replace the object that has this version (empty: make one where there is none); False where another is there.

    By one conditional put. When its answer was lost and it is tried again, False may mean that it was our own. A
    server that knows no condition on a version replaces whatever there is. Raises StoreError.
    """
    with _explained("write", uri):
        return _swap(uri, data, version)


@contextmanager
def locked(uri: str, exclusive: bool) -> Iterator[None]:
    """Hold a lock on a local file, which is made where there is none; elsewhere, and without locks, do nothing.

    Raises StoreError where others hold it for longer than LOCK_PATIENCE.
    """
    if is_remote(uri):
        yield
        return
    path = _local(uri)
    with _explained("write", uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take_lock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, uri)
        yield
    finally:
        os.close(handle)


def _take_lock(handle: int, how: int, uri: str) -> None:
    give_up = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise StoreError(
                    f"{uri} was to be locked, another process has held it for {LOCK_PATIENCE:.0f} s; it may be "
                    "suspended: let it go on or end it, then start the same command again"
                ) from None
            time.sleep(LOCK_POLL)
        except OSError:
            return  # a file system without locks


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error, nor asks for the right. Raises StoreError."""
    with _explained("delete", uri):
        if not is_remote(uri):
            _local(uri).unlink(missing_ok=True)
        elif _is_s3(uri):
            try:
                _ask(uri, s3.ask, "delete_object", **_place(uri))
            except PermissionError:
                if _head(uri) is not None:
                    raise
        else:
            with suppress(FileNotFoundError):
                _filesystem(uri).rm_file(_path(uri))


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
            below = _first_below(uri, s3.CHECK_ATTEMPTS)
            # to list and to read are two rights; of an archived object this asks for no more than the right
            key = _place(uri)["Key"] if below is None else below
            if not key or _ask(uri, s3.head, _place(uri) | {"Key": key}, s3.CHECK_ATTEMPTS) is None:
                raise FileNotFoundError(uri)
        elif is_remote(uri):
            _filesystem(uri).info(_path(uri))
        elif _local(uri).is_dir():
            next(_local(uri).iterdir(), None)
        else:
            _local(uri).open("rb").close()


def check_claims(uri: str) -> None:
    """As `check_writable`, and of several who make one file below `uri` only one may win; else raise StoreError.

    A server that ignores conditions on a put would let two starts at once both drive one output.
    """
    if not _is_s3(uri):
        check_writable(uri)
        return
    # a start that checks at the same moment may delete the first from under us; the second is ours alone
    probes = (PROBE, f"{PROBE}-{secrets.token_hex(8)}")
    with _explained("write to", uri):
        if all(_made_again(join(uri, probe)) for probe in probes):
            raise StoreError(f"could not use {_shown(uri)}: {_NO_CONDITIONS}")


def _made_again(probe: str) -> bool:
    """Whether an object that is there can be made under the condition that it is not; it is deleted again."""
    _ask(probe, s3.ask, "put_object", attempts=s3.CHECK_ATTEMPTS, Body=b"", **_place(probe))
    try:
        return _create_remote(probe, b"", s3.CHECK_ATTEMPTS)
    except OSError as error:
        if s3.status(error) == 501:
            return True
        raise
    finally:
        _delete_probe(probe)


def _delete_probe(probe: str) -> None:
    # rights that let us write but not delete are enough for everything we do
    with suppress(PermissionError):
        _ask(probe, s3.ask, "delete_object", attempts=s3.CHECK_ATTEMPTS, **_place(probe))


def check_writable(uri: str) -> None:
    """Return when files can be made below the folder `uri`; else raise StoreError. Leaves nothing behind."""
    with _explained("write to", uri):
        probe = join(uri, PROBE)
        if _is_s3(uri):
            _ask(uri, s3.ask, "put_object", attempts=s3.CHECK_ATTEMPTS, Body=b"", **_place(probe))
            _delete_probe(probe)
            return
        if is_remote(uri):
            _filesystem(uri).pipe_file(_path(probe), b"")
            _filesystem(uri).rm_file(_path(probe))
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


def _list_local(
    uri: str, excluded: Callable[[str], bool], refused: Callable[[StoreError], None]
) -> Iterator[Entry]:
    root = _local(uri)
    with _explained("list", uri):
        if not root.is_dir():
            yield _local_entry(uri, root, root.name)
            return

    def pass_by(error: OSError) -> None:
        place = str(error.filename or uri)
        if isinstance(error, FileNotFoundError) and place != str(root):
            return  # it went while we walked
        said = StoreError(_sentence("list", place, error))
        if place == str(root):
            raise said from error
        refused(said)

    for folder, folders, files in os.walk(root, onerror=pass_by):
        below = Path(folder).relative_to(root).as_posix() if Path(folder) != root else ""
        folders[:] = [n for n in folders if not n.startswith(".") and not excluded(f"{join(below, n)}/")]
        lost: OSError | None = None
        for name in files:
            relative = join(below, name)
            if name.startswith(".") or excluded(relative):
                continue
            s3.listed["files"] += 1
            try:
                yield _local_entry(join(uri, relative), Path(folder, name), relative)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue  # a link to nowhere, a socket or a pipe holds no bytes that we could restore
            except OSError as error:
                if error.errno != errno.ELOOP:
                    lost = error
        # one that may be listed and not entered loses all its files for one reason
        if lost is not None:
            refused(StoreError(_sentence("look into", folder, lost)))


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
            exclusive.move(finished, path)
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    """Make the folder's new name survive a power cut, where the file system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


# What is answered where folders are kept in another way (CIFS, sshfs, others of FUSE), or may be written but not read.
_NO_FOLDER_SYNC = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES}
)


# ---- remote files


def _is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def _parts(uri: str) -> tuple[str, str, str]:
    """Protocol, host or bucket, and path without the slash between; the path is nobody's to interpret."""
    protocol, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    return protocol, host, path


def _filesystem(uri: str) -> Any:
    """fsspec's file system for the URI; the same object for every call in this process.

    fsspec sees no more of the URI than protocol and host: in a name it would take `::` for a chain of addresses, and
    `?`, `#` and `*` for queries, fragments and patterns.
    """
    protocol, host, _ = _parts(uri)
    kind = fsspec.get_filesystem_class(protocol)
    if not _is_s3(uri):
        return kind(**kind._get_kwargs_from_urls(f"{protocol}://{host}/"))
    return _s3(protocol, s3.WITHOUT_CHECKSUMS if _refuses_checksums.is_set() else s3.OPTIONS)


def _s3(protocol: str, options: dict[str, Any]) -> Any:
    # a listing must show what other workers wrote a moment ago
    filesystem = fsspec.filesystem(protocol, config_kwargs=options, use_listings_cache=False)
    # of a whole call, around botocore's of a request
    filesystem.retries = 1
    return filesystem


def _path(uri: str) -> str:
    """What a method of `_filesystem` is given for a URI that is not S3's; the name in it stays as it is."""
    protocol, host, path = _parts(uri)
    # a plain name in its place shows what stands before it
    root: str = fsspec.get_filesystem_class(protocol)._strip_protocol(f"{protocol}://{host}/x")
    return root.removesuffix("x") + path


# Set in a process whose server has turned a request away for its checksums and taken it without.
_refuses_checksums = threading.Event()


def _ask(uri: str, action: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
    """The result of a coroutine of pipeline/io/s3.py.

    Once more, without the checksums that botocore adds unasked, where a server may have refused it for them.
    """
    with_checksums = not _refuses_checksums.is_set()
    filesystem = _filesystem(uri)
    try:
        return cast(T, sync(filesystem.loop, action, filesystem, *args, **options))
    except OSError as error:
        if not with_checksums or not s3.refuses_checksums(error):
            raise
    filesystem = _s3(_parts(uri)[0], s3.WITHOUT_CHECKSUMS)
    result = cast(T, sync(filesystem.loop, action, filesystem, *args, **options))
    _refuses_checksums.set()
    return result


def _place(uri: str) -> s3.Place:
    """Bucket and Key of an object. Raises StoreError for credentials in the address: what we show and record has it."""
    protocol, bucket, key = _parts(uri)
    arn = bucket.startswith("arn:")
    if "@" in bucket or (":" in bucket and "@" in key and not arn):
        raise StoreError(
            f"{protocol}://***: an address without credentials was wanted; "
            "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if arn:  # of an access point, which has slashes of its own
        bucket, key = _filesystem(uri)._find_bucket_key(join(bucket, key))
    return {"Bucket": bucket, "Key": key}


def _folder(key: str) -> str:
    """What the keys of everything below a folder begin with."""
    return f"{key.rstrip('/')}/" if key else ""


def _head(uri: str) -> dict[str, Any] | None:
    """Size and ETag of an object; None where there is none."""
    place = _place(uri)
    return _ask(uri, s3.head, place) if place["Key"] else None


def _first_below(uri: str, attempts: int = 0) -> str | None:
    """The first key below a folder."""
    place = _place(uri)
    return _ask(uri, s3.first_below, place["Bucket"], _folder(place["Key"]), attempts)


def _s3_entry(uri: str) -> Entry:
    found = _head(uri)
    if found is None:
        # asks for the bucket, too, which the answer above does not tell of
        raise FileNotFoundError(uri) if _first_below(uri) is None else IsADirectoryError(uri)
    return Entry(uri, name_of(uri), int(found["ContentLength"]), str(found.get("ETag", "")).strip('"'))


# a part of a path that starts with a dot, unless it is nothing else: then it is no name, but what a key has there
_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|$))")


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
            # every key below is the listed prefix and its path, letter by letter: two slashes are not one
            folder = join(uri.removesuffix(place["Key"]), root)
            listed = _ask(uri, s3.list_below, place["Bucket"], root)
            infos = {o["Key"]: {"type": "file", "size": o["Size"], "ETag": o["ETag"]} for o in listed}
            if not infos and root:
                yield _s3_entry(uri)
                return
        else:
            filesystem, listed_path = _filesystem(uri), _path(uri).rstrip("/")
            root, folder = f"{listed_path}/", join(uri, "")
            infos = filesystem.find(listed_path, detail=True)
            if listed_path in infos or (not infos and not filesystem.isdir(listed_path)):
                yield _remote_entry(uri, filesystem.info(listed_path), name_of(uri))
                return
    for name, info in infos.items():
        relative = name[len(root) :]
        # a name that ends with a slash is some console's idea of a folder
        if info["type"] == "file" and relative and not name.endswith("/") and not _HIDDEN.search(relative):
            yield _remote_entry(f"{folder}{relative}", info, relative)


def _create_remote(uri: str, data: bytes, attempts: int = 0) -> bool:
    if _is_s3(uri):
        return _swap(uri, data, "", attempts)
    try:
        _filesystem(uri).pipe_file(_path(uri), data, mode="create")
    except FileExistsError:
        return False
    return True


def _swap(uri: str, data: bytes, version: str, attempts: int = 0) -> bool:
    """`swap_bytes` with the errors of the request."""
    try:
        _ask(uri, s3.put_if, _place(uri), data, version, attempts)
    except FileExistsError:
        return False
    except OSError as error:
        # s3fs reports a lost race as EINVAL; the status behind it says what it was. What is gone is another version.
        gone = bool(version) and isinstance(error, FileNotFoundError) and s3.code(error) != "NoSuchBucket"
        if gone or s3.status(error) == _PRECONDITION_FAILED:
            return False
        raise
    return True


# ---- errors


@contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    """Turn what goes wrong in the block into a StoreError of one sentence.

    A remote error is not kept as the cause: its text and attributes may hold parts of the signed request.
    """
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError, ImportError) as error:
        kind = StoreError
        if _is_full(error):
            kind = StoreFull
        elif action == "write" and _is_about_the_name(error):
            kind = NameRefused
        raise kind(_sentence(action, uri, error)) from (None if is_remote(uri) else error)
    except Exception as error:
        # botocore's own errors share no ancestor with Python's; everything else is a mistake of ours
        if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise
        raise StoreError(_sentence(action, uri, error)) from None


# Too long, bytes that the file system does not take, or a file where a folder is wanted and the other way round.
_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST})


def _is_full(error: BaseException) -> bool:
    if s3.response(error):
        return s3.full(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_about_the_name(error: BaseException) -> bool:
    if isinstance(error, UnicodeEncodeError) or s3.code(error) == "KeyTooLongError":
        return True
    return isinstance(error, OSError) and error.errno in _OF_NAMES and not s3.code(error)


def _sentence(action: str, uri: str, error: BaseException) -> str:
    return f"could not {action} {_shown(uri)}: {_reason(uri, error)}"


def _reason(uri: str, error: BaseException) -> str:
    """What happened and what to do about it."""
    if _is_full(error):
        what = "the quota is used up" if getattr(error, "errno", 0) == errno.EDQUOT else "the disk is full"
        return f"{what}; free space and start the same command again"
    by_code = {
        "NoSuchBucket": f"the bucket {_bucket(uri)!r} does not exist; create it or correct the address",
        "InvalidAccessKeyId": "the server does not know the access key; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
        "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the session has expired; renew the credentials",
        **dict.fromkeys(("NotImplemented", "501"), _NOT_IMPLEMENTED),
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
    if known := by_code.get(s3.code(error)) or by_name.get(type(error).__name__):
        return known
    if known := next((text for kind, text in by_kind if isinstance(error, kind)), None):
        return known
    if isinstance(error, OSError) and error.errno and not is_remote(uri):
        return f"{os.strerror(error.errno)}; put that right and try again"
    return f"{type(error).__name__}: {_without_secrets(str(error))}"


_NO_CREDENTIALS = (
    "no complete credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
_NOT_IMPLEMENTED = (
    "the server does not implement what was asked for, with checksums and without; use another server, or set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required where a proxy before it is what refuses them"
)
_NO_ANSWER = "the server does not answer; check AWS_ENDPOINT_URL and the network"
_NO_CONDITIONS = (
    "its server ignores If-None-Match (conditional writes), so that two runs at once could not be kept apart; use a "
    "server that honours it, as AWS S3, Cloudflare R2 and recent versions of MinIO, Ceph and SeaweedFS do, or a folder"
)


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
