"""A finished local file gets its name only where that name is free, whatever the file system can do.

By a hard link; where there are none (exFAT, CIFS), by a rename that replaces nothing; where that is missing too (sshfs
and others of FUSE), by a plain rename under a lock file. The name appears with the whole content or not
at all, and a process that is killed here blocks nobody for longer than ABANDONED.
"""

import ctypes
import errno
import hashlib
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

# Errors of a method that the file system lacks. Missing rights are among them: the last method reports those itself.
NOT_SUPPORTED = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
        *(errno.EMLINK, errno.EXDEV),
    }
)
# Seconds after which an unchanged lock counts as that of a killed process, and between two looks at it; it is held for
# one rename. Measured by each waiter: clocks of machines differ, and are set.
ABANDONED, POLL = 10.0, 0.02

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1


def move(finished: Path, path: Path) -> None:
    """Name a file of the same folder `path`. Raises FileExistsError where there is one, or another OSError.

    `finished` may still be there afterwards, as a second name.
    """
    for method in (os.link, _rename_exclusively):
        try:
            method(finished, path)
            return
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
    _rename_under_lock(finished, path)


def _rename_exclusively(finished: Path, path: Path) -> None:
    rename = _renameat2()
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(finished), os.fsencode(path)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


@cache
def _renameat2() -> Any:
    """The function of Linux's C library, or None."""
    found = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return found


def _rename_under_lock(finished: Path, path: Path) -> None:
    number = _lock(finished, path)
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(finished, path)
        # whoever takes one of these from now on finds the name taken
        for abandoned in range(number):
            _lock_file(finished, path, abandoned).unlink(missing_ok=True)
    finally:
        _lock_file(finished, path, number).unlink(missing_ok=True)


def _lock(finished: Path, path: Path) -> int:
    """Make the first lock file that nobody holds, and give its number. Raises FileExistsError once `path` is there.

    An abandoned one is skipped: deleted, it could already be that of another waiter who judged it as we did.
    """
    number = 0
    seen, since = (0, 0), time.monotonic()
    while True:
        file = _lock_file(finished, path, number)
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            return number
        except FileExistsError:
            if os.path.lexists(path):
                raise
        try:
            found = file.stat()
        except FileNotFoundError:
            number = 0
            continue
        now = (found.st_ino, found.st_mtime_ns)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > ABANDONED:
            number += 1
        else:
            time.sleep(POLL)


def _lock_file(finished: Path, path: Path, number: int) -> Path:
    # hidden and swept like the finished file; short, because `path` may have the longest name there is
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.parent / f".{digest}-{number}{finished.suffix}"
