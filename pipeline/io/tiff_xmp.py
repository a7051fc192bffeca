"""The XMP of a TIFF, tag 700: bytes are added at the end of the file, and one directory is written anew there.

Nothing else of the file moves: samples, other pages and what only its maker can read keep their places.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.io.picture import ImageError
from pipeline.io.tiff import SIZES, Tiff
from pipeline.io.tiff_pages import find_page

XMP_TAG = 700
# Pages that are walked at most: directories of a damaged file may lead in a circle.
MOST_PAGES = 100_000


class NoPlace(ValueError):
    """A file that can not carry the packet; the sentence says why."""


def spliced(data: bytes, start: int, end: int, new: bytes) -> bytes:
    """The bytes, with these in the place of those from `start` to `end`; no more than one copy is made."""
    held = memoryview(data)
    return b"".join([held[:start], new, held[end:]])


class _Form(NamedTuple):
    """How numbers are written: byte order, and the structs of offsets, of a directory's length, and of an entry."""

    order: str
    offset: str
    length: str
    entry: str
    # bytes of an entry before its value, and of the value
    value_at: int
    value: int
    # where the offset of the first directory is written
    first_at: int


def find_packet(data: bytes, page: int | None = None) -> tuple[int, int] | None:
    """Begin and end of the packet of a page; None where there is none. Raises NoPlace.

    page: its number; None: that of the picture (io/tiff_pages.py).
    """
    try:
        form = _form(data)
        _, start = _directory(data, form, page)
        for place in _entries(data, form, start):
            tag, kind, length = struct.unpack_from(form.order + form.entry, data, place)
            if tag != XMP_TAG:
                continue
            size = length * SIZES.get(kind, 1)
            if size <= form.value:
                begin = place + form.value_at
            else:
                (begin,) = struct.unpack_from(form.order + form.offset, data, place + form.value_at)
            return (begin, begin + size) if begin + size <= len(data) else None
    except (struct.error, OverflowError) as error:
        raise NoPlace("the directory of the TIFF is damaged") from error
    return None


def with_packet(data: bytes, packet: bytes, page: int | None = None) -> bytes:
    """The TIFF with this packet as the XMP of a page, as `find_packet` finds it. Raises NoPlace."""
    try:
        form = _form(data)
        pointer, start = _directory(data, form, page)
        places = list(_entries(data, form, start))
    except (struct.error, OverflowError) as error:
        raise NoPlace("the directory of the TIFF is damaged") from error
    end = (places[-1] if places else start + struct.calcsize(form.length)) + form.value_at + form.value
    after = data[end : end + struct.calcsize(form.offset)]
    entries = {}
    for place in places:
        (tag,) = struct.unpack_from(form.order + "H", data, place)
        entries[tag] = data[place : place + form.value_at + form.value]
    if len(entries) != len(places):
        raise NoPlace("the directory of the TIFF names a tag twice")
    begin = len(data) + len(data) % 2
    directory = begin + len(packet) + len(packet) % 2
    if form.offset == "I" and directory + 12 * (len(places) + 1) + 6 >= 1 << 32:
        raise NoPlace("the TIFF would be larger than 4 GiB, beyond which it can not point")
    # one byte, without a sign, as XMP's specification has it
    entries[XMP_TAG] = struct.pack(form.order + form.entry + form.offset, XMP_TAG, 1, len(packet), begin)
    body = struct.pack(form.order + form.length, len(entries))
    body += b"".join(entries[tag] for tag in sorted(entries)) + after
    held = memoryview(data)
    pointing = struct.pack(form.order + form.offset, directory)
    return b"".join(
        [
            held[:pointer], pointing, held[pointer + len(pointing) :], b"\0" * (begin - len(data)),
            packet, b"\0" * (directory - begin - len(packet)), body,
        ]
    )  # fmt: skip


def _form(data: bytes) -> _Form:
    order = "<" if data.startswith(b"II") else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == 42:
        return _Form(order, "I", "H", "HHI", 8, 4, 4)
    if version == 43:
        return _Form(order, "Q", "Q", "HHQ", 12, 8, 8)
    raise NoPlace(f"a TIFF of version 42 or 43 was wanted, got {version}")


def _directory(data: bytes, form: _Form, page: int | None) -> tuple[int, int]:
    """Where the offset of a page's directory is written, and the offset."""
    if page is None:
        try:
            found = find_page(Tiff.of(data))
        except ImageError as error:
            raise NoPlace("the directories of the TIFF are damaged") from error
        if found.below:
            raise NoPlace("the picture of the TIFF is no page of its own")
        return found.pointer, found.place
    pointer = form.first_at
    for number in range(min(page, MOST_PAGES) + 1):
        (start,) = struct.unpack_from(form.order + form.offset, data, pointer)
        if not start:
            raise NoPlace(f"the TIFF has {number} pages, the XMP of page {page + 1} was wanted")
        if number < page:
            (count,) = struct.unpack_from(form.order + form.length, data, start)
            pointer = start + struct.calcsize(form.length) + count * (form.value_at + form.value)
    return pointer, start


def _entries(data: bytes, form: _Form, start: int) -> Iterator[int]:
    """Where the entries of a directory lie."""
    (count,) = struct.unpack_from(form.order + form.length, data, start)
    length = form.value_at + form.value
    first = start + struct.calcsize(form.length)
    if first + count * length > len(data):
        raise NoPlace("the directory of the TIFF is damaged")
    yield from range(first, first + count * length, length)
