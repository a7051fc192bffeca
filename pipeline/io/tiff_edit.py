"""A TIFF's bytes in which parts of its pages are replaced.

Every other byte stays where it was: tags, directories, profiles, other pages. What a replaced strip leaves is used for
the next ones, and is zeros where nothing takes it.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import Array, ImageError
from pipeline.io.tiff import LONG, LONG8, SHORT, Directory, Tiff
from pipeline.io.tiff_pages import (
    NONE,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    TILE_COUNTS,
    TILE_OFFSETS,
    Page,
    Segment,
)
from pipeline.io.tiff_segments import encode_segment

# Samples of a part of a page, [h, w, C], and where they are edited, [h, w].
Samples = tuple[Array, NDArray[np.bool_]]


class EditedTiff:
    """The bytes of a file in which parts are replaced."""

    def __init__(self, tiff: Tiff) -> None:
        self._tiff = tiff
        self._out = io.BytesIO(tiff.data)
        self._end = len(tiff.data)
        # parts that nothing uses any more: start and end, apart from each other, in order
        self._free: list[tuple[int, int]] = []

    def edit(self, page: Page, edited: Callable[[Segment], Samples | None]) -> tuple[bool, str | None]:
        """Replace the strips and tiles of a page that `edited` gives samples for; it gives None for the others.

        Whether there were any, and why samples that are not edited were coded again with a loss, as `encode_segment`.
        The page must share no bytes (`shares_bytes`).
        """
        offsets, counts = page.offsets.astype(np.int64), page.counts.astype(np.int64)
        some, recoded = False, None
        for segment in page.segments():
            samples = edited(segment)
            if samples is None:
                continue
            some, parts = True, encode_segment(page, segment, *samples)
            del samples  # which may be the whole picture
            for number, coded, why in parts:
                recoded = recoded or why
                if page.compression == NONE:
                    self.replace(int(offsets[number]) + segment.skip, coded)
                else:
                    self.release(int(offsets[number]), int(counts[number]))
                    offsets[number], counts[number] = self.put(coded), len(coded)
        if page.compression != NONE:
            self.set_numbers(page.directory, TILE_OFFSETS if page.tiled else STRIP_OFFSETS, offsets)
            self.set_numbers(page.directory, TILE_COUNTS if page.tiled else STRIP_COUNTS, counts)
        return some, recoded

    def replace(self, place: int, new: bytes | bytearray) -> None:
        """Put bytes in the place of as many."""
        self._out.seek(place)
        self._out.write(new)

    def release(self, place: int, size: int) -> None:
        """Give a part up, which becomes zeros."""
        self.replace(place, bytes(size))
        before = [span for span in self._free if span[1] < place]
        after = [span for span in self._free if span[0] > place + size]
        meeting = [span for span in self._free if span[1] >= place and span[0] <= place + size]
        start, end = min([place, *(s for s, _ in meeting)]), max([place + size, *(e for _, e in meeting)])
        self._free = [*before, (start, end), *after]

    def put(self, new: bytes | bytearray) -> int:
        """Put bytes into the first part that is free and large enough, or at the end; their place."""
        for i, (start, end) in enumerate(self._free):
            place = start + start % 2
            if place + len(new) <= end:
                # a byte before an even place is given up
                self._free[i] = (place + len(new), end)
                self.replace(place, new)
                return place
        if self._free and self._free[-1][1] == self._end:  # the file may grow there
            place = self._free[-1][0] + self._free[-1][0] % 2
            self._free.pop()
            self._end = place
        return self.append(new)

    def append(self, new: bytes | bytearray) -> int:
        """Put bytes at the end; their place, which is even."""
        place = self._end + self._end % 2
        self.replace(self._end, bytes(place - self._end))
        self.replace(place, new)
        self._end = place + len(new)
        if not self._tiff.big and self._end >= 1 << 32:
            raise ImageError("not encoded", "a TIFF of less than 4 GiB was wanted; save it as a BigTIFF")
        return place

    def set_numbers(self, directory: Directory, code: int, numbers: NDArray[np.int64]) -> None:
        """The first numbers of a tag of places or sizes, in its own place where its type can hold them."""
        tiff, tag = self._tiff, directory.tags[code]
        old = tiff.numbers(tag).astype(np.int64)
        new = old.copy()
        new[: len(numbers)] = numbers
        if (new == old).all():
            return
        kind = tag.kind
        if int(new.max()) >= 1 << {1: 8, SHORT: 16}.get(kind, 64):
            kind = LONG8 if tiff.big else LONG
        packed = new.astype(
            tiff.order + {1: "u1", SHORT: "u2", LONG: "u4", 13: "u4"}.get(kind, "u8")
        ).tobytes()
        if kind == tag.kind:
            self.replace(tag.place, packed)
        else:
            self.replace(tag.entry, self.entry(code, kind, len(new), packed))

    def entry(self, code: int, kind: int, count: int, packed: bytes) -> bytes:
        """A directory's entry; its values are put at the end where it can not hold them."""
        tiff = self._tiff
        where = packed.ljust(tiff.word, b"\0")
        if len(packed) > tiff.word:
            where = tiff.packed(self.append(packed), tiff.word)
        return tiff.packed(code, 2) + tiff.packed(kind, 2) + tiff.packed(count, tiff.word) + where

    def set_directory(self, old: Directory, changes: dict[int, tuple[int, ...] | None]) -> None:
        """A directory anew, with whole numbers in some tags, and without those of None."""
        tiff = self._tiff
        entries = {
            tag.code: tiff.data[tag.entry : tag.entry + tiff.entry_size]
            for tag in old.tags.values()
            if tag.code not in changes
        }
        for code, numbers in changes.items():
            if numbers is not None:
                kind = SHORT if max(numbers) < 1 << 16 else LONG8 if tiff.big else LONG
                code_of_kind = tiff.order + {SHORT: "u2", LONG: "u4", LONG8: "u8"}[kind]
                entries[code] = self.entry(
                    code, kind, len(numbers), np.array(numbers, code_of_kind).tobytes()
                )
        head = tiff.packed(len(entries), 8 if tiff.big else 2)
        following = tiff.data[old.next_at : old.next_at + tiff.word].ljust(tiff.word, b"\0")
        place = self.append(head + b"".join(entries[code] for code in sorted(entries)) + following)
        self.replace(
            old.pointer, tiff.packed(place, tiff.word if old.below == 0 else _pointer_size(tiff, old))
        )

    def finished(self) -> bytes:
        return self._out.getvalue()


def _pointer_size(tiff: Tiff, directory: Directory) -> int:
    """Bytes of the number that leads to a directory below another one."""
    kinds = {
        tag.kind
        for above in tiff.directories
        for tag in above.tags.values()
        if tag.place <= directory.pointer < tag.place + tag.size and tag.code == directory.below
    }
    return 8 if kinds & {16, 17, 18} else 4


def shares_bytes(page: Page) -> bool:
    """Whether a strip or tile of the page has bytes in common with anything else that the directories name."""
    tiff, end = page.tiff, len(page.tiff.data)
    own = _spans(page.offsets, page.counts, end)
    others = [own[:0]]
    for directory in tiff.directories:
        tags = [tag for tag in directory.tags.values() if tag.size > tiff.word]
        places = [directory.place, *(min(tag.place, end) for tag in tags)]
        sizes = [directory.next_at + tiff.word - directory.place, *(min(tag.size, end) for tag in tags)]
        others.append(_spans(np.array(places), np.array(sizes), end))
        if directory is not page.directory:
            others += [_spans(*pair, end) for pair in _segments_of(tiff, directory)]
    spans = np.concatenate([own, *others])
    is_own = np.arange(len(spans)) < len(own)
    order = np.argsort(spans[:, 0], kind="stable")
    spans, is_own = spans[order], is_own[order]
    # the furthest end of what begins before, of everything and of the page's own parts
    ends = np.maximum.accumulate(spans[:, 1])[:-1]
    own_ends = np.maximum.accumulate(np.where(is_own, spans[:, 1], 0))[:-1]
    begins = spans[1:, 0]
    return bool(((begins < ends) & is_own[1:]).any() or (begins < own_ends).any())


def _segments_of(tiff: Tiff, directory: Directory) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Places and sizes of a page's strips and tiles; of a damaged page nothing."""
    for places, sizes in ((STRIP_OFFSETS, STRIP_COUNTS), (TILE_OFFSETS, TILE_COUNTS)):
        if places in directory.tags and sizes in directory.tags:
            with suppress(ImageError):
                yield tiff.numbers(directory.tags[places]), tiff.numbers(directory.tags[sizes])


def _spans(places: NDArray[Any], sizes: NDArray[Any], end: int) -> NDArray[np.int64]:
    """[N, 2] begin and end of parts of a file that ends at `end`."""
    few = min(len(places), len(sizes))
    begins, lengths = (numbers[:few].clip(0, end).astype(np.int64) for numbers in (places, sizes))
    return np.stack([begins, begins + lengths], axis=1)
