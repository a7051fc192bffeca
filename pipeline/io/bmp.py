"""Headers of BMP files: that of one picture around the pixels of another."""

import struct

import numpy as np
from numpy.typing import NDArray

from pipeline.io.picture import NotWritable

# Length of the file's header, and of the oldest and newest of those that follow.
FILE_HEADER, INFO_HEADER, V5_HEADER = 14, 40, 124
EMBEDDED, LINKED = b"DEBM", b"KNIL"
# Codings: none, and pixels of which masks say where the colours are. From a length on, headers have one for alpha.
UNCOMPRESSED, MASKS = 0, 3
MASKS_AT, ALPHA_HEADER = FILE_HEADER + INFO_HEADER, 56
# Masks of whole bytes; and the byte of alpha in pixels of 32 bits as they are written here.
BYTES = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
ALPHA = 3
NOT_KEPT = "a BMP of 24 or 32 bits was wanted, as it carries more than pixels"


def bmp_profile(data: bytes) -> bytes | None:
    """The ICC profile that a BMP carries; None where it carries none."""
    (length,) = struct.unpack_from("<I", data, FILE_HEADER)
    if length < V5_HEADER or len(data) < FILE_HEADER + V5_HEADER or data[70:74] != EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", data, FILE_HEADER + 112)
    return data[FILE_HEADER + start : FILE_HEADER + start + size]


def check_header(data: bytes) -> None:
    """Raise NotWritable where a BMP that is coded anew carries a profile, or anything behind its pixels."""
    layout = _Layout(data)
    if layout.places is None and (layout.has_profile or layout.carries_more):
        raise NotWritable("unsupported BMP", NOT_KEPT)


def with_header_of(source: bytes, target: bytes) -> bytes:
    """The colours of `target`, an uncompressed BMP of 24 or 32 bits, in the pixels of the file `source`.

    Where `source` is coded in another way than in bytes, `target`, unless `source` carries a profile or anything behind
    its pixels. Raises NotWritable then.
    """
    theirs, ours = _Layout(source), _Layout(target)
    if theirs.places is None or ours.places is None or theirs.shape != ours.shape:
        if theirs.has_profile or theirs.carries_more:
            raise NotWritable("unsupported BMP", NOT_KEPT)
        return target
    old, new = theirs.pixels(source), ours.pixels(target)
    for place, other in zip(theirs.places, ours.places, strict=False):
        old[..., place] = new[..., other]
    if theirs.alpha is not None and ours.bits == 32:
        old[..., theirs.alpha] = new[..., ALPHA]
    return source[: theirs.start] + theirs.coded(source, old) + source[theirs.start + theirs.size :]


class _Layout:
    """Where and how a BMP's pixels lie."""

    def __init__(self, data: bytes) -> None:
        self.start, self.header = struct.unpack_from("<II", data, 10)
        if self.header < INFO_HEADER:  # of OS/2
            self.width, self.height, _, self.bits = struct.unpack_from("<HHHH", data, 18)
            self.coding = UNCOMPRESSED
        else:
            self.width, self.height, _, self.bits, self.coding = struct.unpack_from("<iiHHI", data, 18)
        self.shape = (abs(self.height), self.width)
        self.row = (self.width * self.bits + 31) // 32 * 4
        self.size = self.row * abs(self.height)
        self.has_profile = self.header >= V5_HEADER and data[70:74] in (EMBEDDED, LINKED)
        self.carries_more = self.coding in (UNCOMPRESSED, MASKS) and len(data) > self.start + self.size + 3
        # which bytes of a pixel are blue, green and red, and which is its alpha; None where they are no bytes
        self.places: tuple[int, ...] | None = None
        self.alpha: int | None = None
        if self.coding == UNCOMPRESSED and self.bits in (24, 32):
            self.places = (0, 1, 2)
        elif self.coding == MASKS and self.bits == 32:
            red, green, blue = struct.unpack_from("<III", data, MASKS_AT)
            (alpha,) = struct.unpack_from("<I", data, MASKS_AT + 12) if self.header >= ALPHA_HEADER else (0,)
            if all(mask in BYTES for mask in (red, green, blue)):
                self.places = (BYTES.index(blue), BYTES.index(green), BYTES.index(red))
                self.alpha = BYTES.index(alpha) if alpha in BYTES else None

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        """[height, width, bytes of a pixel], the upper row first, which may be written to."""
        count = self.bits // 8
        held = bytearray(data[self.start : self.start + self.size].ljust(self.size, b"\0"))
        rows = np.frombuffer(held, np.uint8).reshape(len(held) // self.row, self.row)
        pixels = rows[:, : self.width * count].reshape(*self.shape, count)
        return pixels if self.height < 0 else pixels[::-1]

    def coded(self, data: bytes, pixels: NDArray[np.uint8]) -> bytes:
        """The bytes of a file's pixels with others in their place; what pads the rows stays."""
        held = data[self.start : self.start + self.size]
        rows = np.frombuffer(bytearray(held.ljust(self.size, b"\0")), np.uint8).reshape(-1, self.row)
        stored = pixels if self.height < 0 else pixels[::-1]
        rows[:, : self.width * pixels.shape[2]] = stored.reshape(len(stored), -1)
        return rows.tobytes()[: len(held)]
