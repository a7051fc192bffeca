"""The XMP of HEIC and AVIF, an item of the file (ISO/IEC 23008-12): added to the file's index, its bytes at the end.

The pictures' own bytes stay as they are; the index, which lies in front of them, grows and names their new places.
"""

import struct
from collections.abc import Iterator, Sequence

from pipeline.io.heif_index import (
    IN_FILE,
    Box,
    body_of,
    boxes_in,
    child_of,
    children_of,
    meta_of,
    primary_of,
    read_iloc,
    with_items,
)
from pipeline.io.tiff_xmp import NoPlace

_CONTENT = b"application/rdf+xml"
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")


def is_heif(data: bytes) -> bool:
    """Whether it is a HEIC or AVIF file, by its brand."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def find_packet(data: bytes) -> tuple[int, int] | None:
    """Begin and end of the packet; None where there is none. Raises NoPlace."""
    try:
        meta = meta_of(data)
        number = _xmp_number(data, children_of(data, meta))
        if number is None:
            return None
        for item in read_iloc(data, child_of(data, meta, b"iloc")):
            if item.number == number and item.method == IN_FILE and len(item.extents) == 1:
                _, offset, length = item.extents[0]
                if offset + length <= len(data):
                    return offset, offset + length
    except (struct.error, IndexError) as error:
        raise NoPlace("the index of the file is damaged") from error
    raise NoPlace("the XMP of the file lies in pieces")


def with_packet(data: bytes, packet: bytes) -> bytes:
    """The file with this packet in the place of its own, or as a new item. Raises NoPlace."""
    try:
        return _with_packet(data, packet)
    except (struct.error, IndexError, OverflowError) as error:
        raise NoPlace("the index of the file is damaged") from error


def _with_packet(data: bytes, packet: bytes) -> bytes:
    if any(name == b"moov" for name, _, _ in boxes_in(data, 0, len(data))):
        raise NoPlace("the file holds a sequence of pictures, whose places are not known here")
    meta = meta_of(data)
    children = children_of(data, meta)
    items = read_iloc(data, child_of(data, meta, b"iloc"))
    number = _xmp_number(data, children)
    is_new = number is None
    if number is None:
        number = max([i.number for i in items] + [n for n, _ in _infos(data, children)]) + 1
    if number > 0xFFFF:
        raise NoPlace("the file has more items than can be counted here")
    changed, added = {}, []
    if is_new:
        changed[b"iinf"] = _iinf(body_of(data, child_of(data, meta, b"iinf")), number)
        references = next((box for box in children if box[0] == b"iref"), None)
        whole = b"\0\0\0\x0ciref\0\0\0\0" if references is None else body_of(data, references)
        new = _iref(whole, number, primary_of(data, children))
        if references is None:
            added.append(new)
        else:
            changed[b"iref"] = new
    return with_items(data, {number: packet}, changed, added)


def _infos(data: bytes, children: Sequence[Box]) -> list[tuple[int, bytes]]:
    """Number, and type with what follows it, of every item."""
    _, begin, end = next((box for box in children if box[0] == b"iinf"), (b"", 0, 0))
    if not end:
        raise NoPlace("the index of the file lacks iinf")
    found = []
    for name, start, stop in boxes_in(data, begin + (14 if data[begin + 8] == 0 else 16), end):
        version = data[start + 8]
        if name != b"infe" or version < 2:
            continue
        form = ">H" if version == 2 else ">I"
        (number,) = struct.unpack_from(form, data, start + 12)
        found.append((number, data[start + 14 + struct.calcsize(form) : stop]))
    return found


def _xmp_number(data: bytes, children: Sequence[Box]) -> int | None:
    """The number of the packet that describes the picture itself; one of a gain map or depth map is not it."""
    described = dict(_described(data, children))
    primary = primary_of(data, children)
    for number, body in _infos(data, children):
        is_packet = body.startswith(b"mime") and body[4:].split(b"\0")[1:2] == [_CONTENT]
        if is_packet and primary in described.get(number, (primary,)):
            return number
    return None


def _described(data: bytes, children: Sequence[Box]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Items that describe others, and which."""
    _, begin, end = next((box for box in children if box[0] == b"iref"), (b"", 0, 0))
    if not end:
        return
    wide = "I" if data[begin + 8] else "H"
    for name, start, _ in boxes_in(data, begin + 12, end):
        if name == b"cdsc":
            source, count = struct.unpack_from(f">{wide}H", data, start + 8)
            place = start + 8 + struct.calcsize(f">{wide}H")
            yield source, struct.unpack_from(f">{count}{wide}", data, place)


def _iinf(box: bytes, number: int) -> bytes:
    """The box with one more item."""
    form, start = (">H", 14) if box[8] == 0 else (">I", 16)
    (count,) = struct.unpack_from(form, box, 12)
    info = b"\2\0\0\0" + struct.pack(">HH", number, 0) + b"mimeXMP\0" + _CONTENT + b"\0"
    body = box[8:12] + struct.pack(form, count + 1) + box[start:]
    body += struct.pack(">I", 8 + len(info)) + b"infe" + info
    return struct.pack(">I", 8 + len(body)) + b"iinf" + body


def _iref(box: bytes, number: int, primary: int) -> bytes:
    """The box with a reference: that item describes this one."""
    form = ">HHH" if box[8] == 0 else ">IHI"
    reference = struct.pack(form, number, 1, primary)
    body = box[8:] + struct.pack(">I", 8 + len(reference)) + b"cdsc" + reference
    return struct.pack(">I", 8 + len(body)) + b"iref" + body
