"""A file that is read by ranges, each of which is a request to a server."""

import io
import os
from collections.abc import Callable
from typing import Any

# The first bytes that are fetched at a new place; they double while reading goes on from there.
SMALLEST_BLOCK, LARGEST_BLOCK = 64 << 10, 8 << 20
# A gap up to here is read through: asking anew would take longer than its bytes.
SMALL_GAP = 512 << 10


class RangeReader(io.RawIOBase):
    """A seekable file over `fetch(begin, end)`, which gives exactly those bytes or raises.

    Reading on fetches ever larger blocks ahead; jumping, as over the members of a tar, fetches little more than wanted.
    A read is short at the end of the file only.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._place = 0
        # bytes of the file from `_begin` on
        self._held, self._begin = b"", 0
        self._block = SMALLEST_BLOCK // 2

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"a place in the file was wanted, got {start + offset}")
        self._place = start + offset
        return self._place

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        wanted = max(min(len(view), self._size - self._place), 0)
        filled = 0
        while filled < wanted:
            start = self._place - self._begin
            if not 0 <= start < len(self._held):
                self._hold(wanted - filled)
                start = 0
            piece = self._held[start : start + wanted - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._place += len(piece)
        return filled

    def readall(self) -> bytes:
        return self.read(max(self._size - self._place, 0)) or b""

    def _hold(self, wanted: int) -> None:
        """Fetch the next block, with at least the wanted bytes in it up to the largest block."""
        gap = self._place - (self._begin + len(self._held))
        self._block = min(self._block * 2, LARGEST_BLOCK) if 0 <= gap <= SMALL_GAP else SMALLEST_BLOCK
        length = max(self._block, min(wanted, LARGEST_BLOCK))
        end = min(self._place + length, self._size)
        self._held, self._begin = self._fetch(self._place, end), self._place
