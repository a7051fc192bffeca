"""The chunks of PNG files: what they say of colours, and those of one picture in the file of another."""

import struct
import zlib

import numpy as np

from pipeline.io.cicp import coded_profile, made_profile
from pipeline.io.icc import SRGB_PRIMARIES, SRGB_WHITE

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that the pixels need, which are those of the new picture.
PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Colour type of pixels without palette and alpha.
RGB = 2
# 1 / gAMA of files that mean sRGB, whose curve is about that
SRGB_GAMMA, GAMMA_STEP = 2.2, 0.02


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and whole bytes of a PNG's chunks, to its end."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name = data[place + 4 : place + 8]
        chunks.append((name, data[place : place + 12 + length]))
        place += 12 + length
        if name == b"IEND":
            break
    return chunks


def without_chunks(data: bytes, name: bytes) -> bytes:
    """A PNG to its end, without the chunks of a name."""
    chunks = png_chunks(data)
    return (
        data if all(n != name for n, _ in chunks) else SIGNATURE + b"".join(c for n, c in chunks if n != name)
    )


def made_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk's bytes."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks_of(source: bytes, target: bytes) -> bytes:
    """The pixels of `target` between the other chunks of `source`, byte for byte and in their places.

    What follows the last chunk of `source` stays, too. Where both store their pixels alike, so do palette and
    transparent colour.
    """
    theirs, ours = png_chunks(source), png_chunks(target)
    alike = theirs[0][1][16:18] == ours[0][1][16:18]
    pixels = {name: [chunk for n, chunk in ours if n == name] for name in PIXELS}
    first = next(i for i, (name, _) in enumerate(theirs) if name == b"IDAT")
    # a histogram is one of the palette, which may be of use to a picture in true colour
    with_palette = alike or any(name == b"hIST" for name, _ in theirs)
    kept = {b"PLTE": with_palette, b"tRNS": alike, b"IHDR": False, b"IDAT": False, b"IEND": False}
    before = [_fitting(n, c, theirs, ours) for n, c in theirs[:first] if kept.get(n, True)]
    after = [c for n, c in theirs[first:] if kept.get(n, True)]
    if not alike:
        before += pixels[b"tRNS"]
    end = len(SIGNATURE) + sum(len(chunk) for _, chunk in theirs)
    last = [chunk for name, chunk in theirs if name == b"IEND"] or pixels[b"IEND"]
    parts = [SIGNATURE, *pixels[b"IHDR"], *before, *pixels[b"IDAT"], *after, *last, source[end:]]
    return b"".join(parts)


def _fitting(
    name: bytes, chunk: bytes, theirs: list[tuple[bytes, bytes]], ours: list[tuple[bytes, bytes]]
) -> bytes:
    """A chunk whose form depends on how pixels are stored, in the form of the new picture."""
    depth, colour = ours[0][1][16], ours[0][1][17]
    old_depth, old_colour = theirs[0][1][16], theirs[0][1][17]
    if (old_depth, old_colour) == (depth, colour) or name not in (b"bKGD", b"sBIT"):
        return chunk
    body, channels = chunk[8:-4], {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    if name == b"sBIT":
        if old_colour == 3 or old_colour in (0, 2):
            return made_chunk(name, (body + bytes([depth]))[:channels])
        return chunk
    if old_colour == 3:
        palette = next((c[8:-4] for n, c in theirs if n == b"PLTE"), b"")
        entry = palette[3 * body[0] : 3 * body[0] + 3].ljust(3, b"\0")
        return made_chunk(name, b"".join(bytes([0, sample]) for sample in entry))
    (grey,) = struct.unpack(">H", body[:2])
    if old_colour == 0 and old_depth < depth:
        return made_chunk(name, struct.pack(">H", grey * (2**depth - 1) // (2**old_depth - 1)))
    return chunk


def has_frames(data: bytes) -> bool:
    """Whether a PNG has a frame of an animation that is not its picture."""
    return b"fdAT" in data and any(name == b"fdAT" for name, _ in png_chunks(data))


def png_profile(data: bytes, is_grey: bool) -> bytes | None:
    """An ICC profile as the chunks cICP, sRGB, and gAMA with cHRM say, in this order; None where iCCP or none does.

    HDR transfer functions (PQ, HLG) are taken as sRGB, as no such light is known to the networks.
    """
    chunks = {name: chunk[8:-4] for name, chunk in png_chunks(data[: _header_end(data)])}
    if len(coded := chunks.get(b"cICP", b"")) == 4:
        return coded_profile(is_grey, coded[0], coded[1])
    if b"iCCP" in chunks or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return None
    (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
    exponent = 100_000 / gamma if gamma else SRGB_GAMMA
    white, primaries = SRGB_WHITE, SRGB_PRIMARIES
    if len(corners := chunks.get(b"cHRM", b"")) == 32:
        numbers = [n / 100_000 for n in struct.unpack(">8I", corners)]
        white, primaries = (numbers[0], numbers[1]), tuple(numbers[2:])
    known = (SRGB_WHITE, SRGB_PRIMARIES)
    same = np.allclose([*white, *primaries], [*known[0], *known[1]], atol=0.002)
    if same and abs(exponent - SRGB_GAMMA) < GAMMA_STEP:
        return None
    return made_profile(is_grey, white, primaries, exponent)


def _header_end(data: bytes) -> int:
    """Where the first IDAT begins: a copy of the whole file is not needed to read what comes before."""
    place = 8
    while place + 12 <= len(data) and data[place + 4 : place + 8] != b"IDAT":
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return place
