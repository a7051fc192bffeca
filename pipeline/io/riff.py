"""The chunks of WebP files: those of one picture in the file of another."""

import struct

# Chunks that hold pixels, and the header that says which chunks there are.
PIXELS = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
HEADER = b"VP8X"
ALPHA = 0x10
# Bits of the header, by the chunk that they announce.
ANNOUNCED = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}


def has_frames(data: bytes) -> bool:
    """Whether a WebP's picture is a frame of an animation, if only the single one."""
    return b"ANMF" in data and any(name == b"ANMF" for name, _ in riff_chunks(data))


def riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and whole bytes (padding included) of a WebP's chunks."""
    end = min(8 + int.from_bytes(data[4:8], "little"), len(data))
    place, chunks = 12, []
    while place + 8 <= end:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        after = place + 8 + length + length % 2
        chunks.append((data[place : place + 4], data[place:after]))
        place = after
    return chunks


def with_chunks_of(source: bytes, target: bytes, size: tuple[int, int], has_alpha: bool) -> bytes:
    """The pixels of `target` among the other chunks of `source`, byte for byte, in order; and what follows its end.

    size: width and height in pixels.
    """
    theirs = riff_chunks(source)
    kept = [(name, chunk) for name, chunk in theirs if name not in PIXELS and name != HEADER]
    tail = source[8 + int.from_bytes(source[4:8], "little") :]
    if not kept:
        return target + tail
    first = next((i for i, (name, _) in enumerate(theirs) if name in PIXELS), 0)
    names = [chunk for name, chunk in theirs[:first] if name != HEADER]
    pixels = [chunk for name, chunk in riff_chunks(target) if name in PIXELS]
    flags = ALPHA * has_alpha
    for name, _ in kept:
        flags |= ANNOUNCED.get(name, 0)
    width, height = (struct.pack("<I", side - 1)[:3] for side in size)
    header = HEADER + struct.pack("<II", 10, flags) + width + height
    after = [chunk for name, chunk in theirs[first:] if name not in PIXELS and name != HEADER]
    body = b"".join([b"WEBP", header, *names, *pixels, *after])
    return b"RIFF" + struct.pack("<I", len(body)) + body + tail
