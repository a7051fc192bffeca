"""The directories of a TIFF and their tags, as they lie in the file: classic and BigTIFF, both byte orders.

TIFF 6.0 (Adobe, 1992) and the BigTIFF extension. Nothing is decoded here, and no number of the file is trusted.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import ImageError

# Bytes of one value, by the number of its type.
SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
# NumPy's codes of the types of whole numbers.
_WHOLE = {
    1: "u1",
    3: "u2",
    4: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
SHORT, LONG, LONG8 = 3, 4, 16
SUB_DIRECTORIES, EXIF, GPS, INTEROPERABILITY = 330, 34665, 34853, 40965
# Tags that hold places of further directories.
_POINTERS = (SUB_DIRECTORIES, EXIF, GPS, INTEROPERABILITY)
# Most directories that are looked at, and tags in all of them. More is no archive's file.
MOST_DIRECTORIES, MOST_TAGS = 4096, 200_000


def is_tiff(data: bytes) -> bool:
    """Whether the bytes begin as those of a TIFF or a BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Tag:
    """One entry of a directory."""

    code: int
    # number of the type, and of values
    kind: int
    count: int
    # where in the file the entry lies, and where its values do
    entry: int
    place: int

    @property
    def size(self) -> int:
        """Bytes of the values; 0 of an unknown type."""
        return SIZES.get(self.kind, 0) * self.count


@dataclass(frozen=True)
class Directory:
    """A list of tags; of a page, its description."""

    # where it lies, and where the number lies that says so
    place: int
    pointer: int
    # the first of each code
    tags: dict[int, Tag]
    # where the place of the next directory stands
    next_at: int
    # what it was found in: the chain of pages, or a tag's code
    below: int = 0


@dataclass(frozen=True)
class Tiff:
    """A file and its directories."""

    data: bytes = field(repr=False)
    # "<" or ">"
    order: str
    big: bool
    directories: tuple[Directory, ...] = ()

    @classmethod
    def of(cls, data: bytes) -> "Tiff":
        """The structure of a file that `is_tiff`. Raises ImageError where its first directory can not be read."""
        order = "<" if data[:1] == b"I" else ">"
        bare = cls(data, order, data[2:4] in (b"+\0", b"\0+"))
        found = tuple(bare._walk())
        if not found:
            raise ImageError("truncated", "a TIFF's first directory was wanted, it is not within the file")
        return cls(data, order, bare.big, found)

    @property
    def word(self) -> int:
        """Bytes of a place in the file."""
        return 8 if self.big else 4

    @property
    def entry_size(self) -> int:
        return 20 if self.big else 12

    def number(self, place: int, size: int) -> int | None:
        """The whole number of `size` bytes at a place; None beyond the end."""
        if place < 0 or place + size > len(self.data):
            return None
        return int.from_bytes(self.data[place : place + size], "little" if self.order == "<" else "big")

    def packed(self, number: int, size: int) -> bytes:
        """A whole number as `size` bytes of the file's order."""
        return number.to_bytes(size, "little" if self.order == "<" else "big")

    def numbers(self, tag: Tag) -> NDArray[Any]:
        """A tag's whole numbers. Raises ImageError where they are none, or not within the file."""
        code = _WHOLE.get(tag.kind)
        if code is None:
            raise ImageError(
                "truncated", f"whole numbers were wanted in tag {tag.code}, its type is {tag.kind}"
            )
        if tag.place + tag.size > len(self.data):
            raise ImageError("truncated", f"the values of tag {tag.code} are not within the file")
        return np.frombuffer(self.data, np.dtype(self.order + code), tag.count, tag.place)

    def value(self, directory: Directory, code: int, default: int) -> int:
        """The first whole number of a tag, or the default where the tag is missing. Raises ImageError."""
        tag = directory.tags.get(code)
        if tag is None or not tag.count:
            return default
        return int(self.numbers(tag)[0])

    def bytes_of(self, directory: Directory, code: int) -> bytes | None:
        """A tag's bytes; None where it is missing or not within the file."""
        tag = directory.tags.get(code)
        if tag is None or tag.place + tag.size > len(self.data):
            return None
        return self.data[tag.place : tag.place + tag.size]

    def _walk(self) -> Iterator[Directory]:
        """Every directory once: the chain of pages, and after each those below it."""
        if self.big and self.data[4:8] != self.packed(8, 2) + bytes(2):
            return
        seen: set[int] = set()
        left = [MOST_TAGS]
        pointer = 8 if self.big else 4
        while (directory := self._directory(pointer, 0, seen, left)) is not None:
            yield directory
            yield from self._below(directory, seen, left)
            pointer = directory.next_at

    def _below(self, directory: Directory, seen: set[int], left: list[int]) -> Iterator[Directory]:
        waiting = [directory]
        while waiting:
            above = waiting.pop(0)
            for code in _POINTERS:
                tag = above.tags.get(code)
                if tag is None or SIZES.get(tag.kind) not in (4, 8):
                    continue
                for i in range(min(tag.count, MOST_DIRECTORIES)):
                    pointer = tag.place + i * SIZES[tag.kind]
                    found = self._directory(pointer, code, seen, left, SIZES[tag.kind])
                    if found is not None:
                        yield found
                        waiting.append(found)

    def _directory(
        self, pointer: int, below: int, seen: set[int], left: list[int], size: int | None = None
    ) -> Directory | None:
        """The directory whose place stands at `pointer`; None where there is none that was not seen before."""
        place = self.number(pointer, size or self.word)
        if not place or place in seen or len(seen) >= MOST_DIRECTORIES:
            return None
        head, step = (8, 20) if self.big else (2, 12)
        count = self.number(place, head)
        if not count or count > left[0]:
            return None
        end = place + head + count * step
        if end > len(self.data):
            return None
        seen.add(place)
        left[0] -= count
        tags: dict[int, Tag] = {}
        for entry in range(place + head, end, step):
            tag = self._tag(entry)
            tags.setdefault(tag.code, tag)
        return Directory(place, pointer, tags, end, below)

    def _tag(self, entry: int) -> Tag:
        if self.big:
            code, kind, count, place = struct.unpack_from(f"{self.order}HHQQ", self.data, entry)
        else:
            code, kind, count, place = struct.unpack_from(f"{self.order}HHII", self.data, entry)
        if SIZES.get(kind, 0) * count <= self.word:
            place = entry + self.entry_size - self.word
        return Tag(code, kind, count, entry, place)
