"""Files by URI: a local path, or anything fsspec opens (`s3://bucket/key`).

The front of three kinds of file system with the same functions: pipeline/io/local.py, pipeline/io/s3_store.py and
pipeline/io/remote.py. What goes wrong in them is a StoreError here, one sentence without credentials.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol, cast

from pipeline.io import local, remote, s3, s3_store
from pipeline.io.errors import redact
from pipeline.io.listing import Entry, files_listed, with_folders
from pipeline.io.store_errors import NameRefused, StoreError, StoreFull, exactly, explained
from pipeline.io.uris import absolute, is_remote, is_s3, join, name_of

__all__ = [
    "Entry", "NameRefused", "StoreError", "StoreFull", "absolute", "can_swap", "check_claims", "check_readable",
    "check_writable", "create_bytes", "delete", "exists", "is_remote", "join", "list_files", "listed", "locked",
    "name_of", "open_read", "read_bytes", "read_range", "rewrite_bytes", "stat", "swap_bytes", "sweep", "version_of",
    "write_bytes", "write_file",
]  # fmt: skip


class _FileSystem(Protocol):
    """What each kind of file system does with a URI of its own; the three modules are such."""

    def exists(self, uri: str) -> bool: ...
    def stat(self, uri: str) -> Entry: ...
    def open_read(self, uri: str) -> BinaryIO: ...
    def read_bytes(self, uri: str) -> bytes: ...
    def read_range(self, uri: str, offset: int, length: int) -> bytes: ...
    def write_bytes(self, uri: str, data: bytes) -> None: ...
    def create_bytes(self, uri: str, data: bytes) -> bool: ...
    def delete(self, uri: str) -> None: ...
    def check_readable(self, uri: str) -> None: ...
    def check_writable(self, uri: str) -> None: ...


def _filesystem(uri: str) -> _FileSystem:
    if not is_remote(uri):
        return local
    return s3_store if is_s3(uri) else remote


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
        with explained("list", uri):
            found = list((s3_store if is_s3(uri) else remote).list_files(uri))
        entries = [e for e in found if not any(map(excluded, with_folders(e.path)))]
    else:
        entries = list(local.list_files(uri, excluded, refused or _give_up))
    return sorted(entries, key=lambda entry: entry.path)


def listed() -> int:
    """How many files this process has listed so far; during a long listing it grows."""
    return files_listed.total()


def _give_up(error: StoreError) -> NoReturn:
    raise error


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StoreError when that can not be found out."""
    if not is_remote(uri):
        return local.exists(uri)
    with explained("look for", uri):
        return _filesystem(uri).exists(uri)


def stat(uri: str) -> Entry:
    """Size and version of one file. Raises StoreError when there is no such file."""
    with explained("look up", uri):
        return _filesystem(uri).stat(uri)


def open_read(uri: str) -> BinaryIO:
    """The file, buffered and seekable; close it, or use it in a `with`. Raises StoreError when it can not be opened.

    Reading from S3 raises StoreError too, also when the object is replaced meanwhile.
    """
    with explained("read", uri):
        return _filesystem(uri).open_read(uri)


def read_bytes(uri: str) -> bytes:
    """The whole content of a file. Raises StoreError."""
    with explained("read", uri):
        return _filesystem(uri).read_bytes(uri)


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of a file. Raises StoreError, also when the file ends before that."""
    with explained("read", uri):
        data = _filesystem(uri).read_range(uri, offset, length) if length else b""
    return exactly(uri, data, offset, length)


def write_bytes(uri: str, data: bytes) -> None:
    """Make or replace a file, whole or not at all, creating local folders. Raises StoreError."""
    with explained("write", uri):
        _filesystem(uri).write_bytes(uri, data)


def rewrite_bytes(uri: str, data: bytes) -> None:
    """Replace a small file as `write_bytes`; on a full disk in its place, which takes no space. Raises StoreError."""
    try:
        write_bytes(uri, data)
    except StoreFull:
        if is_remote(uri):
            raise
        with explained("write", uri):
            local.overwrite(uri, data)


def write_file(uri: str, path: Path) -> None:
    """Copy a local file to a URI, whole or not at all, without reading it whole into memory. Raises StoreError."""
    with explained("write", uri), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < 2 * s3.PART_BYTES:
            write_bytes(uri, file.read())
        elif is_remote(uri) and not is_s3(uri):
            remote.write_file(uri, path)
        else:
            # its pieces are read from the disk when they are needed
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                write_bytes(uri, cast(bytes, data))


def create_bytes(uri: str, data: bytes) -> bool:
    """Make a file that must not exist yet; True when we made it, False when somebody was first. Raises StoreError.

    Of several callers exactly one gets True, on S3 by one plain conditional put (If-None-Match). A put whose answer
    was lost on the way and that is retried finds its own object: then nobody gets True, and the file is there.
    What is larger than s3.LARGEST_CLAIM is refused everywhere: write it under a name made from its content, and
    let a small file claim that name.
    """
    if len(data) > s3.LARGEST_CLAIM:
        raise StoreError(
            f"could not write {redact(uri)}: at most {s3.LARGEST_CLAIM} bytes can be made under the condition "
            f"that nothing is there, got {len(data)}; write them under a name of their own and let a small file name it"
        )
    with explained("write", uri):
        return _filesystem(uri).create_bytes(uri, data)


def signed_address(uri: str, seconds: int) -> str:
    """An https address of an object of S3 at which anybody can read it for so long. Raises StoreError."""
    if not is_s3(uri):
        raise StoreError(f"addresses can be signed for s3:// alone, got {redact(uri)}")
    with explained("sign the address of", uri):
        return s3_store.signed_address(uri, seconds)


def can_swap(uri: str) -> bool:
    """Whether `swap_bytes` works there."""
    return is_s3(uri)


def version_of(uri: str) -> str:
    """The version of an object, as `Entry.version`; empty where there is none. Raises StoreError."""
    with explained("look up", uri):
        return s3_store.version_of(uri)


def swap_bytes(uri: str, data: bytes, version: str) -> bool:
    """Replace the object that has this version (empty: make one where there is none); False where another is there.

    By one conditional put. When its answer was lost and it is retried, False may mean that it was our own. A server
    that knows no condition on a version replaces whatever there is. Raises StoreError.
    """
    with explained("write", uri):
        return s3_store.swap_bytes(uri, data, version)


@contextmanager
def locked(uri: str, exclusive: bool) -> Iterator[None]:
    """Hold a lock on a local file, which is made where there is none; elsewhere, and without locks, do nothing.

    Raises StoreError where others hold it for longer than local.LOCK_TIMEOUT.
    """
    if is_remote(uri):
        yield
        return
    with local.locked(uri, exclusive):
        yield


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error, nor needs the right to delete. Raises StoreError."""
    with explained("delete", uri):
        _filesystem(uri).delete(uri)


def sweep(uri: str) -> None:
    """Remove what killed writers left half-written below a folder, where nobody may write now. Raises StoreError.

    An object store has no such thing: what was not written whole is not there.
    """
    if is_remote(uri):
        return
    with explained("clear", uri):
        local.sweep(uri)


def check_readable(uri: str) -> None:
    """Return when `uri` holds a file or a folder with something in it that we may read; else raise StoreError."""
    with explained("read", uri):
        _filesystem(uri).check_readable(uri)


def check_writable(uri: str) -> None:
    """Return when files can be made below the folder `uri`; else raise StoreError. Leaves nothing behind."""
    with explained("write to", uri):
        _filesystem(uri).check_writable(uri)


def check_claims(uri: str) -> None:
    """As `check_writable`, and of several who make one file below `uri` only one may win; else raise StoreError.

    A server that ignores conditions on a put would let two starts at once both drive one output.
    """
    if not is_s3(uri):
        check_writable(uri)
        return
    with explained("write to", uri):
        s3_store.check_claims(uri)
