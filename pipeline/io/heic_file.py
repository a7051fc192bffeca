"""HEIC that is written back: the picture's item is coded anew without loss, all other items of the file stay.

A grid of tiles becomes one item; its tiles stay in the file, and nothing shows them. Thumbnails are made anew.
"""

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.io.boxes import Box, boxes
from pipeline.io.heic import IDENTITY, SRGB, UNSPECIFIED, Heic, coded_heic
from pipeline.io.heif_index import child_of, meta_of, read_iloc, with_items
from pipeline.io.heif_items import item_kinds, item_places, item_properties, primary_item
from pipeline.io.heif_picture import heif_picture
from pipeline.io.picture import UPRIGHT, Array, NotWritable, Picture, SkippedImage, without_alpha

FORMAT = "HEIC"
# Types of items that can be replaced, and properties that are those of the coded data.
KINDS = (b"hvc1", b"grid")
CODED = (b"hvcC", b"pixi")
SIZE, CROP, TURNS = b"ispe", b"clap", (b"irot", b"imir")
# EXIF orientations: quarter turns against the clock, and mirrored top to bottom or left to right.
TURNED, MIRRORED = (1, 8, 3, 6), (4, 2)
FULL_RANGE = 0x80
# Bit of an association of a property that readers must know, in one byte or two.
ESSENTIAL, ESSENTIAL_WIDE, WIDE = 0x80, 0x8000, 1


@dataclass(frozen=True)
class Layout:
    """What a file says of its picture."""

    # of the picture as stored
    width: int
    height: int
    orientation: int
    # codes of its `colr` property; None where it has none
    codes: tuple[int, int] | None
    primary: int
    # number, width and height of each thumbnail
    thumbnails: tuple[tuple[int, int, int], ...]


class _Index(NamedTuple):
    """The boxes of a file's index by name."""

    data: bytes
    inner: Mapping[bytes, Box]

    @classmethod
    def of(cls, data: bytes) -> "_Index":
        meta = next(box for box in boxes(data) if box.name == b"meta")
        return cls(data, {box.name: box for box in boxes(data, meta.body + 4, meta.end)})

    def references(self) -> Iterator[tuple[Box, int, tuple[int, ...]]]:
        """Box, source and targets of each reference between items."""
        if (around := self.inner.get(b"iref")) is None:
            return
        wide = "I" if self.data[around.body] else "H"
        for box in boxes(self.data, around.body + 4, around.end):
            source, count = struct.unpack_from(f">{wide}H", self.data, box.body)
            yield (
                box,
                source,
                struct.unpack_from(f">{count}{wide}", self.data, box.body + struct.calcsize(f">{wide}H")),
            )

    def properties(self, item: int) -> list[tuple[bytes, bytes]]:
        """Name and body of each of an item's."""
        own, _ = item_properties(self.data, self.inner[b"iprp"], item)
        return [(box.name, self.data[box.body : box.end]) for box in own]


def heic_layout(data: bytes) -> Layout:
    """What a file's index says of the picture.

    Raises NotWritable for what can not be written back, SkippedImage for a sequence; StopIteration and others where
    the file is damaged.
    """
    index = _Index.of(data)
    if any(box.name == b"moov" for box in boxes(data)):
        raise SkippedImage("animated", "a single picture was wanted, got several frames")
    primary, kinds = primary_item(data, index.inner[b"pitm"]), item_kinds(data, index.inner[b"iinf"])
    links = [
        box for box in boxes(data, index.inner[b"iprp"].body, index.inner[b"iprp"].end) if box.name == b"ipma"
    ]
    properties = index.properties(primary)
    names = [name for name, _ in properties]
    if kinds.get(primary) not in KINDS or len(links) != 1:
        raise NotWritable("unsupported HEIC", "a picture that is made of others can not be written back")
    if CROP in names and any(turn in names[: names.index(CROP)] for turn in TURNS):
        raise NotWritable("unsupported HEIC", "a crop of a turned picture can not be written back")
    thumbnails = [who for box, who, of in index.references() if box.name == b"thmb" and primary in of]
    if any(kinds.get(who) not in KINDS for who in thumbnails):
        raise NotWritable("unsupported HEIC", "a thumbnail of another kind can not be made anew")
    if any(item.reference for item in read_iloc(data, child_of(data, meta_of(data), b"iloc"))):
        raise NotWritable("unsupported HEIC", "parts of it lie in another file and can not be kept")
    width, height = _size(properties)
    coded = (body for name, body in properties if name == b"colr" and body[:4] == b"nclx")
    return Layout(
        width=width,
        height=height,
        orientation=_orientation(properties),
        codes=next((struct.unpack(">HH", body[4:8]) for body in coded), None),
        primary=primary,
        thumbnails=tuple((who, *_size(index.properties(who))) for who in thumbnails),
    )


def _size(properties: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Width and height, of what is shown where it is a crop. Raises NotWritable."""
    named = dict(properties)
    if CROP in named:
        width, part, height, other = struct.unpack_from(">IIII", named[CROP])
        if width % part or height % other:
            raise NotWritable("unsupported HEIC", "a crop of parts of pixels can not be written back")
        return width // part, height // other
    width, height = struct.unpack_from(">II", named[SIZE], 4)
    return width, height


def _orientation(properties: list[tuple[bytes, bytes]]) -> int:
    """The EXIF orientation that turns and mirrors alike."""
    probe = np.arange(6).reshape(2, 3)
    wanted = probe
    for name, body in properties:
        if name == b"irot":
            wanted = UPRIGHT[TURNED[body[0] & 3]][0](wanted)
        elif name == b"imir":
            wanted = UPRIGHT[MIRRORED[body[0] & 1]][0](wanted)
    return next(code for code, (turn, _) in UPRIGHT.items() if np.array_equal(turn(probe), wanted))


def decode_heic(data: bytes, opened: Heic, layout: Layout) -> Picture:
    """The picture of a file whose header was checked. Raises NotWritable."""
    if opened.is_premultiplied:
        raise SkippedImage("unsupported HEIC", "colours that are multiplied by alpha can not be edited")
    samples = UPRIGHT[layout.orientation][1](opened.samples())
    if samples.shape[:2] != (layout.height, layout.width):
        raise NotWritable("unsupported HEIC", "it is decoded in another size than its header says")
    stored, alpha = without_alpha(samples)
    return heif_picture(
        data, FORMAT, stored, alpha, opened.bits, layout.orientation, opened.icc, layout.codes
    )


def encode_heic(original: Picture, planes: Array) -> bytes:
    """The file of `original` with other colours, [H, W] or [H, W, C] of its depth; its alpha is as it was.

    Raises SkippedImage where they are of another size.
    """
    source, layout = original.source, heic_layout(original.source)
    if planes.shape[:2] != (layout.height, layout.width):
        raise SkippedImage("unsupported HEIC", "it can not be written in another size; save it as PNG")
    colours, _ = without_alpha(planes)
    codes = layout.codes or (UNSPECIFIED if original.profile is not None else SRGB)
    bits = original.save["bitspersample"]
    coded = {layout.primary: _Coded.of(colours, bits, codes)}
    for number, width, height in layout.thumbnails:
        small = cv2.resize(np.ascontiguousarray(colours), (width, height), interpolation=cv2.INTER_AREA)
        coded[number] = _Coded.of(small, bits, codes)
    index = _Index.of(source)
    changed = {b"iinf": _with_kinds(index, coded.keys()), b"iprp": _with_properties(index, coded)}
    if b"iref" in index.inner:
        changed[b"iref"] = _without_tiles(index, coded.keys())
    done = with_items(source, {number: new.body for number, new in coded.items()}, changed)
    return _of_range_extensions(done)


class _Coded(NamedTuple):
    """An item that was coded anew."""

    body: bytes
    # whole boxes: how it is coded; and its size, and what is shown of it where that is less
    properties: tuple[bytes, ...]
    frame: tuple[bytes, ...]

    @classmethod
    def of(cls, colours: Array, bits: int, codes: tuple[int, int]) -> "_Coded":
        data = coded_heic(colours, bits, codes)
        index = _Index.of(data)
        primary = primary_item(data, index.inner[b"pitm"])
        start, length = _place(index, primary)
        own = [_box(name, body) for name, body in index.properties(primary) if name in CODED]
        if colours.ndim == 3:
            own.append(_box(b"colr", b"nclx" + struct.pack(">HHHB", *codes, IDENTITY, FULL_RANGE)))
        frame = [_box(name, body) for name, body in index.properties(primary) if name in (SIZE, CROP)]
        return cls(data[start : start + length], tuple(own), tuple(frame))


def _place(index: _Index, item: int) -> tuple[int, int]:
    """Where an item's bytes begin, and how many they are."""
    place = next(p for p in item_places(index.data, index.inner[b"iloc"]) if p.item == item)
    return place.start, place.length


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def _with_kinds(index: _Index, items: Collection[int]) -> bytes:
    """The list of items, of which these are coded pictures."""
    iinf, data = index.inner[b"iinf"], index.data
    done = bytearray(data[iinf.start : iinf.end])
    for box in boxes(data, iinf.body + (8 if data[iinf.body] else 6), iinf.end):
        wide = data[box.body] == 3
        (item,) = struct.unpack_from(">I" if wide else ">H", data, box.body + 4)
        if item in items:
            at = box.body + (10 if wide else 8) - iinf.start
            done[at : at + 4] = KINDS[0]
    return bytes(done)


def _without_tiles(index: _Index, items: Collection[int]) -> bytes:
    """The references between items, but for those of these items to tiles."""
    iref, data = index.inner[b"iref"], index.data
    kept = [box for box, source, _ in index.references() if box.name != b"dimg" or source not in items]
    body = b"".join(data[box.start : box.end] for box in kept)
    return _box(b"iref", data[iref.body : iref.body + 4] + body)


def _with_properties(index: _Index, coded: Mapping[int, _Coded]) -> bytes:
    """The properties, with those of items that were coded anew, and which items have which."""
    data, iprp = index.data, index.inner[b"iprp"]
    parts = {box.name: box for box in boxes(data, iprp.body, iprp.end)}
    ipco, ipma = parts[b"ipco"], parts[b"ipma"]
    every = list(boxes(data, ipco.body, ipco.end))
    names = {number: box.name for number, box in enumerate(every, 1)}
    added: list[bytes] = []
    entries = []
    for item, links in _links(data, ipma):
        if item in coded:
            new, first = coded[item], len(every) + len(added) + 1
            replaced = {number + 1 for number, box in enumerate(every) if _is_of_coded(data, box)}
            kept = [link for link in links if link[0] not in replaced]
            made = new.properties
            if len(new.frame) > 1 or any(names[number] == CROP for number, _ in kept):
                kept = [link for link in kept if names[link[0]] not in (SIZE, CROP)]
                made += new.frame
            added += made
            names |= {first + i: box[4:8] for i, box in enumerate(made)}
            # readers must know how to decode and to crop
            own = [(first + i, names[first + i] in (CODED[0], CROP)) for i in range(len(made))]
            # what describes comes before what crops, and that before what turns
            order = sorted([*own, *kept], key=lambda link: (names[link[0]] in TURNS, names[link[0]] == CROP))
            entries.append((item, order))
        else:
            entries.append((item, links))
    body = data[ipco.body : ipco.end] + b"".join(added)
    return _box(b"iprp", _box(b"ipco", body) + _ipma(entries, len(every) + len(added)))


def _is_of_coded(data: bytes, box: Box) -> bool:
    """Whether a property says how an item is coded."""
    return box.name in CODED or (box.name == b"colr" and data[box.body : box.body + 4] == b"nclx")


Links = list[tuple[int, bool]]


def _links(data: bytes, ipma: Box) -> Iterator[tuple[int, Links]]:
    """The numbers of each item's properties, from 1, and whether readers must know them."""
    item_form, wide = ">I" if data[ipma.body] else ">H", data[ipma.body + 3] & WIDE
    (count,) = struct.unpack_from(">I", data, ipma.body + 4)
    place = ipma.body + 8
    for _ in range(count):
        (item,) = struct.unpack_from(item_form, data, place)
        place += struct.calcsize(item_form)
        listed, size = data[place], 2 if wide else 1
        numbers = [
            int.from_bytes(data[place + 1 + size * i : place + 1 + size * (i + 1)], "big")
            for i in range(listed)
        ]
        bit = ESSENTIAL_WIDE if wide else ESSENTIAL
        yield item, [(number & (bit - 1), bool(number & bit)) for number in numbers]
        place += 1 + size * listed


def _ipma(entries: list[tuple[int, Links]], properties: int) -> bytes:
    """The box of these entries; properties: how many there are."""
    wide, wide_items = properties > 0x7F, max(item for item, _ in entries) > 0xFFFF
    body = bytes([wide_items, 0, 0, wide]) + struct.pack(">I", len(entries))
    for item, links in entries:
        body += struct.pack(">IB" if wide_items else ">HB", item, len(links))
        for number, is_essential in links:
            bit = ESSENTIAL_WIDE if wide else ESSENTIAL
            body += (number | bit * is_essential).to_bytes(2 if wide else 1, "big")
    return _box(b"ipma", body)


def _of_range_extensions(data: bytes) -> bytes:
    """The file with the brand of pictures that are not of HEVC's Main profile."""
    length = int.from_bytes(data[:4], "big")
    brands = [data[i : i + 4] for i in range(8, length, 4)]
    return data[:8] + b"".join(b"heix" if b == b"heic" else b for b in brands) + data[length:]
