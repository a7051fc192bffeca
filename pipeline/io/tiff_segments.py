"""Strips and tiles of a TIFF: bytes → samples, and samples → bytes coded the same way."""

import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import Array, ImageError
from pipeline.io.tiff_jpeg import decode_jpeg, encode_jpeg
from pipeline.io.tiff_pages import DEFLATE, JPEG, LZMA, LZW, NONE, OLD_DEFLATE, PACKBITS, ZSTD, Page, Segment

Bytes = bytes | memoryview
_LEVEL = 6
# Bytes that are compressed at once.
PIECE = 1 << 22


def _inflate(coded: Bytes, size: int) -> bytes | bytearray:
    try:
        return imagecodecs.zlib_decode(coded, out=bytearray(size))  # type: ignore[arg-type]
    except imagecodecs.ZlibError:  # a strip of more rows than it should have, which other readers take
        return zlib.decompressobj().decompress(coded, size)


def _unpack_lzma(coded: Bytes, size: int) -> bytes:
    return lzma.LZMADecompressor().decompress(coded, size)


def _deflate(plain: memoryview) -> bytearray:
    """In pieces, as the library would hold the result twice."""
    packer, packed = zlib.compressobj(_LEVEL), bytearray()
    for start in range(0, len(plain), PIECE):
        packed += packer.compress(plain[start : start + PIECE])
    packed += packer.flush()
    return packed


def _pack_lzma(plain: memoryview) -> bytes:
    return lzma.compress(plain, lzma.FORMAT_XZ, lzma.CHECK_NONE, _LEVEL)


# By compression: coded bytes and the most bytes of the result → that; and back.
_DECODERS: Mapping[int, Callable[..., Any]] = {
    LZW: lambda coded, size: imagecodecs.lzw_decode(coded, out=size),
    DEFLATE: _inflate,
    OLD_DEFLATE: _inflate,
    PACKBITS: lambda coded, size: imagecodecs.packbits_decode(coded, out=size),
    LZMA: _unpack_lzma,
    ZSTD: lambda coded, size: imagecodecs.zstd_decode(coded, out=size),
}
_ENCODERS: Mapping[int, Callable[[Any], Any]] = {
    LZW: imagecodecs.lzw_encode,
    DEFLATE: _deflate,
    OLD_DEFLATE: _deflate,
    LZMA: _pack_lzma,
    ZSTD: imagecodecs.zstd_encode,
}


def decode_segment(page: Page, segment: Segment) -> Array:
    """[h, w, C] samples of a part of the picture, cut to it; C counts the colours and the samples behind them.

    Of a palette's page: indices. Raises ImageError, SkippedImage and whatever a decoder raises.
    """
    rows, columns = segment.rows.stop - segment.rows.start, segment.columns.stop - segment.columns.start
    planes = [_decode(page, segment, number)[:rows, :columns] for number in segment.numbers]
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def _decode(page: Page, segment: Segment, number: int) -> Array:
    """[h, w, C] of one strip or tile, in this machine's byte order."""
    high, wide = segment.size
    row = page.row_bytes(wide)
    coded: Any = coded_bytes(page, segment, number)
    if page.compression == JPEG:
        return decode_jpeg(page, coded, segment.size)
    if page.reverse_bits:
        coded = imagecodecs.bitorder_decode(bytes(coded))
    plain = coded if page.compression == NONE else _DECODERS[page.compression](coded, high * row)
    if len(plain) < high * row:
        raise ImageError("truncated", f"{high * row} bytes of a strip or tile were wanted, got {len(plain)}")
    if page.bits < 8:
        return _indices(plain, high, row, page.bits)[:, :wide, None]
    stored = np.frombuffer(plain, page.file_dtype, high * wide * page.channels)
    samples = stored.reshape(high, wide, page.channels).astype(page.dtype, copy=False)
    if page.predictor != 2:
        return samples
    return imagecodecs.delta_decode(samples, axis=1, out=samples if samples.flags.writeable else None)


def coded_bytes(page: Page, segment: Segment, number: int) -> memoryview:
    """The bytes of one strip or tile in the file. Raises ImageError where they are not within it."""
    start, count = int(page.offsets[number]), int(page.counts[number])
    if page.compression == NONE:
        start, count = start + segment.skip, segment.size[0] * page.row_bytes(segment.size[1])
    if start <= 0 or count <= 0 or start + count > len(page.tiff.data):
        raise ImageError(
            "truncated",
            f"{count} bytes of a strip or tile were wanted at {start}, they are not within the file",
        )
    return memoryview(page.tiff.data)[start : start + count]


def _indices(plain: Bytes, high: int, row: int, bits: int) -> NDArray[np.uint8]:
    """[h, w] of samples of fewer than 8 bits, the first in the highest bits of a byte."""
    packed = np.frombuffer(plain, np.uint8, high * row).reshape(high, row, 1)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    spread: NDArray[np.uint8] = (packed >> shifts) & np.uint8((1 << bits) - 1)
    return spread.reshape(high, -1)


def encode_segment(
    page: Page, segment: Segment, samples: Array, touched: NDArray[np.bool_]
) -> list[tuple[int, bytes | bytearray, str | None]]:
    """Number and bytes of each strip or tile of a part, with its samples, [h, w, C], in place of those it had.

    Third comes why samples that are not `touched`, [h, w], were coded again with a loss; None where they were not.
    What a tile has beyond the picture repeats its border.
    """
    rows, columns = samples.shape[:2]
    beyond = ((0, segment.size[0] - rows), (0, segment.size[1] - columns))
    if any(n for _, n in beyond):
        samples, touched = np.pad(samples, (*beyond, (0, 0)), mode="edge"), np.pad(touched, beyond)
    done: list[tuple[int, bytes | bytearray, str | None]] = []
    for plane, number in enumerate(segment.numbers):
        part = samples[..., plane : plane + 1] if page.planar else samples
        if page.compression == JPEG:
            coded = coded_bytes(page, segment, number)
            done.append((number, *encode_jpeg(page, coded, part, touched)))
        else:
            done.append((number, encode_samples(page, part), None))
    return done


def encode_samples(page: Page, samples: Array) -> bytes | bytearray:
    """[h, w, C] of one strip or tile → bytes, in the page's compression, predictor and byte order.

    The samples are not kept: a whole picture may be one strip, and take too much twice.
    """
    if page.predictor == 2:
        samples = np.require(samples, requirements=["C", "W"])
        samples = imagecodecs.delta_encode(samples, axis=1, out=samples)
    plain = np.ascontiguousarray(samples.astype(page.file_dtype, copy=False))
    if page.compression == NONE:
        coded: Any = plain.tobytes()
    elif page.compression == PACKBITS:  # whose rows are coded one by one
        coded = b"".join(imagecodecs.packbits_encode(line.tobytes()) for line in plain)
    else:
        coded = _ENCODERS[page.compression](plain.reshape(-1).view(np.uint8).data)
    return imagecodecs.bitorder_encode(bytes(coded)) if page.reverse_bits else coded
