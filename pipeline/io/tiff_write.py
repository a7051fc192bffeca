"""An edited TIFF: the file it was, in which only the strips and tiles with an edited pixel, and their places, are new.

Every other byte stays where it was: tags, directories, profiles, other pages. What an edited strip leaves is used for
the next ones, and is zeros where nothing takes it.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import Array, ImageError, Picture, SkippedImage
from pipeline.io.tiff import LONG, LONG8, SHORT, Directory, Tiff
from pipeline.io.tiff_colour import Colour
from pipeline.io.tiff_pages import (
    BITS,
    COMPRESSION,
    DEFLATE,
    FILL_ORDER,
    HEIGHT,
    JPEG,
    JPEG_TABLES,
    NONE,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RGB,
    ROWS,
    SAMPLES,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    TILE_COUNTS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    YCBCR,
    Page,
    Segment,
)  # fmt: skip
from pipeline.io.tiff_segments import decode_segment, encode_samples, encode_segment
from pipeline.io.tiff_thumbnails import renewed_tags

# Of YCbCr: its coefficients, chroma sampling, positions and reference levels.
CHROMA_TAGS = (529, 530, 531, 532)
# Pixels that are edited at once, and of a strip of a page that is laid out anew.
STRIP = 1 << 18


@dataclass(frozen=True, eq=False)
class TiffFile:
    """A TIFF whose picture is in one of its pages; see picture.Original."""

    page: Page

    def to_rgb(self, stored: Array) -> NDArray[np.uint8]:
        samples = stored[..., None] if stored.ndim == 2 else stored
        return Colour(_plain(self.page)).to_rgb(samples)

    def encode(self, picture: Picture, rgb: Any) -> tuple[bytes, str | None]:
        page = self.page
        if page.palette is not None or picture.stored.shape[:2] != (page.height, page.width):
            return _laid_out_anew(picture, page, rgb)
        file = _File(page)
        colour, recoded = Colour(page), None
        offsets, counts = page.offsets.astype(np.int64), page.counts.astype(np.int64)
        untouched = True
        for segment in page.segments():
            edited = _edited(picture, colour, segment, rgb)
            if edited is None:
                continue
            untouched, parts = False, encode_segment(page, segment, *edited)
            del edited  # which may be the whole picture
            for number, coded, why in parts:
                recoded = recoded or why
                if page.compression == NONE:
                    file.replace(int(offsets[number]) + segment.skip, coded)
                else:
                    file.release(int(offsets[number]), int(counts[number]))
                    offsets[number], counts[number] = file.put(coded), len(coded)
        if page.compression != NONE:
            file.set_numbers(TILE_OFFSETS if page.tiled else STRIP_OFFSETS, offsets)
            file.set_numbers(TILE_COUNTS if page.tiled else STRIP_COUNTS, counts)
        for place, new in [] if untouched else renewed_tags(page.tiff, picture, rgb):
            file.replace(place, new)
        return file.finished(), recoded


def _plain(page: Page) -> Page:
    """The page as it is laid out anew: a palette's or a JPEG's as RGB, with nothing behind the colours but alpha."""
    indexed, coded = page.palette is not None, page.compression == JPEG
    alpha = () if page.alpha is None else (page.extra[page.alpha - page.colours],)
    return replace(
        page,
        bits=8 if indexed else page.bits,
        samples=3 if indexed else page.colours + len(alpha),
        photometric=RGB if indexed or page.photometric == YCBCR else page.photometric,
        compression=DEFLATE if coded else page.compression,
        planar=False,
        extra=alpha,
    )


def _change(picture: Picture, rgb: Any, rows: slice, columns: slice) -> NDArray[np.float32] | None:
    """[h, w, 3] what is added to the picture's own sRGB there, as it is stored; None where that is nothing."""
    box = picture.upright_box(rows, columns)
    part = rgb[box].astype(np.float32, copy=False) if isinstance(rgb, np.ndarray) else rgb.part(*box)
    if part is None:
        return None
    change: NDArray[np.float32] = picture.as_stored(part - picture.rgb[box])
    return change if change.any() else None


def _edited(
    picture: Picture, colour: Colour, segment: Segment, rgb: Any
) -> tuple[Array, NDArray[np.bool_]] | None:
    """Samples of a part of the picture, [h, w, C], and where they are edited, [h, w]; None where nowhere."""
    (top, bottom), (left, right) = ((s.start, s.stop) for s in (segment.rows, segment.columns))
    samples, page = None, colour.page
    touched = np.zeros((bottom - top, right - left), bool)
    if picture.alpha is not None:
        samples = _decoded(page, segment)
        alpha = picture.alpha[segment.rows, segment.columns]
        touched = samples[..., page.alpha] != alpha
    few = max(STRIP // (right - left), 1)
    for first in range(0, bottom - top, few):
        rows = slice(first, min(first + few, bottom - top))
        change = _change(picture, rgb, slice(top + rows.start, top + rows.stop), segment.columns)
        if change is not None:
            samples = _decoded(page, segment) if samples is None else samples
            colour.add(samples[rows], change)
            touched[rows] |= change.any(axis=2)
    if samples is None or not touched.any():
        return None
    if picture.alpha is not None:
        samples[..., page.alpha] = alpha
    return samples, touched


def _decoded(page: Page, segment: Segment) -> Array:
    return np.require(decode_segment(page, segment), requirements="W")


class _File:
    """The bytes of a file in which parts of one page are replaced."""

    def __init__(self, page: Page) -> None:
        self._tiff, self._directory = page.tiff, page.directory
        self._out = io.BytesIO(page.tiff.data)
        self._end = len(page.tiff.data)
        # parts that nothing uses any more: start and end, apart from each other, in order
        self._free: list[tuple[int, int]] = []
        if _share_bytes(page):
            raise SkippedImage(
                "unsupported TIFF", "its strips or tiles share bytes with other parts of the file"
            )

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

    def set_numbers(self, code: int, numbers: NDArray[np.int64]) -> None:
        """The first numbers of a tag of places or sizes, in its own place where its type can hold them."""
        tiff, tag = self._tiff, self._directory.tags[code]
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

    def set_directory(self, changes: dict[int, tuple[int, ...] | None]) -> None:
        """The page's directory anew, with whole numbers in some tags, and without those of None."""
        tiff, old = self._tiff, self._directory
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


def _share_bytes(page: Page) -> bool:
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


def _laid_out_anew(picture: Picture, page: Page, rgb: Any) -> tuple[bytes, str | None]:
    """The file with other samples in this page: a palette's become RGB, or the picture was enlarged.

    The page's directory is written anew at the end; every tag that says nothing of the layout stays.
    """
    if page.samples > page.colours + (page.alpha is not None):
        raise SkippedImage("unsupported TIFF", "the samples behind the colours of a TIFF can not be enlarged")
    target = _plain(page)
    colour, file = Colour(target), _File(page)
    for place, size in zip(page.offsets.tolist(), page.counts.tolist(), strict=True):
        file.release(place, size)
    every = np.asarray(picture.stored)
    height, width = every.shape[:2]
    high = min(max(STRIP // width, 1), height)
    places, sizes = [], []
    for top in range(0, height, high):
        rows = slice(top, min(top + high, height))
        stored = every[rows]
        samples = np.empty((*stored.shape[:2], target.samples), stored.dtype)
        samples[..., : target.colours] = stored.reshape(*stored.shape[:2], -1)
        if picture.alpha is not None:
            samples[..., -1] = picture.alpha[rows]
        change = _change(picture, rgb, rows, slice(0, width))
        if change is not None:
            colour.add(samples, change)
        coded = encode_samples(target, samples)
        places.append(file.put(coded))
        sizes.append(len(coded))
    changes: dict[int, tuple[int, ...] | None] = {
        WIDTH: (width,), HEIGHT: (height,), BITS: (target.bits,) * target.samples, SAMPLES: (target.samples,),
        COMPRESSION: (target.compression,), PHOTOMETRIC: (target.photometric,), PLANAR: (1,),
        ROWS: (high,), STRIP_OFFSETS: tuple(places), STRIP_COUNTS: tuple(sizes),
    }  # fmt: skip
    gone = [TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, PALETTE]
    gone += [JPEG_TABLES, *CHROMA_TAGS, PREDICTOR, FILL_ORDER] if page.compression == JPEG else []
    file.set_directory(changes | dict.fromkeys(gone))
    return (
        file.finished(),
        "its JPEG strips or tiles are delivered as Deflate" if page.compression == JPEG else None,
    )
