"""JPEG XL: files and bare codestreams. An edited one is coded without loss, whatever it was.

libjxl (through imagecodecs) decodes and encodes sRGB and grey only; a picture of other colours is skipped.
"""

from typing import NamedTuple

import imagecodecs

from pipeline.io.boxes import boxes, with_body
from pipeline.io.icc import Profile, linear_profile
from pipeline.io.picture import Array, NotWritable, Picture, SkippedImage, spread, upright_rgb

FORMAT = "JPEGXL"
CODESTREAM, FILE = b"\xff\x0a", b"JXL \r\n\x87\n"
# Boxes of codestreams, and of the level that decoders must have, which are those of the new picture.
STREAMS, LEVEL = (b"jxlc", b"jxlp"), b"jxll"
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
# Codes of colour encodings (ISO/IEC 18181-1): grey, D65, the primaries of sRGB, linear light, and the curve of sRGB.
GREY, D65, SRGB_PRIMARIES, LINEAR, SRGB_CURVE = 1, 1, 1, 8, 13
# Of primaries and curves that are decoded but not written: the code here → that of ITU-T H.273.
PRIMARIES, CURVES = {1: 1, 9: 9, 11: 12}, {1: 1, 8: 8, 13: 13, 16: 16, 18: 18}
ALPHA = 0
# Of 1..10: a twentieth of the time of the library's own choice, for files 5 % longer.
EFFORT = 3


class Header(NamedTuple):
    """What a codestream says of its samples before any is decoded."""

    width: int
    height: int
    bits: int
    has_alpha: bool
    is_grey: bool
    # code of the curve, and the bit at which it is written, where it is
    curve: int
    curve_at: int
    # code of the primaries
    primaries: int = SRGB_PRIMARIES


def is_jpegxl(data: bytes) -> bool:
    """Whether a file is one, by its first bytes."""
    return data.startswith(CODESTREAM) or data[4:12] == FILE


def jpegxl_header(data: bytes, every_kind: bool = False) -> Header:
    """A file's header. Raises SkippedImage for what can not be decoded, and IndexError or ValueError.

    every_kind: what can not be written back, too; else that raises NotWritable.
    """
    if data[4:12] != FILE:
        return _header(_Bits(data[:8192], 16), every_kind)
    names = [box.name for box in boxes(data)]
    if b"jbrd" in names and not every_kind:
        raise NotWritable("unsupported JPEG XL", "it holds a JPEG that could not be got back")
    if b"jxli" in names:
        raise SkippedImage("animated", "a single picture was wanted, got an index of frames")
    return _header(_Bits(_stream(data)[:8192], 16), every_kind)


def _stream(data: bytes) -> bytes:
    """The codestream of a file."""
    parts = [data[b.body + 4 * (b.name == b"jxlp") : b.end] for b in boxes(data) if b.name in STREAMS]
    return b"".join(parts)


class _Bits:
    """Reads a codestream's header bit by bit, the lowest first."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def u(self, count: int) -> int:
        number = 0
        for i in range(count):
            number |= (self.data[self.place >> 3] >> (self.place & 7) & 1) << i
            self.place += 1
        return number

    def one_of(self, *ways: tuple[int, int]) -> int:
        """One of four ways, each an offset and a number of further bits."""
        offset, count = ways[self.u(2)]
        return offset + self.u(count)

    def enum(self) -> int:
        return self.one_of((0, 0), (1, 0), (2, 4), (18, 6))


def _size(bits: _Bits) -> tuple[int, int]:
    """Width and height."""
    small = bits.u(1)

    def side() -> int:
        return 8 * (bits.u(5) + 1) if small else bits.one_of((1, 9), (1, 13), (1, 18), (1, 30))

    height, ratio = side(), bits.u(3)
    if not ratio:
        return side(), height
    over, under = RATIOS[ratio]
    return height * over // under, height


def _header(bits: _Bits, every_kind: bool = False) -> Header:
    width, height = _size(bits)
    if bits.u(1):  # all as usual
        return Header(width, height, 8, False, False, SRGB_CURVE, 0)
    if bits.u(1):
        if (turned := bits.u(3)) and not every_kind:
            raise NotWritable("unsupported JPEG XL", "an orientation can not be written back")
        if turned >= 4:
            width, height = height, width
        if bits.u(1):
            _size(bits)
        if bits.u(1):
            raise SkippedImage("unsupported JPEG XL", "a preview can not be written back")
        if bits.u(1):
            raise SkippedImage("animated", "a single picture was wanted, got several frames")
    depth = _depth(bits)
    # of 8 bits the library writes sRGB only
    curves = (SRGB_CURVE, *[LINEAR] * (depth > 8))
    if depth not in (8, 16) and not every_kind:
        raise NotWritable("unsupported JPEG XL", f"samples of {depth} bits can not be written back")
    bits.u(1)
    extras = bits.one_of((0, 0), (1, 0), (2, 4), (1, 12))
    if extras > 1 or (extras and not _is_plain_alpha(bits, depth)):
        raise SkippedImage("unsupported JPEG XL", "extra channels but alpha can not be written back")
    bits.u(1)  # coded as XYB: what it was coded from is decoded
    is_grey, primaries, curve, place = False, SRGB_PRIMARIES, SRGB_CURVE, 0
    if not bits.u(1):
        has_profile, space = bits.u(1), bits.enum()
        is_grey = space == GREY
        known = not has_profile and space <= GREY and bits.enum() == D65
        primaries = bits.enum() if known and not is_grey else primaries
        known = known and primaries in PRIMARIES and not bits.u(1)
        place = bits.place
        curve = bits.enum() if known else -1
        if curve not in CURVES:
            raise SkippedImage("unsupported JPEG XL", "its colours are described in a way that is not read")
        if not every_kind and (primaries != SRGB_PRIMARIES or curve not in curves):
            raise NotWritable("unsupported JPEG XL", "colours that are not sRGB's can not be written back")
    return Header(width, height, depth, bool(extras), is_grey, curve, place, primaries)


def _depth(bits: _Bits) -> int:
    """Bits of a sample."""
    if bits.u(1):
        raise SkippedImage("float samples", "samples of 8 or 16 bits were wanted, got floating point numbers")
    depth = bits.one_of((8, 0), (10, 0), (12, 0), (1, 6))
    if depth > 16:
        raise SkippedImage("deep samples", "samples of at most 16 bits were wanted")
    return depth


def _is_plain_alpha(bits: _Bits, depth: int) -> bool:
    """Whether an extra channel is an alpha of the picture's depth and size, and not multiplied into the colours."""
    if bits.u(1):
        return depth == 8
    kind, own = bits.enum(), _depth(bits)
    shift = bits.one_of((0, 0), (3, 0), (4, 0), (1, 3))
    length = bits.one_of((0, 0), (0, 4), (16, 5), (48, 10))
    return kind == ALPHA and own == depth and not shift and not length and not bits.u(1)


def decode_jpegxl(data: bytes, header: Header) -> Picture:
    """The picture of a file whose header was checked."""
    stored, alpha = jpegxl_samples(data, header)
    profile: Profile | None = None
    if header.curve == LINEAR:
        profile = linear_profile("L" if header.is_grey else "RGB")
    return Picture(
        rgb=upright_rgb(stored, 1, profile),
        format=FORMAT,
        stored=stored,
        alpha=alpha,
        orientation=1,
        profile=profile,
        source=data,
    )


def jpegxl_samples(data: bytes, header: Header) -> tuple[Array, Array | None]:
    """Colours, [H, W] or [H, W, 3] of 8 or 16 bits, upright, and alpha."""
    samples = imagecodecs.jpegxl_decode(data, numthreads=1)
    if samples.ndim > 3 or samples.shape[:2] != (header.height, header.width):
        raise SkippedImage("animated", "a single picture was wanted, got several frames")
    samples = samples[..., None] if samples.ndim == 2 else samples
    count = (1 if header.is_grey else 3) + header.has_alpha
    if samples.shape[2] != count or samples.dtype.itemsize * 8 != (8 if header.bits <= 8 else 16):
        raise ValueError("samples of another kind than its header says")
    samples = spread(samples, header.bits)
    stored = samples[..., 0] if header.is_grey else samples[..., :3]
    return stored, samples[..., -1] if header.has_alpha else None


def encode_jpegxl(original: Picture, planes: Array) -> bytes:
    """The file of `original` with other samples, [H, W] or [H, W, C] of its depth, alpha last.

    A bare codestream of 16 bits comes back in a file, which says what decoders it needs.
    """
    source = original.source
    coded = bytes(
        imagecodecs.jpegxl_encode(
            planes, lossless=True, effort=EFFORT, usecontainer=source[4:12] == FILE, numthreads=1
        )
    )
    is_file = coded[4:12] == FILE
    stream = _with_curve(_stream(coded) if is_file else coded, jpegxl_header(source).curve)
    if not is_file:
        return stream
    level = b"".join(coded[b.start : b.end] for b in boxes(coded) if b.name == LEVEL)
    frame = source if source[4:12] == FILE else coded
    parts, streams = [], 0
    for box in boxes(frame):
        if box.name in STREAMS:
            if not streams:
                parts.append(with_body(frame, box._replace(name=b"jxlc"), stream))
            streams += 1
        elif box.name != LEVEL:
            parts.append(frame[box.start : box.end] + (level if box.name == b"ftyp" else b""))
    return b"".join(parts)


def encode_jpegxl_anew(planes: Array) -> bytes:
    """[H, W, C] uint8 sRGB, with or without alpha, as a file of its own."""
    return bytes(imagecodecs.jpegxl_encode(planes, lossless=True, effort=EFFORT, numthreads=1))


def _with_curve(stream: bytes, curve: int) -> bytes:
    """A codestream whose header says that its samples follow that curve; the library calls 16 bits linear light."""
    header = _header(_Bits(stream[:8192], 16))
    if header.curve == curve:
        return stream
    done = bytearray(stream)
    for i in range(4):  # behind two bits that announce four; the number is the code less 2
        place = header.curve_at + 2 + i
        done[place >> 3] &= ~(1 << (place & 7))
        done[place >> 3] |= (curve - 2 >> i & 1) << (place & 7)
    return bytes(done)
