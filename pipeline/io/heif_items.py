"""The items of a HEIF file (ISO/IEC 23008-12), as AVIF and HEIC are: which there are, where they lie, what they are."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.io.boxes import Box, boxes

# Construction method of items whose offsets count from the file's beginning.
IN_FILE = 0


@dataclass(frozen=True)
class Place:
    """Where an item's data lie, and where that is written: place and width in bytes of offset and length."""

    item: int
    start: int
    length: int
    base: int
    offset_at: int
    offset_size: int
    length_at: int
    length_size: int


def primary_item(data: bytes, pitm: Box) -> int:
    """The number of the picture itself."""
    (primary,) = struct.unpack_from(">I" if data[pitm.body] else ">H", data, pitm.body + 4)
    return int(primary)


def item_kinds(data: bytes, iinf: Box) -> dict[int, bytes]:
    """Item → its type."""
    wide, found = data[iinf.body] > 0, {}
    for box in boxes(data, iinf.body + (8 if wide else 6), iinf.end):
        long = data[box.body] == 3
        (item,) = struct.unpack_from(">I" if long else ">H", data, box.body + 4)
        kind = box.body + (10 if long else 8)
        found[item] = data[kind : kind + 4]
    return found


def item_places(data: bytes, iloc: Box) -> Iterator[Place]:
    """The places of items' data in the file, as the item location box lists them."""
    version, place = data[iloc.body], iloc.body + 4
    sizes = data[place] >> 4, data[place] & 15, data[place + 1] >> 4, data[place + 1] & 15
    offset_size, length_size, base_size, index_size = sizes
    index_size = index_size if version else 0
    item_size = 4 if version == 2 else 2
    place += 2

    def number(size: int) -> int:
        nonlocal place
        place += size
        return int.from_bytes(data[place - size : place], "big")

    for _ in range(number(item_size)):
        item = number(item_size)
        method = number(2) & 15 if version else IN_FILE
        number(2)
        base = number(base_size)
        for _ in range(number(2)):
            number(index_size)
            offset_at, offset = place, number(offset_size)
            length_at, length = place, number(length_size)
            if method == IN_FILE:
                yield Place(item, base + offset, length, base, offset_at, offset_size, length_at, length_size)


def item_properties(data: bytes, iprp: Box, item: int) -> tuple[list[Box], set[Box]]:
    """The property boxes of an item, and those of other items."""
    inner = list(boxes(data, iprp.body, iprp.end))
    every = [b for box in inner if box.name == b"ipco" for b in boxes(data, box.body, box.end)]
    own, others = [], set()
    for ipma in (box for box in inner if box.name == b"ipma"):
        version, wide = data[ipma.body], data[ipma.body + 3] & 1
        (count,) = struct.unpack_from(">I", data, ipma.body + 4)
        place = ipma.body + 8
        for _ in range(count):
            (who,) = struct.unpack_from(">I" if version else ">H", data, place)
            place += 4 if version else 2
            listed = data[place]
            place += 1
            for _ in range(listed):
                index = struct.unpack_from(">H", data, place)[0] & 0x7FFF if wide else data[place] & 0x7F
                place += 2 if wide else 1
                if index and who == item:
                    own.append(every[index - 1])
                elif index:
                    others.add(every[index - 1])
    return own, others
