"""A unit's part of a tar shard with its pictures replaced: a tar that unpacks alone."""

import copy
import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import BinaryIO, NamedTuple

from pipeline.io.tar import DamagedTar, Member, iter_members, member_at, unpacked_path
from pipeline.io.units import Address, Unit


class Replacement(NamedTuple):
    """What is delivered for an image of a tar: its bytes, None for the input's, and its name, None for its own."""

    data: bytes | None
    name: str | None = None


def tar_part(source: BinaryIO, size: int, unit: Unit, pictures: Sequence[Replacement], most: int) -> bytes:
    """The unit's span of a tar file of `size` bytes, as a tar; what is no picture passes byte for byte.

    pictures: what is delivered for each of the unit's images. most: images of more bytes are left out. A hard link
    whose target lies in an earlier unit becomes a file of its own, as does one that is itself a picture. What lies
    behind damage is left out.
    """
    planned = _Planned(unit, pictures, most)
    buffer = io.BytesIO()
    begin, end = unit.span
    with tarfile.open(fileobj=buffer, mode="w") as out, suppress(DamagedTar):
        for member in takewhile(lambda m: m.begin < end, iter_members(source, begin, size)):
            image, (data, name) = planned.of(member)
            if planned.is_left_out(member, image):
                continue
            if image is not None and image.link:
                source.seek(image.offset)
                add_file(out, member.info, source.read(image.length) if data is None else data, name)
            elif member.begin in planned.targets:
                _add_target(out, source, member, member_at(source, planned.targets[member.begin], size))
            else:
                add_member(out, source, member, data, name)
    return buffer.getvalue()


class _Planned:
    """What the plan says of the members of one unit."""

    def __init__(self, unit: Unit, pictures: Sequence[Replacement], most: int) -> None:
        self._most = most
        pairs = [(a, new) for a, new in zip(unit.images, pictures, strict=True) if not a.refused]
        # an empty file's bytes lie where the next header begins, which may be a link's
        self._files = {a.offset: (a, new) for a, new in pairs if not a.link}
        self._links = {a.link: (a, new) for a, new in pairs if a.link}
        self._left_out = {unpacked_path(a.member) for a, _ in pairs if a.length > most}
        self.targets = dict(unit.links)

    def of(self, member: Member) -> tuple[Address | None, Replacement]:
        """A member's address and what is delivered for it."""
        if member.is_hard_link:
            return self._links.get(member.begin, (None, Replacement(None)))
        return self._files.get(member.info.offset_data, (None, Replacement(None)))

    def is_left_out(self, member: Member, image: Address | None) -> bool:
        """Whether it is too large a picture, or a hard link to one."""
        if image is not None:
            return image.length > self._most
        dangling = member.is_hard_link and member.begin not in self.targets
        return dangling and unpacked_path(member.info.linkname) in self._left_out


def add_member(
    out: tarfile.TarFile, source: BinaryIO, member: Member, data: bytes | None, name: str | None = None
) -> None:
    """Append a member with other bytes and maybe another name, or as it is, header and all."""
    if data is None and not member.refused and member.inherits:
        source.seek(member.info.offset_data)
        data = source.read(member.info.size)
    if data is not None and not member.refused:
        add_file(out, member.info, data, name)
        return
    source.seek(member.begin)
    block = source.read(member.end - member.begin)
    assert out.fileobj is not None
    out.fileobj.write(block)
    out.offset += len(block)


def add_file(out: tarfile.TarFile, header: tarfile.TarInfo, data: bytes, name: str | None = None) -> None:
    """Append a plain file of these bytes with the time, owner and mode of a header, and its name or another."""
    info = copy.copy(header)
    info.name = name or info.name
    info.size = len(data)
    if info.islnk():
        info.type, info.linkname = tarfile.REGTYPE, ""
    _append(out, info, data)


def _append(out: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    info.pax_headers = {}
    try:
        info.tobuf()
    except (ValueError, ArithmeticError):  # times and owners that can not be written again
        plain = tarfile.TarInfo(info.name)
        plain.type, plain.linkname, plain.size = info.type, info.linkname, info.size
        info = plain
    out.addfile(info, io.BytesIO(data))


def _add_target(out: tarfile.TarFile, source: BinaryIO, link: Member, target: Member) -> None:
    """Append what a hard link links to under the link's name: a file, or a symbolic link."""
    if not target.refused:
        source.seek(target.info.offset_data)
        add_file(out, link.info, source.read(target.info.size))
    elif target.info.issym():
        info = copy.copy(target.info)
        info.name, info.size = link.info.name, 0
        _append(out, info, b"")
    else:  # a device, or a file with holes: it can not be copied under another name
        add_member(out, source, link, None)
