"""Files of the file systems that fsspec opens, but for S3's, by URI.

Called through pipeline/io/store.py, which explains the errors. Safe to use from threads and in forked or spawned
workers: fsspec keeps one client per process.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from pipeline.io.listing import PROBE, Entry, entries_below, remote_entry
from pipeline.io.ranges import LARGEST_BLOCK
from pipeline.io.uris import join, name_of, split


def _filesystem(uri: str) -> Any:
    """fsspec's file system for the URI; the same object for every call in this process.

    fsspec sees no more of the URI than protocol and host: in a name it would take `::` for a chain of addresses, and
    `?`, `#` and `*` for queries, fragments and patterns.
    """
    protocol, host, _ = split(uri)
    kind = fsspec.get_filesystem_class(protocol)
    return kind(**kind._get_kwargs_from_urls(f"{protocol}://{host}/"))


def _path(uri: str) -> str:
    """What a method of `_filesystem` is given for a URI; the name in it stays as it is."""
    protocol, host, path = split(uri)
    # the prefix of a plain name
    root: str = fsspec.get_filesystem_class(protocol)._strip_protocol(f"{protocol}://{host}/x")
    return root.removesuffix("x") + path


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    return bool(_filesystem(uri).exists(_path(uri)))


def stat(uri: str) -> Entry:
    """Size and version of one file."""
    info = _filesystem(uri).info(_path(uri))
    if info["type"] != "file":
        raise IsADirectoryError(uri)
    return remote_entry(uri, info, name_of(uri))


def list_files(uri: str) -> Iterator[Entry]:
    """The files below a folder, without hidden ones; a file gives itself."""
    filesystem, path = _filesystem(uri), _path(uri).rstrip("/")
    infos = filesystem.find(path, detail=True)
    if path in infos or (not infos and not filesystem.isdir(path)):
        yield remote_entry(uri, filesystem.info(path), name_of(uri))
        return
    yield from entries_below(join(uri, ""), f"{path}/", infos)


def open_read(uri: str) -> BinaryIO:
    """The file, buffered and seekable."""
    filesystem, path = _filesystem(uri), _path(uri)
    # its size is asked for here, because fsspec would find a missing file only at the first read
    size = filesystem.info(path)["size"]
    opened = filesystem.open(path, "rb", block_size=LARGEST_BLOCK, cache_type="readahead", size=size)
    return cast(BinaryIO, opened)


def read_bytes(uri: str) -> bytes:
    """The whole content of a file."""
    return cast(bytes, _filesystem(uri).cat_file(_path(uri)))


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of a file; fewer only where it ends before."""
    return cast(bytes, _filesystem(uri).cat_file(_path(uri), start=offset, end=offset + length))


def write_bytes(uri: str, data: bytes) -> None:
    """Make or replace a file."""
    _filesystem(uri).pipe_file(_path(uri), data)


def write_file(uri: str, path: Path) -> None:
    """Copy a local file to a URI."""
    _filesystem(uri).put_file(str(path), _path(uri))


def create_bytes(uri: str, data: bytes) -> bool:
    """Make a file that must not exist yet; whether we made it."""
    try:
        _filesystem(uri).pipe_file(_path(uri), data, mode="create")
    except FileExistsError:
        return False
    return True


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error."""
    with suppress(FileNotFoundError):
        _filesystem(uri).rm_file(_path(uri))


def check_readable(uri: str) -> None:
    """Return when a file or folder is there."""
    _filesystem(uri).info(_path(uri))


def check_writable(uri: str) -> None:
    """Return when files can be made below a folder; leaves nothing behind."""
    probe = _path(join(uri, PROBE))
    _filesystem(uri).pipe_file(probe, b"")
    _filesystem(uri).rm_file(probe)
