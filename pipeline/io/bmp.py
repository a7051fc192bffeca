"""Headers of BMP files: that of one picture around the pixels of another."""

import struct

from pipeline.io.picture import NotWritable, SkippedImage

# Length of the file's header, and of the oldest and newest of those that follow.
FILE_HEADER, INFO_HEADER, V5_HEADER = 14, 40, 124
EMBEDDED, LINKED = b"DEBM", b"KNIL"
UNCOMPRESSED = 0


def bmp_profile(data: bytes) -> bytes | None:
    """The ICC profile that a BMP carries; None where it carries none."""
    (length,) = struct.unpack_from("<I", data, FILE_HEADER)
    if length < V5_HEADER or len(data) < FILE_HEADER + V5_HEADER or data[70:74] != EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", data, FILE_HEADER + 112)
    return data[FILE_HEADER + start : FILE_HEADER + start + size]


def check_header(data: bytes) -> None:
    """Raise SkippedImage where a BMP that is coded anew carries a profile, or anything behind its pixels."""
    layout = _Layout(data)
    has_profile = layout.header >= V5_HEADER and data[70:74] in (EMBEDDED, LINKED)
    if not layout.is_plain and (has_profile or layout.carries_more):
        raise NotWritable("unsupported BMP", "a BMP of 24 bits was wanted, as it carries more than pixels")


def with_header_of(source: bytes, target: bytes) -> bytes:
    """The pixels of `target`, an uncompressed BMP of 24 or 32 bits, within the file `source`.

    Where `source` is coded in another way, `target`, unless `source` carries a profile or anything behind its pixels.
    Raises SkippedImage then.
    """
    theirs, ours = _Layout(source), _Layout(target)
    if (theirs.bits, theirs.coding) != (24, UNCOMPRESSED) or ours.bits != 24 or theirs.width != ours.width:
        if bmp_profile(source) or source[70:74] == LINKED or theirs.carries_more:
            raise SkippedImage(
                "unsupported BMP", "a BMP of 24 bits was wanted where it carries more than pixels"
            )
        return target
    pixels = target[ours.start : ours.start + ours.size]
    if theirs.top_down != ours.top_down:
        rows = [pixels[i : i + ours.row] for i in range(0, len(pixels), ours.row)]
        pixels = b"".join(reversed(rows))
    return source[: theirs.start] + pixels + source[theirs.start + theirs.size :]


class _Layout:
    """Where and how a BMP's pixels lie."""

    def __init__(self, data: bytes) -> None:
        self.start, self.header = struct.unpack_from("<II", data, 10)
        if self.header < INFO_HEADER:  # of OS/2
            self.width, self.height, _, self.bits = struct.unpack_from("<HHHH", data, 18)
            self.coding, self.colours = UNCOMPRESSED, 0
        else:
            self.width, self.height, _, self.bits, self.coding = struct.unpack_from("<iiHHI", data, 18)
            (self.colours,) = struct.unpack_from("<I", data, 46)
        self.top_down = self.height < 0
        self.row = (self.width * self.bits + 31) // 32 * 4
        self.size = self.row * abs(self.height)
        self.is_plain = (self.bits, self.coding) == (24, UNCOMPRESSED)
        self.carries_more = self.coding == UNCOMPRESSED and len(data) > self.start + self.size + 3
