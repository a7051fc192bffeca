"""The members of an untrusted tar shard, header by header.

Python's tarfile reads the headers; their values are checked here, because a header can make it loop backwards for ever,
read a member into memory, or stop early without an error.
"""

import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

# Headers that only carry on into the next one: long names and pax records. More than this is no name.
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
MOST_EXTENSION_BYTES = 1 << 16
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
# tarfile searches pax records for digits, in a time that grows with the square of their number in a row
TOO_MANY_DIGITS = re.compile(rb"\d{300}")
# Records that hold for all later members are copied to each of them.
MOST_GLOBAL_RECORDS = 100
# What may follow the end mark: writers fill up to a record. Every reader would skip further members there.
TAIL_BYTES = 1 << 20


# Errors that a header can provoke in tarfile; an error of the store is none of them.
PROVOKED = (
    tarfile.TarError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)


class DamagedTar(ValueError):
    """The members that follow can not be read; `offset` is where the last whole member ends, 0 where there is none."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True)
class Member:
    """One member; its header, with what extends it, begins at `begin` and the next member's at `end`."""

    info: tarfile.TarInfo
    begin: int
    end: int
    # why it is no plain file whose bytes follow its header: "not a file", "sparse file"; else empty
    refused: str
    # records of an earlier global header apply to it, too, so that its own header is not complete
    inherits: bool = False

    @property
    def is_hard_link(self) -> bool:
        return self.info.islnk()


class _Header(tarfile.TarInfo):
    """An untrusted header. Raises errors that make tarfile stop."""

    def _proc_member(self, tar: Any) -> Any:  # where tarfile handles single types
        if self.type in EXTENSIONS:
            if not 0 <= self.size <= MOST_EXTENSION_BYTES or len(tar.pax_headers) > MOST_GLOBAL_RECORDS:
                raise tarfile.ReadError(f"extended headers of {self.size} bytes and more")
            if self.type in PAX:
                _check_pax(tar.fileobj.read(self.size))
                tar.fileobj.seek(self.offset + tarfile.BLOCKSIZE)
        return super()._proc_member(tar)  # type: ignore[misc]  # not in the published types

    def _proc_sparse(self, tar: Any) -> Any:
        """Skip the map, which may be as long as the file."""
        _, more, _ = self._sparse_structs  # type: ignore[attr-defined]  # as `_proc_member`
        while more:
            more = bool(tar.fileobj.read(tarfile.BLOCKSIZE)[504])
        self.sparse = b""
        self.offset_data = tar.fileobj.tell()
        tar.offset = self.offset_data + self._block(self.size)
        return self

    def _no_map(self, member: Any, *_: Any) -> None:
        member.sparse = b""

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_map

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError(f"a length of {count} bytes")
        return -(-count // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _check_pax(body: bytes) -> None:
    """Refuse pax records that do not each have the length that they declare."""
    place = 0
    while place < len(body) and body[place]:
        length, space, _ = body[place : place + 8].partition(b" ")
        end = place + int(length) if space and length.isdigit() else place
        if not (place < end <= len(body) and body[end - 1 : end] == b"\n" and b"=" in body[place:end]):
            raise tarfile.ReadError("damaged pax records")
        place = end
    if TOO_MANY_DIGITS.search(body):
        raise tarfile.ReadError("a pax record of digits")


def iter_members(source: BinaryIO, begin: int, size: int) -> Iterator[Member]:
    """The whole members of a tar file of `size` bytes, from the header at `begin` on; their bytes are not read.

    Raises DamagedTar after the last one where that is not the archive's end.
    """
    source.seek(begin)
    end = begin
    try:
        with tarfile.open(fileobj=source, mode="r:", tarinfo=_Header) as tar:
            while (info := tar.next()) is not None:
                if tar.offset > size:
                    raise tarfile.ReadError(f"the file ends inside {info.name!r}")
                yield Member(info, end, tar.offset, _refused(info), bool(tar.pax_headers))
                end = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # the index of a large tar is not kept
    except PROVOKED as error:
        raise DamagedTar(end, (" ".join(str(error).split()) or type(error).__name__)[:200]) from error
    source.seek(end)
    rest = source.read(tarfile.BLOCKSIZE + TAIL_BYTES)
    if rest[: tarfile.BLOCKSIZE].strip(b"\0"):
        raise DamagedTar(end, "a header was wanted, other bytes are there")
    if rest.strip(b"\0"):
        raise DamagedTar(end, "more members may follow its end mark; join tars with `tar -A`")


def member_at(source: BinaryIO, begin: int, size: int) -> Member:
    """The member whose header begins there. Raises DamagedTar where none does."""
    for member in iter_members(source, begin, size):
        return member
    raise DamagedTar(begin, "a header was wanted, the end of the archive is there")


def unpacked_path(name: str) -> str:
    """The path that a member of this name is unpacked to, by which hard links find their target."""
    return posixpath.normpath(name).lstrip("/")


def _refused(info: tarfile.TarInfo) -> str:
    return "not a file" if not info.isfile() else "sparse file" if info.issparse() else ""
