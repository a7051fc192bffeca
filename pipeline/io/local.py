"""Files of a local file system, by URI. Called through pipeline/io/store.py, which explains the errors."""

import errno
import fcntl
import os
import secrets
import stat as modes
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.io import exclusive
from pipeline.io.listing import Entry, files_listed
from pipeline.io.store_errors import StoreError, explained, sentence
from pipeline.io.uris import join, local_path, name_of

# Ends the hidden name under which a file is written before it gets its own; no input's name ends so.
TEMPORARY = ".difface-part"
# Seconds until waiting for a lock is given up, and between two tries; it is held for milliseconds, unless by a
# suspended process.
LOCK_TIMEOUT, LOCK_POLL = 30.0, 0.02
# The answer where folders are kept in another way (CIFS, sshfs, others of FUSE), or may be written but not read.
_NO_FOLDER_SYNC = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES}
)


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    return local_path(uri).exists()


def stat(uri: str) -> Entry:
    """Size and version of one file."""
    return _entry(uri, local_path(uri), name_of(uri))


def _entry(uri: str, path: Path, relative: str) -> Entry:
    found = path.stat()
    if not modes.S_ISREG(found.st_mode):
        raise IsADirectoryError(uri)
    return Entry(uri, relative, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def list_files(
    uri: str, excluded: Callable[[str], bool], refused: Callable[[StoreError], None]
) -> Iterator[Entry]:
    """The files below a folder, in the file system's order; a file gives itself. Arguments as of `store.list_files`."""
    root = local_path(uri)
    with explained("list", uri):
        if not root.is_dir():
            yield _entry(uri, root, root.name)
            return

    def skip(error: OSError) -> None:
        place = str(error.filename or uri)
        if isinstance(error, FileNotFoundError) and place != str(root):
            return  # it was deleted during the listing
        reported = StoreError(sentence("list", place, error))
        if place == str(root):
            raise reported from error
        refused(reported)

    for folder, folders, files in os.walk(root, onerror=skip):
        below = Path(folder).relative_to(root).as_posix() if Path(folder) != root else ""
        folders[:] = [n for n in folders if not n.startswith(".") and not excluded(f"{join(below, n)}/")]
        lost: OSError | None = None
        for name in files:
            relative = join(below, name)
            if name.startswith(".") or excluded(relative):
                continue
            files_listed["files"] += 1
            try:
                yield _entry(join(uri, relative), Path(folder, name), relative)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue  # a link to nowhere, a socket or a pipe holds no bytes that we could restore
            except OSError as error:
                if error.errno != errno.ELOOP:
                    lost = error
        # a folder that may be listed and not entered loses all its files for one reason
        if lost is not None:
            refused(StoreError(sentence("look into", folder, lost)))


def open_read(uri: str) -> BinaryIO:
    """The file, buffered and seekable."""
    return local_path(uri).open("rb")


def read_bytes(uri: str) -> bytes:
    """The whole content of a file."""
    return local_path(uri).read_bytes()


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of a file; fewer only where it ends before."""
    with local_path(uri).open("rb", buffering=0) as file:
        handle = file.fileno()
        # one pread gives 2 GiB at most
        data = os.pread(handle, length, offset)
        while data and len(data) < length:
            more = os.pread(handle, length - len(data), offset + len(data))
            if not more:
                break
            data += more
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Make or replace a file, whole or not at all, creating folders."""
    path = local_path(uri)
    with _finished_beside(path, data) as finished:
        os.replace(finished, path)
    _sync_folder(path.parent)


def overwrite(uri: str, data: bytes) -> None:
    """Replace the content of a file in its place, which takes no space; not whole where it is interrupted."""
    with local_path(uri).open("r+b") as file:
        file.write(data)
        file.truncate()
        os.fsync(file.fileno())


def create_bytes(uri: str, data: bytes) -> bool:
    """Make a file that must not exist yet; whether we made it."""
    path = local_path(uri)
    with _finished_beside(path, data) as finished:
        try:
            exclusive.move(finished, path)
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


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


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error."""
    local_path(uri).unlink(missing_ok=True)


def sweep(uri: str) -> None:
    """Remove what killed writers left half-written below a folder, where nobody may write now."""
    for folder, _, files in os.walk(local_path(uri)):
        for name in files:
            if name.startswith(".") and name.endswith(TEMPORARY):
                Path(folder, name).unlink(missing_ok=True)


def check_readable(uri: str) -> None:
    """Return when a file can be read, or a folder listed."""
    if local_path(uri).is_dir():
        next(local_path(uri).iterdir(), None)
    else:
        local_path(uri).open("rb").close()


def check_writable(uri: str) -> None:
    """Return when files can be made below a folder; leaves nothing behind."""
    folder = local_path(uri).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(str(folder))
    # without a name where the file system can do that, so that one who is killed here leaves nothing
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def locked(uri: str, exclusive: bool) -> Iterator[None]:
    """Hold a lock on a file, which is made where there is none; on a file system without locks do nothing.

    Raises StoreError where others hold it for longer than LOCK_TIMEOUT.
    """
    path = local_path(uri)
    with explained("write", uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take_lock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, uri)
        yield
    finally:
        os.close(handle)


def _take_lock(handle: int, how: int, uri: str) -> None:
    give_up = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise StoreError(
                    f"{uri} was to be locked, another process has held it for {LOCK_TIMEOUT:.0f} s; it may be "
                    "suspended: let it go on or end it, then start the same command again"
                ) from None
            time.sleep(LOCK_POLL)
        except OSError:
            return  # a file system without locks
