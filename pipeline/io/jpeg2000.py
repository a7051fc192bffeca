"""JPEG 2000: files (JP2, JPX) and bare codestreams. An edited one is coded without loss, whatever it was.

OpenJPEG (through imagecodecs) decodes and encodes samples; what a file holds beside its codestream is not touched here
but for the codestream's box.
"""

import struct
from dataclasses import dataclass

import imagecodecs

from pipeline.io.boxes import Box, boxes, with_body
from pipeline.io.icc import PlainInks, Profile
from pipeline.io.picture import (
    Array,
    ImageError,
    NotWritable,
    Picture,
    SkippedImage,
    gathered,
    spread,
    upright_rgb,
)

FORMAT = "JPEG2000"
CODESTREAM, FILE = b"\xff\x4f\xff\x51", b"jP  \r\n\x87\n"
COD, COM, CAP, SOT, EOC = 0xFF52, 0xFF64, 0xFF50, 0xFF90, b"\xff\xd9"
# Boxes with places in the file, which move.
PLACES = frozenset({b"ftbl", b"flst", b"dtbl", b"iptr", b"cidx", b"fidx"})
# Enumerated colour spaces that a picture can have here.
SRGB, GREY, CMYK, SYCC = 16, 17, 12, 18
OPACITY = (1, 2)


@dataclass(frozen=True)
class Layout:
    """What a file says of its samples before any is decoded."""

    width: int
    height: int
    # of each component
    bits: tuple[int, ...]
    resolutions: int
    # where the codestream lies; box: the one around it, None of a bare codestream
    start: int
    end: int
    box: Box | None
    # COM segments of the main header
    comments: tuple[bytes, ...]
    icc: bytes | None
    space: int | None
    has_alpha: bool
    # whether the components are the channels: there is no palette, and neither luma nor chroma
    is_direct: bool = True


def is_jpeg2000(data: bytes) -> bool:
    """Whether a file is one, by its first bytes."""
    return data.startswith(CODESTREAM) or data[4:12] == FILE


def jpeg2000_layout(data: bytes, every_kind: bool = False) -> Layout:
    """A file's header. Raises SkippedImage for what can not be decoded, ImageError and others where damaged.

    every_kind: what can not be written back, too; else that raises NotWritable.
    """
    top = list(boxes(data)) if data[4:12] == FILE else []
    streams = [box for box in top if box.name == b"jp2c"]
    if top and not streams:
        raise ImageError("truncated", "a codestream was wanted, the file ends before one")
    box = streams[0] if streams else None
    start, end = (box.body, box.end) if box else (0, len(data))
    if data[start : start + 4] != CODESTREAM or EOC not in data[end - 64 : end]:
        raise ImageError("truncated", "a whole codestream was wanted, it ends early")
    (size,) = struct.unpack_from(">H", data, start + 4)
    width, height, left, above = struct.unpack_from(">4I", data, start + 8)
    (count,) = struct.unpack_from(">H", data, start + 40)
    components = [struct.unpack_from(">3B", data, start + 42 + 3 * i) for i in range(count)]
    if left or above:
        raise SkippedImage("unsupported JPEG 2000", "its components do not begin at 0")
    is_subsampled = any((across, down) != (1, 1) for _, across, down in components)
    if any(depth & 0x80 for depth, *_ in components) or len({depth for depth, *_ in components}) > 1:
        raise SkippedImage("unsupported JPEG 2000", "its components are signed, or of several depths")
    if components and components[0][0] > 15:
        raise SkippedImage("deep samples", "samples of at most 16 bits were wanted")
    levels, comments, is_fast = _main_header(data, start + 4 + size)
    icc, space, has_alpha, has_palette = _colours(data, top, count)
    is_luma = space == SYCC
    if is_subsampled and not is_luma:
        raise SkippedImage("unsupported JPEG 2000", "its components are of several sizes")
    if (has_palette or is_luma) and components[0][0] > 7:
        raise SkippedImage("deep samples", "a palette, or luma and chroma, of 8 bits was wanted")
    unkept = {
        "it has a table of places in the file, which would move": any(box.name in PLACES for box in top),
        "high-throughput coding can not be written back": is_fast,
        "a palette can not be written back": has_palette,
        "luma and chroma can not be written back": is_luma,
    }
    for why in (why for why, is_so in unkept.items() if is_so and not every_kind):
        raise NotWritable("unsupported JPEG 2000", why)
    return Layout(
        width=width,
        height=height,
        bits=tuple(depth + 1 for depth, *_ in components),
        resolutions=levels + 1,
        start=start,
        end=end,
        box=box,
        comments=comments,
        icc=icc,
        space=space,
        has_alpha=has_alpha,
        is_direct=not has_palette and not is_luma,
    )


def _main_header(data: bytes, place: int) -> tuple[int, tuple[bytes, ...], bool]:
    """Levels of the wavelet, COM segments, and whether coding is high-throughput, from behind the SIZ segment on."""
    levels, comments, is_fast = 5, [], False
    while (marker := struct.unpack_from(">H", data, place)[0]) != SOT:
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place : place + 2 + length]
        if marker == CAP:
            is_fast = True
        if marker == COD:
            levels = segment[9]
        elif marker == COM:
            comments.append(segment)
        place += 2 + length
    return levels, tuple(comments), is_fast


def _colours(data: bytes, top: list[Box], count: int) -> tuple[bytes | None, int | None, bool, bool]:
    """ICC profile, enumerated colour space, whether the last component is an alpha, and whether there is a palette."""
    icc, space, has_alpha, has_palette = None, None, count in (2, 4), False
    for header in (box for box in top if box.name == b"jp2h"):
        for box in boxes(data, header.body, header.end):
            body = data[box.body : box.end]
            if box.name == b"pclr":
                has_palette = True
            if box.name == b"colr" and icc is None and space is None:
                icc = body[3:] if body[0] in (2, 3) else None
                space = struct.unpack(">I", body[3:7])[0] if body[0] == 1 else None
            if box.name == b"cdef" and not has_palette:
                entries = [struct.unpack_from(">3H", body, 2 + 6 * i) for i in range((len(body) - 2) // 6)]
                has_alpha = any(kind in OPACITY for _, kind, _ in entries)
                ordered = sorted(entries)
                colours = [(kind, whose) for _, kind, whose in ordered[: count - has_alpha]]
                if colours != [(0, i + 1) for i in range(count - has_alpha)]:
                    raise SkippedImage("unsupported JPEG 2000", "its channels are of an order of their own")
    if count == 4 and (space == CMYK or (icc and icc[16:20] == b"CMYK")):
        has_alpha = False
    if space not in (None, SRGB, GREY, CMYK, SYCC):
        raise SkippedImage("unsupported JPEG 2000", f"its colour space {space} can not be edited")
    return icc, space, has_alpha, has_palette


def decode_jpeg2000(data: bytes, layout: Layout) -> Picture:
    """The picture of a file whose header was checked."""
    samples = imagecodecs.jpeg2k_decode(data[layout.start : layout.end], numthreads=1)
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.shape != (layout.height, layout.width, len(layout.bits)):
        raise ValueError("samples of another size than its header says")
    samples = spread(samples, layout.bits[0])
    alpha = samples[..., -1] if layout.has_alpha else None
    stored = samples[..., : samples.shape[2] - layout.has_alpha]
    count = stored.shape[2]
    if count not in (1, 3, 4) or (count == 4 and alpha is not None):
        raise SkippedImage("unsupported JPEG 2000", f"{len(layout.bits)} components can not be edited")
    stored = stored[..., 0] if count == 1 else stored
    profile: Profile | PlainInks | None = None
    if count == 4:
        profile = Profile.of(layout.icc, "CMYK") or PlainInks()
    else:
        profile = Profile.of(layout.icc, "L" if count == 1 else "RGB")
    return Picture(
        rgb=upright_rgb(stored, 1, profile),
        format=FORMAT,
        stored=stored,
        alpha=alpha,
        orientation=1,
        save={"bitspersample": layout.bits[0], "resolutions": layout.resolutions},
        profile=profile,
        source=data,
    )


def encode_jpeg2000(original: Picture, planes: Array) -> bytes:
    """The file of `original` with other samples, [H, W] or [H, W, C] of its depth, alpha last."""
    layout, bits = jpeg2000_layout(original.source), original.save["bitspersample"]
    coded = bytes(
        imagecodecs.jpeg2k_encode(
            gathered(planes, bits),
            level=0,
            codecformat="J2K",
            reversible=True,
            bitspersample=bits,
            resolutions=original.save["resolutions"],
            numthreads=1,
        )
    )
    stream = _with_comments(coded, layout.comments)
    if layout.box is None:
        return stream
    source = original.source
    if planes.shape[:2] != (layout.height, layout.width):
        source = _of_size(source, planes.shape[0], planes.shape[1])
    return source[: layout.box.start] + with_body(source, layout.box, stream) + source[layout.box.end :]


def _of_size(data: bytes, height: int, width: int) -> bytes:
    """A file whose image header says another size."""
    for header in (box for box in boxes(data) if box.name == b"jp2h"):
        for box in boxes(data, header.body, header.end):
            if box.name == b"ihdr":
                return data[: box.body] + struct.pack(">II", height, width) + data[box.body + 8 :]
    return data


def _with_comments(stream: bytes, comments: tuple[bytes, ...]) -> bytes:
    """A codestream with other COM segments in its main header."""
    place, kept = 2, [stream[:2]]
    while (marker := struct.unpack_from(">H", stream, place)[0]) != SOT:
        end = place + 2 + struct.unpack_from(">H", stream, place + 2)[0]
        if marker != COM:
            kept.append(stream[place:end])
        place = end
    return b"".join([*kept, *comments, stream[place:]])
