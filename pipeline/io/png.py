"""The chunks of PNG files: what they say of colours, and those of one picture in the file of another."""

import struct
import zlib

import numpy as np

from pipeline.io.icc import SRGB_PRIMARIES, SRGB_WHITE, grey_profile, rgb_profile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that the pixels need, which are those of the new picture.
PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# White and primaries by their code in cICP (ITU-T H.273).
CODED_PRIMARIES = {
    1: (SRGB_WHITE, SRGB_PRIMARIES),
    5: (SRGB_WHITE, (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: (SRGB_WHITE, (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    9: (SRGB_WHITE, (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: (SRGB_WHITE, (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
}
# Transfer functions by code: the exponents of BT.470 M and B/G, and linear light; BT.709 is shown with 2.4.
CODED_EXPONENTS = {1: 2.4, 4: 2.2, 5: 2.8, 6: 2.4, 8: 1.0, 14: 2.4, 15: 2.4}
# 1 / gAMA of files that mean sRGB, whose curve is about that
SRGB_GAMMA, GAMMA_STEP = 2.2, 0.02
CURVE_STEPS = 4096


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
    parts = [SIGNATURE, *pixels[b"IHDR"], *before, *pixels[b"IDAT"], *after, *pixels[b"IEND"], source[end:]]
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
        white, primaries = CODED_PRIMARIES.get(coded[0], (SRGB_WHITE, SRGB_PRIMARIES))
        curve = CODED_EXPONENTS.get(coded[1])
        if coded[0] == 1 and curve is None:
            return None
        return _made(is_grey, white, primaries, curve)
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
    return _made(is_grey, white, primaries, exponent)


def _made(
    is_grey: bool, white: tuple[float, float], primaries: tuple[float, ...], exponent: float | None
) -> bytes | None:
    """exponent: None of sRGB's curve."""
    steps = np.linspace(0, 1, CURVE_STEPS)
    srgb = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    curve = srgb if exponent is None else exponent
    try:
        return grey_profile(curve) if is_grey else rgb_profile(white, primaries, curve)
    except Exception:  # numbers that are no colours
        return None


def _header_end(data: bytes) -> int:
    """Where the first IDAT begins: a copy of the whole file is not needed to read what comes before."""
    place = 8
    while place + 12 <= len(data) and data[place + 4 : place + 8] != b"IDAT":
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return place
