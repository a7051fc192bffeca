"""What a JPEG file holds beside its coefficients: segments, and whatever lies behind its end mark."""

import re
import struct
from collections.abc import Iterator

from pipeline.io.picture import NotWritable, SkippedImage

JPEG_START = b"\xff\xd8"
# Markers that carry metadata: APP0..APP15 and COM.
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
# Markers of frames: SOF0..SOF15, but for DHT, JPG and DAC.
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
# Those of lossless and hierarchical coding.
WITHOUT_DCT = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
APP2, APP14 = 0xE2, 0xEE
MPF = b"MPF\0"
# How the parts of an XMP packet of more than 64 KiB begin.
LONG_XMP = b"http://ns.adobe.com/xmp/extension/"
# Tag of the list of pictures in a multi-picture index, and the length of an entry.
MP_ENTRIES, MP_ENTRY = 0xB002, 16
# The next marker in coded data: neither a stuffed byte nor a restart.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


class Damaged(ValueError):
    """A JPEG whose segments can not be separated. The message is a short reason."""


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment after the start mark, until the end mark; a scan's data follow its own.

    The end mark comes last, where there is one. Other bytes between segments are passed over, as decoders do.
    """
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        marker, start = found[1][0], found.end() - 2
        if marker == END_OF_IMAGE:
            yield marker, start, start + 2
            return
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        place = start + 2 + length
        if length < 2 or place > len(data):
            raise Damaged("its segments can not be separated")
        yield marker, start, place


def picture_end(data: bytes) -> int | None:
    """Where the first picture ends, behind its end mark; None where it has none."""
    try:
        return next((end for marker, _, end in segments(data) if marker == END_OF_IMAGE), None)
    except Damaged:
        return None


def late_metadata(data: bytes) -> list[bytes]:
    """Metadata segments that lie behind the first scan."""
    found, scans = [], 0
    try:
        for marker, start, end in segments(data):
            scans += marker == START_OF_SCAN
            if scans and marker in METADATA:
                found.append(data[start:end])
    except Damaged:  # what can not be separated is no segment
        return found
    return found


def has_every_scan(data: bytes) -> bool:
    """Whether the scans of a JPEG give every bit of every coefficient, so that only the end mark may be missing."""
    wanted: set[tuple[int, int]] = set()
    try:
        for marker, start, _ in segments(data):
            body = data[start + 4 :]
            if marker in FRAMES:
                count = 64 if marker in (0xC2, 0xC6, 0xCA, 0xCE) else 1
                wanted = {(body[6 + 3 * i], k) for i in range(body[5]) for k in range(count)}
            elif marker == START_OF_SCAN:
                components = body[1 : 1 + 2 * body[0] : 2]
                first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
                if not bits & 15:
                    wanted -= {(c, k) for c in components for k in range(first, last + 1)}
    except (Damaged, IndexError, ValueError):
        return False
    return not wanted


def check_frame(data: bytes) -> None:
    """Raise SkippedImage where a JPEG's samples are of a kind that can not be written back."""
    try:
        marker, start = next((m, s) for m, s, _ in segments(data) if m in FRAMES)
    except (Damaged, StopIteration):  # which its decoder will say
        return
    bits, height = data[start + 4], data[start + 5 : start + 7]
    if marker in WITHOUT_DCT:
        raise SkippedImage("unsupported JPEG", "lossless and hierarchical JPEGs can not be written back")
    if bits != 8:
        raise SkippedImage("deep samples", f"samples of 8 bits were wanted in a JPEG, got {bits}")
    if height == bytes(2):
        raise SkippedImage(
            "unsupported JPEG", "a height was wanted before the pixels of a JPEG, it stands behind"
        )


def check_index(data: bytes) -> None:
    """Raise SkippedImage where a JPEG has an index of further pictures that could not be corrected."""
    index, end = _index(data), picture_end(data)
    if index is None:
        return
    if any(offset and index + offset < (end or len(data)) for _, _, offset in _entries(data, index)):
        raise NotWritable(
            "index of pictures", "the index of its further pictures leads into the data of the first"
        )


def with_rest_of(original: bytes, edited: bytes) -> bytes:
    """An edited JPEG with all that lies behind the original's end mark; an index of further pictures is corrected.

    edited: has the original's metadata segments. The index must have passed `check_index`.
    """
    end = picture_end(original)
    moved = len(edited)
    if end is None:
        return edited
    index = _index(original)
    place = _index(edited)
    if index is None or place is None:
        return edited + original[end:]
    patched = bytearray(edited)
    for size_at, size, offset in _entries(original, index):
        here = size_at - index + place
        if not offset:  # the picture itself
            patched[here : here + 4] = _number(original, index, moved + max(size - end, 0))
        elif index + offset >= end:
            patched[here + 4 : here + 8] = _number(original, index, index + offset - end + moved - place)
        else:
            raise SkippedImage(
                "index of pictures", "the index of its further pictures leads into its own data"
            )
    return bytes(patched) + original[end:]


def further_pictures(data: bytes, kinds: frozenset[int]) -> list[tuple[int, int]]:
    """Start and end of the further pictures of some kinds (type codes of the multi-picture index)."""
    index = _index(data)
    if index is None:
        return []
    try:
        found = []
        for size_at, size, offset in _entries(data, index):
            attribute = _read(data, index, size_at - 4)
            if offset and attribute & 0xFFFFFF in kinds:
                found.append((index + offset, index + offset + size))
        return found
    except SkippedImage:
        return []


def _index(data: bytes) -> int | None:
    """Where the TIFF header of a JPEG's index of pictures lies; None where it has none."""
    try:
        for marker, start, _ in segments(data):
            if marker == START_OF_SCAN:
                return None
            if marker == APP2 and data[start + 4 : start + 8] == MPF:
                return start + 8
    except Damaged:
        return None
    return None


def _entries(data: bytes, index: int) -> Iterator[tuple[int, int, int]]:
    """Of each picture in the index: where its size is written (its offset follows), size, and offset from `index`."""
    try:
        ifd = index + _read(data, index, index + 4)
        count = _read(data, index, ifd, "H")
        tags = [ifd + 2 + 12 * i for i in range(count)]
        entry = next(t for t in tags if _read(data, index, t, "H") == MP_ENTRIES)
        length, start = _read(data, index, entry + 4), index + _read(data, index, entry + 8)
        for i in range(length // MP_ENTRY):
            at = start + MP_ENTRY * i + 4
            yield at, _read(data, index, at), _read(data, index, at + 4)
    except (struct.error, StopIteration, RuntimeError) as error:
        raise SkippedImage("index of pictures", "the index of its further pictures is damaged") from error


def _order(data: bytes, index: int) -> str:
    return "<" if data[index : index + 2] == b"II" else ">"


def _read(data: bytes, index: int, place: int, kind: str = "I") -> int:
    """A number of the index. Raises struct.error where the data end before."""
    (number,) = struct.unpack_from(_order(data, index) + kind, data, place)
    return int(number)


def _number(data: bytes, index: int, number: int) -> bytes:
    return struct.pack(_order(data, index) + "I", number)
