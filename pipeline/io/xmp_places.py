"""Where files keep their XMP: found and replaced in a file's bytes, of which everything else stays.

JPEG (APP1), PNG (iTXt), WebP (XMP chunk), GIF (application extension), JPEG 2000 (uuid box), JPEG XL (xml box); TIFF,
HEIC and AVIF are in files of their own. Files come from our own encoders, with metadata that is not trusted.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.io import heif_xmp, tiff_xmp
from pipeline.io.tiff_xmp import NoPlace, spliced
from pipeline.io.xmp import MOST_BYTES

# Begin and end in a file.
Span = tuple[int, int]

_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# What is allowed to stand before it: JFIF, its extension, and EXIF.
_JPEG_FIRST = (b"JFIF\0", b"JFXX\0", b"Exif\0")
_MOST_IN_SEGMENT = 65533
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0"
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
# After the packet, which is no GIF blocks: from wherever a reader lands in it, it is led to the end.
_GIF_TRAILER = bytes([1, *range(255, -1, -1), 0])
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_JP2_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"
_JXL_HEADER = _JXL + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "


def find_packet(data: bytes) -> bytes | None:
    """The XMP packet of a file; None where it has none. Raises NoPlace for a kind that carries none."""
    kind = _kind(data)
    span = kind.span(data)
    return None if span is None else kind.packet(data[span[0] : span[1]])


def with_packet(data: bytes, packet: bytes) -> bytes:
    """The file with this packet in the place of its own, or in a new place.

    Raises NoPlace, a sentence, where the file or its kind has none for it.
    """
    return _kind(data).put(data, packet)


class _Kind(NamedTuple):
    """A kind of file."""

    begins: tuple[bytes, ...]
    # where the segment, chunk, extension or box with the packet lies
    span: Callable[[bytes], Span | None]
    # the packet in it
    packet: Callable[[bytes], bytes]
    put: Callable[[bytes, bytes], bytes]


def _kind(data: bytes) -> _Kind:
    if heif_xmp.is_heif(data):
        return _HEIF
    for kind in _KINDS:
        if data.startswith(kind.begins) and (kind.put is not _in_webp or data[8:12] == b"WEBP"):
            return kind
    raise NoPlace("files of its kind carry no XMP here")


def _has(data: bytes, place: int, wanted: bytes) -> bool:
    return data[place : place + len(wanted)] == wanted


# JPEG


def _segments(data: bytes) -> Iterator[Span]:
    """Begin and end of the segments before the first scan."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xFF:  # a fill byte
            place += 1
            continue
        if data[place + 1] in (0xDA, 0xD9):
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if end < place + 4 or end > len(data):
            raise NoPlace("the segments of the JPEG are damaged")
        yield place, end
        place = end


def _jpeg_span(data: bytes) -> Span | None:
    own = (s for s in _segments(data) if _has(data, s[0], b"\xff\xe1") and _has(data, s[0] + 4, _JPEG_XMP))
    return next(own, None)


def _in_jpeg(data: bytes, packet: bytes) -> bytes:
    length = 2 + len(_JPEG_XMP) + len(packet)
    if length > 2 + _MOST_IN_SEGMENT:
        raise NoPlace(
            f"a JPEG takes {_MOST_IN_SEGMENT - len(_JPEG_XMP)} bytes of XMP in one segment, there are {len(packet)}"
        )
    segment = b"\xff\xe1" + length.to_bytes(2, "big") + _JPEG_XMP + packet
    span = _jpeg_span(data)
    if span is None:
        after = 2
        for start, end in _segments(data):
            if not (data[start + 1] in (0xE0, 0xE1) and data[start + 4 : end].startswith(_JPEG_FIRST)):
                break
            after = end
        span = (after, after)
    start, end = span
    moved = _with_moved_pictures(data, start, len(segment) - (end - start))
    return spliced(moved, start, end, segment)


def _with_moved_pictures(data: bytes, place: int, by: int) -> bytes:
    """The JPEG with an index of further pictures (MPF) as it must be once so many bytes more are at `place`."""
    index = next(
        (s for s in _segments(data) if _has(data, s[0], b"\xff\xe2") and _has(data, s[0] + 4, b"MPF\0")), None
    )
    if index is None:
        return data
    start = index[0] + 8  # offsets count from here
    order = "<" if _has(data, start, b"II") else ">"
    changed = bytearray(data)
    try:
        (first,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + first)
        for number in range(count):
            entry = start + first + 2 + 12 * number
            tag, _, length, offset = struct.unpack_from(f"{order}HHII", data, entry)
            if tag != 0xB002 or start + offset + length > index[1]:
                continue
            for picture in range(start + offset, start + offset + length - 15, 16):
                size, where = struct.unpack_from(f"{order}II", data, picture + 4)
                if where == 0:  # the picture that begins the file
                    struct.pack_into(f"{order}I", changed, picture + 4, size + by)
                elif place > start:
                    struct.pack_into(f"{order}I", changed, picture + 8, where + by)
    except struct.error as error:
        raise NoPlace("the index of the JPEG's further pictures is damaged") from error
    return bytes(changed)


# PNG


def _chunks(data: bytes) -> Iterator[tuple[bytes, Span]]:
    """Name, begin and end of the chunks."""
    place = len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        yield data[place + 4 : place + 8], (place, end)
        place = end


def _png_span(data: bytes) -> Span | None:
    texts = (s for name, s in _chunks(data) if name in (b"iTXt", b"tEXt", b"zTXt"))
    return next((s for s in texts if _has(data, s[0] + 8, _PNG_KEYWORD)), None)


def _png_text(chunk: bytes) -> bytes:
    """The text of a chunk of one of the three kinds."""
    name, body = chunk[4:8], chunk[8 + len(_PNG_KEYWORD) : -4]
    if name == b"tEXt":
        return body
    if name == b"zTXt":
        return _inflated(body[1:])
    parts = body[2:].split(b"\0", 2)
    text = parts[2] if len(parts) == 3 else b""
    return _inflated(text) if body[:1] == b"\1" else text


def _inflated(data: bytes) -> bytes:
    """What was compressed, up to a byte more than is read of a packet; nothing where it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, MOST_BYTES + 1)
    except zlib.error:
        return b""


def _in_png(data: bytes, packet: bytes) -> bytes:
    body = b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0" + packet
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    span = _png_span(data)
    if span is None:
        first = next((s for name, s in _chunks(data) if name == b"IDAT"), None)
        if first is None:
            raise NoPlace("the chunks of the PNG are damaged")
        span = (first[0], first[0])
    return spliced(data, *span, chunk)


# WebP


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, Span]]:
    """Name, begin and end of the chunks, with the byte that pads one of odd size."""
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + size + size % 2
        if end > len(data) + 1:
            return
        yield data[place : place + 4], (place, min(end, len(data)))
        place = end


def _webp_span(data: bytes) -> Span | None:
    return next((s for name, s in _riff_chunks(data) if name == b"XMP "), None)


def _riff_body(chunk: bytes) -> bytes:
    """A chunk's content, without the byte that pads it."""
    return chunk[8 : 8 + int.from_bytes(chunk[4:8], "little")]


def _in_webp(data: bytes, packet: bytes) -> bytes:
    chunk = b"XMP " + len(packet).to_bytes(4, "little") + packet + b"\0" * (len(packet) % 2)
    chunks = list(_riff_chunks(data))
    if not chunks:
        raise NoPlace("the chunks of the WebP are damaged")
    end = 8 + int.from_bytes(data[4:8], "little")
    first, span = chunks[0]
    header = data[span[0] : span[1]] if first == b"VP8X" else _webp_header(first, data, span)
    header = header[:8] + bytes([header[8] | 0x04]) + header[9:]
    held = memoryview(data)
    rest = [held[s[0] : s[1]] for name, s in chunks if name not in (b"VP8X", b"XMP ") and s[1] <= end + 1]
    parts: list[bytes | memoryview] = [b"WEBP", header, *rest, chunk]
    size = sum(len(part) for part in parts)
    return b"".join([b"RIFF", size.to_bytes(4, "little"), *parts, held[end:]])


def _webp_header(first: bytes, data: bytes, span: Span) -> bytes:
    """The extended header of a file that has none."""
    body = data[span[0] + 8 : span[1]]
    if first == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        width, height, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
    elif first == b"VP8 " and len(body) >= 10:
        width = (int.from_bytes(body[6:8], "little") & 0x3FFF) - 1
        height = (int.from_bytes(body[8:10], "little") & 0x3FFF) - 1
        alpha = 0
    else:
        raise NoPlace("the chunks of the WebP are damaged")
    size = width.to_bytes(3, "little") + height.to_bytes(3, "little")
    return b"VP8X" + (10).to_bytes(4, "little") + bytes([0x10 * alpha, 0, 0, 0]) + size


# GIF


def _gif_span(data: bytes) -> Span | None:
    start = data.find(_GIF_XMP)
    end = data.find(_GIF_TRAILER, start)
    return (start, end + len(_GIF_TRAILER)) if 0 <= start < end else None


def _in_gif(data: bytes, packet: bytes) -> bytes:
    # a reader goes by lengths, and those are the packet's characters: without a zero it reaches the trailer
    if b"\0" in packet:
        raise NoPlace("a GIF takes no XMP with a zero byte in it")
    span = _gif_span(data)
    if span is None:
        colours = data[10]
        start = 13 + (3 << (colours & 7) + 1 if colours & 0x80 else 0)
        span = (start, start)
    # the version before had no extensions
    data = spliced(data, 0, 6, b"GIF89a")
    return spliced(data, *span, b"".join([_GIF_XMP, packet, _GIF_TRAILER]))


# JPEG 2000 and JPEG XL


def _boxes(data: bytes) -> Iterator[tuple[bytes, Span]]:
    """Name, begin and end of the outermost boxes."""
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        least = 8
        if size == 1:
            size, least = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        end = len(data) if size == 0 else place + size
        if end > len(data) or (size and size < least):
            raise NoPlace("the boxes of the file are damaged")
        yield data[place + 4 : place + 8], (place, end)
        place = end


def _jxl_boxes(data: bytes) -> bytes:
    """The file as boxes, where it is a bare codestream."""
    if data.startswith(_JXL):
        if any(name == b"brob" and _has(data, s[0] + 8, b"xml ") for name, s in _boxes(data)):
            raise NoPlace("the XMP of the JPEG XL is compressed")
        return data
    return b"".join([_JXL_HEADER, (8 + len(data)).to_bytes(4, "big"), b"jxlc", data])


def _jp2_span(data: bytes) -> Span | None:
    return _box_span(data, b"uuid", _JP2_XMP)


def _jxl_span(data: bytes) -> Span | None:
    return _box_span(data, b"xml ", b"") if data.startswith(_JXL) else None


def _box_span(data: bytes, name: bytes, kind: bytes) -> Span | None:
    """The first box of a name whose content begins with `kind`."""
    return next((s for n, s in _boxes(data) if n == name and _has(data, s[0] + 8, kind)), None)


def _in_jp2(data: bytes, packet: bytes) -> bytes:
    place = next((s[0] for name, s in _boxes(data) if name == b"jp2c"), len(data))
    return _in_boxes(data, b"uuid", _JP2_XMP, packet, place)


def _in_jxl(data: bytes, packet: bytes) -> bytes:
    boxes = _jxl_boxes(data)
    return _in_boxes(boxes, b"xml ", b"", packet, len(boxes))


def _in_boxes(data: bytes, name: bytes, kind: bytes, packet: bytes, place: int) -> bytes:
    """The file with the box in the place of its own, or there."""
    box = (8 + len(kind) + len(packet)).to_bytes(4, "big") + name + kind + packet
    start, end = _box_span(data, name, kind) or (place, place)
    for _, (begin, finish) in _boxes(data):
        if begin < start and finish == end == len(data) and _has(data, begin, bytes(4)):
            # that box says: to the end of the file
            if finish - begin >= 1 << 32:
                raise NoPlace("a box of more than 4 GiB says no size")
            data = spliced(data, begin, begin + 4, (finish - begin).to_bytes(4, "big"))
    return spliced(data, start, end, box)


_HEIF = _Kind((), heif_xmp.find_packet, bytes, heif_xmp.with_packet)
_KINDS = (
    _Kind((b"\xff\xd8",), _jpeg_span, lambda held: held[4 + len(_JPEG_XMP) :], _in_jpeg),
    _Kind((_PNG_SIGNATURE,), _png_span, _png_text, _in_png),
    _Kind((b"II", b"MM"), tiff_xmp.find_packet, bytes, tiff_xmp.with_packet),
    _Kind((b"RIFF",), _webp_span, _riff_body, _in_webp),
    _Kind((b"GIF8",), _gif_span, lambda held: held[len(_GIF_XMP) : -len(_GIF_TRAILER)], _in_gif),
    _Kind((_JP2,), _jp2_span, lambda held: held[24:], _in_jp2),
    _Kind((_JXL, b"\xff\x0a"), _jxl_span, lambda held: held[8:], _in_jxl),
)
