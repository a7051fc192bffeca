"""The XMP of HEIC and AVIF, an item of the file (ISO/IEC 23008-12): added to the file's index, its bytes at the end.

The pictures' own bytes stay as they are; the index, which lies in front of them, grows and names their new places.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.io.tiff_xmp import NoPlace, spliced

_CONTENT = b"application/rdf+xml"
_IN_FILE = 0  # construction_method of items whose offsets count from the file's begin
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")

Box = tuple[bytes, int, int]


@dataclass(frozen=True)
class _Item:
    """Where an item lies: one entry of iloc, its base offset added to those of its extents."""

    number: int
    method: int
    reference: int
    # index, offset and length of each extent
    extents: tuple[tuple[int, int, int], ...]


def is_heif(data: bytes) -> bool:
    """Whether it is a HEIC or AVIF file, by its brand."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def find_packet(data: bytes) -> tuple[int, int] | None:
    """Begin and end of the packet; None where there is none. Raises NoPlace."""
    try:
        meta = _meta(data)
        number = _xmp_number(data, _children(data, meta))
        if number is None:
            return None
        for item in _read_iloc(data, _child(data, meta, b"iloc")):
            if item.number == number and item.method == _IN_FILE and len(item.extents) == 1:
                _, offset, length = item.extents[0]
                if offset + length <= len(data):
                    return offset, offset + length
    except (struct.error, IndexError) as error:
        raise NoPlace("the index of the file is damaged") from error
    raise NoPlace("the XMP of the file lies in pieces")


def with_packet(data: bytes, packet: bytes) -> bytes:
    """The file with this packet in the place of its own, or as a new item. Raises NoPlace."""
    try:
        return _with_packet(data, packet)
    except (struct.error, IndexError) as error:
        raise NoPlace("the index of the file is damaged") from error


def _with_packet(data: bytes, packet: bytes) -> bytes:
    boxes = _boxes(data, 0, len(data))
    if any(name == b"moov" for name, _, _ in boxes):
        raise NoPlace("the file holds a sequence of pictures, whose places are not known here")
    name, begin, end = _meta(data)
    children = _children(data, (name, begin, end))
    items = _read_iloc(data, _child(data, (name, begin, end), b"iloc"))
    number = _xmp_number(data, children)
    is_new = number is None
    if number is None:
        number = max([i.number for i in items] + [n for n, _ in _infos(data, children)]) + 1
    if number > 0xFFFF:
        raise NoPlace("the file has more items than can be counted here")
    data = _with_sizes(data, boxes[-1])
    mine = _Item(number, _IN_FILE, 0, ((0, 0, len(packet)),))
    others = [item for item in items if item.number != number]

    def index(shift: int) -> bytes:
        """The meta box, of items that lie so many bytes later than they did, and the packet behind all."""
        moved = [_moved(item, end, shift) for item in others]
        place = len(data) + shift + 8
        own = replace(mine, extents=((0, place, len(packet)),))
        parts = [data[begin : begin + 12]]
        for child, start, stop in children:
            body = data[start:stop]
            if child == b"iloc":
                body = _iloc([*moved, own], len(data) + shift + len(packet) + 8)
            elif child == b"iinf" and is_new:
                body = _iinf(body, number)
            elif child == b"iref" and is_new:
                body = _iref(body, number, _primary(data, children))
            parts.append(body)
        if is_new and not any(child == b"iref" for child, _, _ in children):
            parts.append(_iref(b"\0\0\0\x0ciref\0\0\0\0", number, _primary(data, children)))
        whole = b"".join(parts)
        return struct.pack(">I", len(whole)) + whole[4:]

    shift = len(index(0)) - (end - begin)
    box = struct.pack(">I", 8 + len(packet)) + b"mdat" + packet
    held = memoryview(data)
    return b"".join([held[:begin], index(shift), held[end:], box])


def _moved(item: _Item, end: int, shift: int) -> _Item:
    """The item once the index, which ends there, has grown: what lies behind it moves."""
    if item.reference:
        raise NoPlace("parts of the picture lie in another file")
    if item.method != _IN_FILE:
        return item
    extents = tuple((i, offset + shift if offset >= end else offset, n) for i, offset, n in item.extents)
    return replace(item, extents=extents)


def _with_sizes(data: bytes, last: Box) -> bytes:
    """The file, its last box saying its size where it said: to the end."""
    _, begin, end = last
    if data[begin : begin + 4] != bytes(4):
        return data
    return spliced(data, begin, begin + 4, struct.pack(">I", end - begin))


# Boxes


def _boxes(data: bytes, begin: int, end: int) -> list[Box]:
    """Name, begin and end of the boxes there."""
    found = []
    while begin + 8 <= end:
        (size,) = struct.unpack_from(">I", data, begin)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin + 8)
        stop = end if size == 0 else begin + size
        if stop > end or stop < begin + 8:
            raise NoPlace("the boxes of the file are damaged")
        found.append((data[begin + 4 : begin + 8], begin, stop))
        begin = stop
    return found


def _meta(data: bytes) -> Box:
    box = next((b for b in _boxes(data, 0, len(data)) if b[0] == b"meta"), None)
    if box is None or data[box[1] : box[1] + 4] in (bytes(4), b"\0\0\0\1"):
        raise NoPlace("the file has no index of items")
    return box


def _children(data: bytes, meta: Box) -> list[Box]:
    return _boxes(data, meta[1] + 12, meta[2])


def _child(data: bytes, meta: Box, name: bytes) -> Box:
    box = next((b for b in _children(data, meta) if b[0] == name), None)
    if box is None:
        raise NoPlace(f"the index of the file lacks {name.decode()}")
    return box


def _primary(data: bytes, children: Sequence[Box]) -> int:
    """The number of the picture itself."""
    begin = next((b for name, b, _ in children if name == b"pitm"), None)
    if begin is None:
        raise NoPlace("the index of the file lacks pitm")
    return int(struct.unpack_from(">H" if data[begin + 8] == 0 else ">I", data, begin + 12)[0])


def _infos(data: bytes, children: Sequence[Box]) -> list[tuple[int, bytes]]:
    """Number, and type with what follows it, of every item."""
    _, begin, end = next((box for box in children if box[0] == b"iinf"), (b"", 0, 0))
    if not end:
        raise NoPlace("the index of the file lacks iinf")
    found = []
    for name, start, stop in _boxes(data, begin + (14 if data[begin + 8] == 0 else 16), end):
        version = data[start + 8]
        if name != b"infe" or version < 2:
            continue
        form = ">H" if version == 2 else ">I"
        (number,) = struct.unpack_from(form, data, start + 12)
        found.append((number, data[start + 14 + struct.calcsize(form) : stop]))
    return found


def _xmp_number(data: bytes, children: Sequence[Box]) -> int | None:
    for number, body in _infos(data, children):
        if body.startswith(b"mime") and body[4:].split(b"\0")[1:2] == [_CONTENT]:
            return number
    return None


# iloc, iinf and iref


def _read_iloc(data: bytes, box: Box) -> list[_Item]:
    """The items' places."""
    version, place = data[box[1] + 8], box[1] + 12
    sizes = struct.unpack_from(">BB", data, place)
    offset_size, length_size, base_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index_size = sizes[1] & 15 if version else 0
    place += 2

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > box[2]:
            raise IndexError
        return int.from_bytes(data[place - size : place], "big")

    wide = 4 if version == 2 else 2
    items = []
    for _ in range(number(wide)):
        own, method = number(wide), number(2) & 15 if version else _IN_FILE
        reference, base = number(2), number(base_size)
        extents = []
        for _ in range(number(2)):
            index, offset, length = number(index_size), number(offset_size), number(length_size)
            extents.append((index, base + offset, length))
        items.append(_Item(own, method, reference, tuple(extents)))
    return items


def _iloc(items: Sequence[_Item], largest: int) -> bytes:
    """The box of these items, of version 1 where their numbers allow; largest: offset that it must be able to hold."""
    size = 8 if largest >= 1 << 32 else 4
    version = 2 if max(item.number for item in items) > 0xFFFF else 1
    wide = "I" if version == 2 else "H"
    index_size = 4 if any(index for item in items for index, _, _ in item.extents) else 0
    parts = [bytes([version, 0, 0, 0, size << 4 | size, index_size]), struct.pack(f">{wide}", len(items))]
    for item in items:
        parts.append(struct.pack(f">{wide}HHH", item.number, item.method, item.reference, len(item.extents)))
        for index, offset, length in item.extents:
            held = (
                index.to_bytes(index_size, "big"),
                offset.to_bytes(size, "big"),
                length.to_bytes(size, "big"),
            )
            parts += held
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + b"iloc" + body


def _iinf(box: bytes, number: int) -> bytes:
    """The box with one more item."""
    form, start = (">H", 14) if box[8] == 0 else (">I", 16)
    (count,) = struct.unpack_from(form, box, 12)
    info = b"\2\0\0\0" + struct.pack(">HH", number, 0) + b"mimeXMP\0" + _CONTENT + b"\0"
    body = box[8:12] + struct.pack(form, count + 1) + box[start:]
    body += struct.pack(">I", 8 + len(info)) + b"infe" + info
    return struct.pack(">I", 8 + len(body)) + b"iinf" + body


def _iref(box: bytes, number: int, primary: int) -> bytes:
    """The box with a reference: that item describes this one."""
    form = ">HHH" if box[8] == 0 else ">IHI"
    reference = struct.pack(form, number, 1, primary)
    body = box[8:] + struct.pack(">I", 8 + len(reference)) + b"cdsc" + reference
    return struct.pack(">I", 8 + len(body)) + b"iref" + body
