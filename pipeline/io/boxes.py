"""The boxes of ISO files (JPEG 2000, JPEG XL): a length, a name of four letters, and a body."""

from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """Where a box lies in its file: `start` of its header, `body`, and `end`, as byte offsets."""

    name: bytes
    start: int
    body: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two places. Raises ValueError where one leads beyond the end."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length, name, body = (
            int.from_bytes(data[start : start + 4], "big"),
            data[start + 4 : start + 8],
            start + 8,
        )
        if length == 1:
            length, body = int.from_bytes(data[start + 8 : start + 16], "big"), start + 16
        after = start + length if length else end
        if after > end or after < body:
            raise ValueError(f"a box {name!r} ends beyond its file")
        yield Box(name, start, body, after)
        start = after


def with_body(data: bytes, box: Box, body: bytes) -> bytes:
    """A box of a file with another body, in a header of the same form where that fits."""
    header = data[box.start : box.body]
    if header[:4] == bytes(4):  # to the end of the file
        return bytes(4) + box.name + body
    length = len(header) + len(body)
    if len(header) == 8 and length < 1 << 32:
        return length.to_bytes(4, "big") + box.name + body
    return b"\0\0\0\1" + box.name + (16 + len(body)).to_bytes(8, "big") + body
