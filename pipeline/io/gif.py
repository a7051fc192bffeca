"""The blocks of GIF files: those of one picture around the pixels of another."""

from typing import NamedTuple

TABLE, INTERLACED = 0x80, 0x40
IMAGE, EXTENSION, TRAILER = 0x2C, 0x21, 0x3B


class Blocks(NamedTuple):
    """The parts of a GIF of one picture."""

    # signature, screen and its palette
    screen: bytes
    # extensions before the picture
    before: bytes
    # the picture's descriptor (10 bytes), its own palette, and its coded pixels
    descriptor: bytes
    palette: bytes
    pixels: bytes
    # extensions after the picture, trailer, and what follows
    after: bytes


def gif_blocks(data: bytes) -> Blocks:
    """The blocks of a GIF. Raises IndexError and ValueError where they can not be separated."""
    place = 13 + _palette_length(data[10])
    screen = data[:place]
    start = place
    while data[place] == EXTENSION:
        place = _sub_blocks_end(data, place + 2)
    if data[place] != IMAGE:
        raise ValueError("a picture was wanted")
    before, descriptor = data[start:place], data[place : place + 10]
    start = place + 10
    place = start + _palette_length(descriptor[9])
    end = _pixels_end(data, place + 1)
    return Blocks(screen, before, descriptor, data[start:place], data[place:end], data[end:])


def with_blocks_of(source: bytes, target: bytes, own_palette: bool) -> bytes:
    """The coded pixels of `target` among the blocks of `source`.

    own_palette: they use the palette of `source`; else they are grey levels, for which that may be too short. Where
    the picture of `source` fills a part of the screen only, that of `target` fills it. Raises IndexError and ValueError
    as `gif_blocks`.
    """
    theirs, ours = gif_blocks(source), gif_blocks(target)
    if not own_palette and max(len(theirs.palette), len(theirs.screen) - 13) < 3 << 8:
        screen = theirs.screen[:10] + ours.screen[10:11] + theirs.screen[11:13] + ours.screen[13:]
        theirs = theirs._replace(screen=screen, palette=b"", descriptor=ours.descriptor)
    flags = (theirs.descriptor[9] & ~INTERLACED) | (ours.descriptor[9] & INTERLACED)
    descriptor = ours.descriptor[:9] + bytes([flags])
    screen = theirs.screen[:6] + ours.screen[6:10] + theirs.screen[10:]
    return b"".join([screen, theirs.before, descriptor, theirs.palette, ours.pixels, theirs.after])


def _palette_length(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & TABLE else 0


def _sub_blocks_end(data: bytes, place: int) -> int:
    while length := data[place]:
        place += 1 + length
    return place + 1


def _pixels_end(data: bytes, place: int) -> int:
    """As `_sub_blocks_end`; the file's end where the last block is not ended, which decoders judge by its pixels."""
    try:
        return _sub_blocks_end(data, place)
    except IndexError:
        return len(data)
