"""The index of a HEIF file (ISO/IEC 23008-12), written anew around items whose bytes lie at the file's end.

All other bytes stay as they are; those behind the index move, and it names their new places.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.io.tiff_xmp import NoPlace, spliced

IN_FILE = 0  # construction_method of items whose offsets count from the file's beginning

# Name, begin and end.
Box = tuple[bytes, int, int]


@dataclass(frozen=True)
class Item:
    """Where an item lies: one entry of iloc, its base offset added to those of its extents."""

    number: int
    method: int
    reference: int
    # index, offset and length of each extent
    extents: tuple[tuple[int, int, int], ...]


def with_items(
    data: bytes, items: Mapping[int, bytes], changed: Mapping[bytes, bytes], added: Sequence[bytes] = ()
) -> bytes:
    """The file with these bytes as the items of these numbers, old or new.

    changed: boxes of the index, whole, in the place of those of the same name. added: further ones. Raises NoPlace.
    """
    meta = meta_of(data)
    _, begin, end = meta
    children = children_of(data, meta)
    others = [i for i in read_iloc(data, child_of(data, meta, b"iloc")) if i.number not in items]
    data = _with_sizes(data, boxes_in(data, 0, len(data))[-1])
    body = b"".join(items.values())

    def index(shift: int) -> bytes:
        """The meta box, of items that lie so many bytes later than they did, and the new ones behind all."""
        places = [_moved(item, end, shift) for item in others]
        place = len(data) + shift + 8
        for number, new in items.items():
            places.append(Item(number, IN_FILE, 0, ((0, place, len(new)),)))
            place += len(new)
        parts = [data[begin : begin + 12]]
        for child in children:
            parts.append(
                _iloc(places, place) if child[0] == b"iloc" else changed.get(child[0], body_of(data, child))
            )
        whole = b"".join([*parts, *added])
        return struct.pack(">I", len(whole)) + whole[4:]

    shift = len(index(0)) - (end - begin)
    held = memoryview(data)
    box = struct.pack(">I", 8 + len(body)) + b"mdat" + body
    return b"".join([held[:begin], index(shift), held[end:], box])


def _moved(item: Item, end: int, shift: int) -> Item:
    """The item once the index, which ends there, has grown: what lies behind it moves."""
    if item.reference:
        raise NoPlace("parts of the picture lie in another file")
    if item.method != IN_FILE:
        return item
    extents = tuple((i, offset + shift if offset >= end else offset, n) for i, offset, n in item.extents)
    return replace(item, extents=extents)


def _with_sizes(data: bytes, last: Box) -> bytes:
    """The file, its last box saying its size where it said: to the end."""
    _, begin, end = last
    if data[begin : begin + 4] != bytes(4):
        return data
    return spliced(data, begin, begin + 4, struct.pack(">I", end - begin))


def boxes_in(data: bytes, begin: int, end: int) -> list[Box]:
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


def meta_of(data: bytes) -> Box:
    box = next((b for b in boxes_in(data, 0, len(data)) if b[0] == b"meta"), None)
    if box is None or data[box[1] : box[1] + 4] in (bytes(4), b"\0\0\0\1"):
        raise NoPlace("the file has no index of items")
    return box


def children_of(data: bytes, meta: Box) -> list[Box]:
    return boxes_in(data, meta[1] + 12, meta[2])


def child_of(data: bytes, meta: Box, name: bytes) -> Box:
    box = next((b for b in children_of(data, meta) if b[0] == name), None)
    if box is None:
        raise NoPlace(f"the index of the file lacks {name.decode()}")
    return box


def primary_of(data: bytes, children: Sequence[Box]) -> int:
    """The number of the picture itself."""
    begin = next((b for name, b, _ in children if name == b"pitm"), None)
    if begin is None:
        raise NoPlace("the index of the file lacks pitm")
    return int(struct.unpack_from(">H" if data[begin + 8] == 0 else ">I", data, begin + 12)[0])


def body_of(data: bytes, box: Box) -> bytes:
    """A box's bytes, header and all."""
    return data[box[1] : box[2]]


def read_iloc(data: bytes, box: Box) -> list[Item]:
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
        own, method = number(wide), number(2) & 15 if version else IN_FILE
        reference, base = number(2), number(base_size)
        extents = []
        for _ in range(number(2)):
            index, offset, length = number(index_size), number(offset_size), number(length_size)
            extents.append((index, base + offset, length))
        items.append(Item(own, method, reference, tuple(extents)))
    return items


def _iloc(items: Sequence[Item], largest: int) -> bytes:
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
