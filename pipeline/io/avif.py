"""AVIF: the picture's own item is coded anew without loss; every other item and property of the file stays.

libavif (through imagecodecs) decodes and encodes samples. Its file is taken apart, and the picture's coded data put
into the file that it came from, where they may be longer: places in the list of items are corrected.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np

from pipeline.io.boxes import Box, boxes, with_body
from pipeline.io.heif_items import Place, item_kinds, item_places, item_properties, primary_item
from pipeline.io.heif_picture import heif_picture
from pipeline.io.picture import Array, NotWritable, Picture, SkippedImage, gathered, spread

FORMAT = "AVIF"
BRANDS = (b"avif", b"avis")
# Boxes that hold boxes, and how many bytes of theirs come first.
CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}
# Properties of a picture that can not be kept, or of which the picture is a part only.
UNKEPT = {
    b"clap": "a crop", b"imir": "a mirrored picture", b"lsel": "layers", b"a1lx": "layers", b"a1op": "layers",
}  # fmt: skip
# Quarter turns against the clock → EXIF orientation.
ORIENTATIONS = (1, 8, 3, 6)
# Of colours in a `colr` property: RGB itself instead of luma and chroma, and the full range of numbers.
IDENTITY, FULL_RANGE = 0, 0x80
LOSSLESS = 100
SPEED = 8


@dataclass(frozen=True)
class Layout:
    """What a file says of its picture before anything is decoded."""

    width: int
    height: int
    bits: int
    is_grey: bool
    orientation: int
    icc: bytes | None
    # codes of primaries and transfer; None where none are given
    codes: tuple[int, int] | None
    primary: Place
    # every place of an item in the file
    places: tuple[Place, ...]
    # boxes of the picture's properties
    properties: tuple[Box, ...]


def is_avif(data: bytes) -> bool:
    """Whether a file is one, by its first bytes."""
    if data[4:8] != b"ftyp":
        return False
    # a general brand before those of the kind
    listed = data[16 : int.from_bytes(data[:4], "big")] if data[8:12] == b"mif1" else b""
    return data[8:12] in BRANDS or any(listed[i : i + 4] == BRANDS[0] for i in range(0, len(listed), 4))


def avif_layout(data: bytes) -> Layout:
    """A file's header. Raises SkippedImage for what can not be written back; ValueError and others where damaged."""
    top = {box.name: box for box in boxes(data)}
    if data[8:12] == b"avis" or b"moov" in top:
        raise SkippedImage("animated", "a single picture was wanted, got several frames")
    meta = top[b"meta"]
    inner = {box.name: box for box in boxes(data, meta.body + 4, meta.end)}
    primary = primary_item(data, inner[b"pitm"])
    places = tuple(item_places(data, inner[b"iloc"]))
    own = [place for place in places if place.item == primary]
    if len(own) != 1 or item_kinds(data, inner[b"iinf"]).get(primary) != b"av01":
        raise NotWritable("unsupported AVIF", "a picture of several parts can not be written back")
    if b"iref" in inner and b"prem" in data[inner[b"iref"].body : inner[b"iref"].end]:
        raise SkippedImage("unsupported AVIF", "colours that are multiplied by alpha can not be written back")
    if b"iref" in inner and b"thmb" in data[inner[b"iref"].body : inner[b"iref"].end]:
        raise NotWritable("unsupported AVIF", "a thumbnail of its own can not be made anew")
    properties, shared = item_properties(data, inner[b"iprp"], primary)
    by_name = {box.name: data[box.body : box.end] for box in properties}
    for name, what in UNKEPT.items():
        if name in by_name:
            kind = SkippedImage if what == "layers" else NotWritable
            raise kind("unsupported AVIF", f"{what} can not be written back")
    replaced = {box for box in properties if box.name in (b"av1C", b"pixi") or _is_coded(data, box)}
    if replaced & shared:
        raise NotWritable("unsupported AVIF", "its properties are those of other items, too")
    width, height = struct.unpack_from(">II", by_name[b"ispe"], 4)
    flags = by_name[b"av1C"][2]
    colours = [data[box.body : box.end] for box in properties if box.name == b"colr"]
    icc = next((body[4:] for body in colours if body[:4] in (b"prof", b"rICC")), None)
    coded = next((struct.unpack(">HH", body[4:8]) for body in colours if body[:4] == b"nclx"), None)
    turn = by_name.get(b"irot", b"\0")[0] & 3
    return Layout(
        width=width,
        height=height,
        bits=8 if not flags & 0x40 else 12 if flags & 0x20 else 10,
        is_grey=bool(flags & 0x10),
        orientation=ORIENTATIONS[turn],
        icc=icc,
        codes=coded,
        primary=own[0],
        places=places,
        properties=tuple(properties),
    )


def _is_coded(data: bytes, box: Box) -> bool:
    return box.name == b"colr" and data[box.body : box.body + 4] == b"nclx"


def decode_avif(data: bytes, layout: Layout) -> Picture:
    """The picture of a file whose header was checked."""
    samples = np.array(imagecodecs.avif_decode(data, numthreads=1))
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.shape[:2] != (layout.height, layout.width) or samples.ndim != 3:
        raise ValueError("samples of another size than its header says")
    samples = spread(samples, layout.bits)
    has_alpha = samples.shape[2] in (2, 4)
    alpha = samples[..., -1] if has_alpha else None
    # the library gives grey as three equal channels where there is an alpha
    stored = samples[..., 0] if layout.is_grey else samples[..., :3]
    return heif_picture(
        data, FORMAT, stored, alpha, layout.bits, layout.orientation, layout.icc, layout.codes
    )


def encode_avif(original: Picture, planes: Array) -> bytes:
    """The file of `original` with other colours, [H, W] or [H, W, C] of its depth; its alpha is as it was.

    Raises SkippedImage where they are of another size.
    """
    source, layout = original.source, avif_layout(original.source)
    if planes.shape[:2] != (layout.height, layout.width):
        raise SkippedImage("unsupported AVIF", "it can not be written in another size; save it as PNG")
    colours = (
        planes[..., 0]
        if layout.is_grey and planes.ndim == 3
        else planes[..., : 3 if planes.ndim == 3 else None]
    )
    coded = _coded(gathered(colours, layout.bits), layout.bits, layout.is_grey)
    new = avif_layout(coded)
    body = coded[new.primary.start : new.primary.start + new.primary.length]
    ours = {box.name: coded[box.body : box.end] for box in new.properties}
    splices = [(layout.primary.start, layout.primary.start + layout.primary.length, body)]
    for box in layout.properties:
        if box.name in (b"av1C", b"pixi") and box.name in ours:
            splices.append((box.body, box.end, ours[box.name]))
        elif _is_coded(source, box) and not layout.is_grey:
            codes = source[box.body : box.body + 8] + struct.pack(">HB", IDENTITY, FULL_RANGE)
            splices.append((box.body, box.end, codes))
    return _spliced(source, layout, sorted(splices))


def _coded(colours: Array, bits: int, is_grey: bool) -> bytes:
    """A file of its own, without loss."""
    return bytes(
        imagecodecs.avif_encode(
            np.ascontiguousarray(colours),
            level=LOSSLESS,
            speed=SPEED,
            bitspersample=bits,
            pixelformat="400" if is_grey else "444",
            matrix=None if is_grey else imagecodecs.AVIF.MATRIX_COEFFICIENTS.IDENTITY,
            numthreads=1,
        )
    )


def _spliced(data: bytes, layout: Layout, splices: Sequence[tuple[int, int, bytes]]) -> bytes:
    """A file with parts replaced: start, end and new bytes of each, in order. Items' places are corrected."""
    corrected = bytearray(data)
    body = next(new for start, _, new in splices if start == layout.primary.start)
    for place in layout.places:
        moved = sum(len(new) - (end - start) for start, end, new in splices if end <= place.start)
        length = len(body) if place == layout.primary else place.length
        offset = place.start + moved - place.base
        for at, size, number in (
            (place.offset_at, place.offset_size, offset),
            (place.length_at, place.length_size, length),
        ):
            if size:
                corrected[at : at + size] = number.to_bytes(size, "big")
    return _rebuilt(bytes(corrected), 0, len(data), splices)


def _rebuilt(data: bytes, start: int, end: int, splices: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The boxes between two places, with parts of their bodies replaced and their lengths corrected."""
    parts = []
    for box in boxes(data, start, end):
        inside = [s for s in splices if box.body <= s[0] and s[1] <= box.end]
        if not inside:
            parts.append(data[box.start : box.end])
        elif box.name in CONTAINERS:
            first = box.body + CONTAINERS[box.name]
            body = data[box.body : first] + _rebuilt(data, first, box.end, inside)
            parts.append(with_body(data, box, body))
        else:
            body, place = b"", box.body
            for begin, finish, new in inside:
                body += data[place:begin] + new
                place = finish
            parts.append(with_body(data, box, body + data[place : box.end]))
    return b"".join(parts)
