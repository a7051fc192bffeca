"""The page of a TIFF that holds the picture, and how its samples lie in the file."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import UPRIGHT, ImageError, NotWritable, SkippedImage
from pipeline.io.tiff import SUB_DIRECTORIES, Directory, Tiff

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_COUNTS, PLANAR = (
    266,
    273,
    274,
    277,
    278,
    279,
    284,
)
PREDICTOR, PALETTE, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 317, 320, 322, 323, 324, 325
INKS, EXTRA, FORMAT, JPEG_TABLES, PROFILE = 332, 338, 339, 347, 34675

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, INDEXED, TRANSPARENCY, SEPARATED, YCBCR = range(7)
CIELAB = 8
_PHOTOMETRIC_NAMES = {
    4: "a transparency mask",
    6: "YCbCr without JPEG",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
}
_PHOTOMETRIC_NAMES |= {32803: "the raw samples of a sensor", 34892: "the raw samples of a sensor"}
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, INDEXED: 1, SEPARATED: 4, YCBCR: 3}
NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
COMPRESSIONS = (NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD)
_COMPRESSION_NAMES = {
    2: "fax",
    3: "fax",
    4: "fax",
    6: "old-style JPEG",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
}
_COMPRESSION_NAMES |= {34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"}
# Compressions that are decoded and not written: fax, LERC, WebP.
READ_ONLY = (2, 3, 4, 34887, 50001)
# Samples of a pixel that are read; scanners' infrared and masks are among them.
MOST_SAMPLES = 16
# Samples of uncompressed rows that are worked on at once.
ROWS_AT_ONCE = 1 << 20


class Segment(NamedTuple):
    """A strip or a tile, or some rows of an uncompressed strip."""

    # of the picture as stored
    rows: slice
    columns: slice
    # its numbers among the page's segments: one, or one of each plane
    numbers: tuple[int, ...]
    # height and width as stored: a tile reaches beyond the picture
    size: tuple[int, int]
    # bytes of the segment before its first row
    skip: int = 0


@dataclass(frozen=True, eq=False)
class Page:
    """How one page's samples lie in the file."""

    tiff: Tiff = field(repr=False)
    directory: Directory = field(repr=False)
    width: int
    height: int
    # of one sample; fewer than 8 only of a palette's
    bits: int
    samples: int
    photometric: int
    compression: int
    predictor: int
    planar: bool
    reverse_bits: bool
    # height and width of a tile; rows of a strip and the picture's width
    tile: tuple[int, int]
    tiled: bool
    # kinds of the samples behind the colours: 1 premultiplied alpha, 2 alpha, 0 unknown
    extra: tuple[int, ...]
    orientation: int
    offsets: NDArray[Any] = field(repr=False)
    counts: NDArray[Any] = field(repr=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of samples in memory."""
        return np.dtype(np.uint16 if self.bits == 16 else np.uint8)

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """Of samples in the file."""
        return np.dtype(self.tiff.order + self.dtype.str[1:])

    @property
    def colours(self) -> int:
        """Samples of a pixel that are colours."""
        return _COLOURS[self.photometric]

    @property
    def alpha(self) -> int | None:
        """Which sample of a pixel is alpha; None where there is none."""
        return next((self.colours + i for i, kind in enumerate(self.extra) if kind in (1, 2)), None)

    @property
    def premultiplied(self) -> bool:
        """Whether the colours were multiplied by alpha."""
        return self.alpha is not None and self.extra[self.alpha - self.colours] == 1

    @property
    def channels(self) -> int:
        """Samples of a pixel in one segment."""
        return 1 if self.planar else self.samples

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of one segment."""
        return -(-width * self.channels * self.bits // 8)

    @cached_property
    def palette(self) -> NDArray[np.uint8] | None:
        """[2**bits, 3] of a page of indices, as 8 bits."""
        if self.photometric != INDEXED:
            return None
        tag = self.directory.tags.get(PALETTE)
        colours = np.zeros(0, np.uint16) if tag is None else self.tiff.numbers(tag)
        if colours.size != 3 << self.bits:
            raise ImageError(
                "truncated", f"{3 << self.bits} numbers of a palette were wanted, got {colours.size}"
            )
        return (colours.reshape(3, -1).T >> 8).astype(np.uint8)

    def segments(self) -> Iterator[Segment]:
        """Every part of the picture that is decoded at once, in the file's order."""
        high, wide = self.tile
        across, down = -(-self.width // wide), -(-self.height // high)
        planes = self.samples if self.planar else 1
        for i in range(across * down):
            top, left = i // across * high, i % across * wide
            numbers = tuple(i + plane * across * down for plane in range(planes))
            bottom, right = min(top + high, self.height), min(left + wide, self.width)
            if self.tiled or self.compression != NONE:
                rows = high if self.tiled else bottom - top
                yield Segment(slice(top, bottom), slice(left, right), numbers, (rows, wide))
                continue
            few = max(ROWS_AT_ONCE // (wide * self.samples), 1)
            for first in range(top, bottom, few):
                last = min(first + few, bottom)
                skip = (first - top) * self.row_bytes(wide)
                yield Segment(slice(first, last), slice(left, right), numbers, (last - first, wide), skip)


def find_page(tiff: Tiff) -> Directory:
    """The page with the picture: the largest one that is no reduced copy and no mask, the first of equal ones.

    Pages without a size that can be read are passed over. Raises ImageError where there is no other.
    """
    pages = [
        d for d in tiff.directories if d.below in (0, SUB_DIRECTORIES) and {WIDTH, HEIGHT} <= d.tags.keys()
    ]
    ranks = [_rank(tiff, page) for page in pages]
    if not any(is_whole or pixels for is_whole, pixels in ranks):
        raise ImageError("truncated", "a TIFF's page was wanted, no directory has the size of one")
    return pages[ranks.index(max(ranks))]


def _rank(tiff: Tiff, page: Directory) -> tuple[int, int]:
    """Larger for a whole page than for a reduced copy or a mask, and by its pixels; of a damaged page (0, 0)."""
    with suppress(ImageError):
        width, height = page_size(tiff, page)
        reduced_or_mask = tiff.value(page, SUBFILE, 0) & 0b101
        reduced_or_mask = reduced_or_mask or tiff.value(page, OLD_SUBFILE, 1) == 2
        is_whole = not reduced_or_mask and tiff.value(page, PHOTOMETRIC, 0) != TRANSPARENCY
        return int(is_whole), width * height
    return 0, 0


def page_size(tiff: Tiff, page: Directory) -> tuple[int, int]:
    """Width and height that a page's tags give."""
    return tiff.value(page, WIDTH, 0), tiff.value(page, HEIGHT, 0)


def read_page(tiff: Tiff, directory: Directory) -> Page:
    """How a page's samples lie. Its size has been judged.

    Raises SkippedImage for what can not be written back, and ImageError for what contradicts itself.
    """
    width, height = page_size(tiff, directory)

    def value(code: int, default: int) -> int:
        return tiff.value(directory, code, default)

    samples, photometric, compression = value(SAMPLES, 1), value(PHOTOMETRIC, -1), value(COMPRESSION, NONE)
    bits = _bits(tiff, directory)
    if photometric == -1:  # which is required; most readers take white as zero only where it is said
        photometric = RGB if samples >= 3 else BLACK_IS_ZERO
    _check_kind(tiff, directory, bits, samples, photometric, compression)
    extra = _extra(tiff, directory, samples - _COLOURS[photometric], photometric)
    tiled = TILE_OFFSETS in directory.tags or TILE_WIDTH in directory.tags
    rows = min(value(ROWS, height), height) or height
    tile = (value(TILE_HEIGHT, 0), value(TILE_WIDTH, 0)) if tiled else (rows, width)
    planar = value(PLANAR, 1) == 2 and samples > 1
    if tiled and not _is_sound_tile(tile, width, height):
        raise ImageError("truncated", f"tiles of a TIFF were wanted, got {tile[1]}x{tile[0]} pixels")
    segments = -(-width // tile[1]) * -(-height // tile[0]) * (samples if planar else 1)
    orientation = value(ORIENTATION, 1)
    page = Page(
        tiff, directory, width, height, bits, samples, photometric, compression,
        predictor=value(PREDICTOR, 1) if compression not in (NONE, JPEG, PACKBITS) else 1,
        planar=planar,
        reverse_bits=value(FILL_ORDER, 1) == 2 and compression != JPEG,
        tile=tile,
        tiled=tiled,
        extra=extra,
        orientation=orientation if orientation in UPRIGHT else 1,
        offsets=_places(tiff, directory, TILE_OFFSETS if tiled else STRIP_OFFSETS, segments),
        counts=np.zeros(0),
    )  # fmt: skip
    if page.predictor not in (1, 2):
        raise SkippedImage("unsupported TIFF", f"a TIFF's predictor 1 or 2 was wanted, got {page.predictor}")
    if page.predictor == 2 and bits < 8:
        raise SkippedImage("unsupported TIFF", f"a TIFF of {bits} bits with a predictor can not be read")
    return replace(page, counts=_counts(page, segments))


def _bits(tiff: Tiff, directory: Directory) -> int:
    """Bits of every sample. Raises SkippedImage where they differ."""
    tag = directory.tags.get(BITS)
    found = {1} if tag is None else {int(n) for n in tiff.numbers(tag)[:MOST_SAMPLES]}
    if len(found) != 1:
        raise SkippedImage(
            "deep samples", f"samples of one depth were wanted, got {sorted(found)} bits in one TIFF"
        )
    return found.pop()


def _check_kind(
    tiff: Tiff, directory: Directory, bits: int, samples: int, photometric: int, compression: int
) -> None:
    """Raise SkippedImage for kinds of samples that can not be written back."""
    tag = directory.tags.get(FORMAT)
    formats = {1} if tag is None else {int(n) for n in tiff.numbers(tag)[:MOST_SAMPLES]}
    if 3 in formats or 6 in formats:
        raise SkippedImage("float samples", "samples of 8 or 16 bits were wanted, got floating point numbers")
    if formats - {1, 4}:
        raise SkippedImage(
            "deep samples", "samples without a sign were wanted, got signed or complex ones in a TIFF"
        )
    if compression not in COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(compression, f"the compression {compression}")
        if bits > 1 or name != "fax":
            kind = NotWritable if compression in READ_ONLY else SkippedImage
            raise kind("unsupported TIFF", f"a TIFF of {name} can not be written back")
    if bits < 8 and photometric != INDEXED:
        raise NotWritable(
            "few bits", f"samples of 8 or 16 bits were wanted, got {bits}, which can not hold a restored face"
        )
    if photometric not in _COLOURS or (photometric == YCBCR and compression != JPEG):
        name = _PHOTOMETRIC_NAMES.get(photometric, f"the photometric interpretation {photometric}")
        kind = NotWritable if photometric in (YCBCR, CIELAB) else SkippedImage
        raise kind("unsupported TIFF", f"grey, RGB, CMYK or a palette was wanted in a TIFF, got {name}")
    if bits not in ((1, 2, 4, 8) if photometric == INDEXED else (8, 16)):
        kind = NotWritable if bits < 16 else SkippedImage
        raise kind("deep samples", f"samples of 8 or 16 bits were wanted in a TIFF, got {bits}")
    if not _COLOURS[photometric] <= samples <= MOST_SAMPLES or (photometric == INDEXED and samples > 1):
        raise SkippedImage("unsupported TIFF", f"{samples} samples a pixel of a TIFF can not be written back")
    if photometric == SEPARATED and tiff.value(directory, INKS, 1) != 1:
        raise SkippedImage("unsupported TIFF", "the inks of CMYK were wanted in a TIFF, got other ones")
    if compression == JPEG and (bits != 8 or photometric in (SEPARATED, INDEXED)):
        raise SkippedImage(
            "unsupported TIFF", "grey or RGB of 8 bits was wanted as JPEG in a TIFF, got another kind"
        )


def _extra(tiff: Tiff, directory: Directory, count: int, photometric: int) -> tuple[int, ...]:
    """The kind of each sample behind the colours."""
    tag = directory.tags.get(EXTRA)
    if tag is None:  # a fourth sample of RGB is taken as alpha, as other readers do
        return ((2,) if count == 1 and photometric == RGB else (0,) * count)[:count]
    kinds = [int(n) for n in tiff.numbers(tag)[:count]]
    return tuple(kinds + [0] * (count - len(kinds)))


def _is_sound_tile(tile: tuple[int, int], width: int, height: int) -> bool:
    """Whether tiles are about as large as the picture at most, so that decoding one takes no more than that."""
    high, wide = tile
    return high > 0 and wide > 0 and high <= max(2 * height, 1024) and wide <= max(2 * width, 1024)


def _places(tiff: Tiff, directory: Directory, code: int, wanted: int) -> NDArray[Any]:
    tag = directory.tags.get(code)
    found = np.zeros(0, np.int64) if tag is None else tiff.numbers(tag)
    if len(found) < wanted:
        raise ImageError(
            "truncated", f"{wanted} strips or tiles of a TIFF were wanted, its tag names {len(found)}"
        )
    return found[:wanted]


def _counts(page: Page, segments: int) -> NDArray[Any]:
    """Bytes of every segment. Of uncompressed ones the size says it: the tag may be missing or wrong."""
    if page.compression != NONE:
        return _places(page.tiff, page.directory, TILE_COUNTS if page.tiled else STRIP_COUNTS, segments)
    high, wide = page.tile
    counts = np.full(segments, high * page.row_bytes(wide), np.int64)
    if not page.tiled and page.height % high:
        planes = page.samples if page.planar else 1
        counts[segments // planes - 1 :: segments // planes] = page.height % high * page.row_bytes(wide)
    return counts
