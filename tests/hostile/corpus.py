"""Bad and hostile inputs, made here byte by byte, each with what must become of it.

Pictures are one file each and can stand in any kind of shard. Folders, tars and Parquet files are inputs whose
names, headers and types are hostile; some are refused as a whole.
"""

import gzip
import io
import os
import struct
import tarfile
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from photographs import encoded, portrait
from PIL import Image, ImageCms

Expected = tuple[str, str]  # outcome, reason
RESTORED, NO_FACE = ("restored", ""), ("no_face", "")
TRUNCATED, TOO_LARGE = ("failed", "truncated"), ("skipped", "too large")
NOT_A_FILE, DAMAGED = ("skipped", "not a file"), ("failed", "damaged shard")
UNREADABLE = ("failed", "unreadable")

FACE = portrait()
FLAT = Image.new("RGB", (64, 48), (120, 90, 60))
JPEG = encoded(FACE, "JPEG", quality=90)
PNG = encoded(FACE, "PNG")
SMALL = encoded(FLAT, "PNG")
GREY = np.asarray(FACE.convert("L"))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True)
class Source:
    """A hostile input as a whole."""

    # writes the input below a folder
    write: Callable[[Path], object]
    # what becomes of each image, in the plan's order: name, outcome and reason
    outcomes: tuple[tuple[str, Expected], ...] = ()
    # where the input is refused before anything starts: a part of the sentence
    refused: str = ""
    # images that are not delivered
    lost: frozenset[str] = field(default_factory=frozenset)


# ---- pictures


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width: int, height: int, *chunks: bytes, bits: int = 1) -> bytes:
    """A PNG with this header; its pixels are zeros as far as one compressed row reaches."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *chunks, chunk(b"IEND", b"")])


def png_bomb() -> bytes:
    """400 Mpx that are really there, in some 50 kB."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(2501 * 1000)) for _ in range(20)) + packer.flush()
    return png_of(20_000, 20_000, chunk(b"IDAT", rows))


def text_bomb() -> bytes:
    """A small picture with a comment of 200 MB."""
    packed = zlib.compress(bytes(200 << 20), 9)
    return SMALL[:33] + chunk(b"zTXt", b"Comment\0\0" + packed) + SMALL[33:]


def profile_bomb() -> bytes:
    """A small picture with a colour profile of 200 MB."""
    packed = zlib.compress(bytes(200 << 20), 9)
    return SMALL[:33] + chunk(b"iCCP", b"icc\0\0" + packed) + SMALL[33:]


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header promises this size."""
    data = bytearray(JPEG)
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def scan_bomb() -> bytes:
    """A progressive JPEG whose last scan comes five thousand times."""
    data = encoded(FACE, "JPEG", progressive=True)
    place = data.rindex(b"\xff\xda")
    return data[:place] + data[place:-2] * 5000 + data[-2:]


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(FLAT.quantize(8), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def gif_frame_of(width: int, height: int) -> bytes:
    """A GIF whose frame is larger than the screen it says it has."""
    data = bytearray(encoded(FLAT.quantize(8), "GIF"))
    place = data.index(b"\x2c\0\0\0\0", 13)
    data[place + 5 : place + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(FLAT, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(FLAT, "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    flags = struct.unpack("<I", data[place : place + 4])[0] >> 28
    data[place : place + 4] = struct.pack("<I", width - 1 | (height - 1) << 14 | flags << 28)
    return bytes(data)


def tiff_of(width: int, height: int, *more: tuple[int, int, int, int], behind: bytes = b"") -> bytes:
    """A TIFF of grey whose one strip begins with the directory. more: tag, type, count and value in place of these."""
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    entries |= {
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, min(width * height, 2**32 - 1)),
    }
    entries |= {tag: tuple(rest) for tag, *rest in more}
    body = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + behind


def tiff_loop() -> bytes:
    """A TIFF whose second directory is its first."""
    data = bytearray(tiff_of(8, 8) + bytes(64))
    place = 8 + 2 + 12 * 9
    data[place : place + 4] = struct.pack("<I", 8)
    return bytes(data)


def tiff_chain() -> bytes:
    """A TIFF of a million pages, each of one tag."""
    data = bytearray(tiff_of(8, 8, behind=bytes(64)))
    place = 8 + 2 + 12 * 9
    for _ in range(1_000_000):
        data[place : place + 4] = struct.pack("<I", len(data))
        place = len(data) + 14
        data += struct.pack("<HHHIII", 1, 254, 4, 1, 0, 0)
    return bytes(data)


def tiff_bomb() -> bytes:
    """A TIFF of 4096 pixels whose strip inflates to 200 MB."""
    packed = zlib.compress(bytes(200 << 20), 9)
    end = 8 + 2 + 12 * 9 + 4
    return tiff_of(64, 64, (259, 3, 1, 8), (273, 4, 1, end), (279, 4, 1, len(packed)), behind=packed)


def tiff_of_a_jpeg() -> bytes:
    """A TIFF of 4096 pixels whose strip is a JPEG that promises four thousand million."""
    jpeg, end = jpeg_of(65_500, 65_500), 8 + 2 + 12 * 9 + 4
    strip = ((259, 3, 1, 7), (262, 3, 1, 6), (277, 3, 1, 3), (273, 4, 1, end), (279, 4, 1, len(jpeg)))
    return tiff_of(64, 64, *strip, behind=jpeg)


def tiles_and_levels() -> bytes:
    """A BigTIFF of planes in tiles, with a smaller level below the page."""
    planes = np.moveaxis(np.asarray(FACE), 2, 0)
    how = {
        "photometric": "rgb",
        "planarconfig": "separate",
        "tile": (32, 32),
        "compression": "zlib",
        "predictor": True,
    }
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=True, byteorder=">") as file:
        file.write(planes, subifds=1, metadata=None, **how)
        file.write(planes[:, ::2, ::2], subfiletype=1, metadata=None, **how)
    return buffer.getvalue()


def deep_colour(suffix: str) -> bytes:
    samples = (np.asarray(FACE).astype(np.uint16) * 257)[..., ::-1]
    return cv2.imencode(suffix, np.ascontiguousarray(samples))[1].tobytes()


def frames(kind: str) -> bytes:
    return encoded(FACE, kind, save_all=True, append_images=[FLAT.resize(FACE.size)])


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def one_bit() -> bytes:
    return encoded(FLAT.convert("1"), "PNG")


def mpo() -> bytes:
    return encoded(FACE, "MPO", save_all=True, append_images=[FLAT])


def integers() -> bytes:
    return encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF")


def floats() -> bytes:
    return encoded(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF")


def not_numbers_in_exif() -> bytes:
    """A density of 0/0, which Pillow writes back as it can."""
    tags = Image.Exif()
    tags[0x011A], tags[0x011B] = (0, 0), (0, 0)
    with warnings.catch_warnings(action="ignore"):
        return encoded(FACE, "JPEG", exif=tags)


def with_junk_between_segments() -> bytes:
    place = JPEG.index(b"\xff\xdb")
    return JPEG[:place] + b"junk that decoders pass over" + JPEG[place:]


def cmyk(**options: object) -> bytes:
    return encoded(FACE.convert("CMYK"), "JPEG", quality=92, **options)


def box(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"mif1" + b"pixels"


# name → how it is made, and what must become of it
PICTURES: Mapping[str, tuple[Callable[[], bytes], Expected]] = {
    "empty.jpg": (lambda: b"", ("failed", "empty")),
    "one byte.png": (lambda: b"\x89", ("failed", "not an image")),
    "zeros.jpg": (lambda: bytes(4096), ("failed", "not an image")),
    "letter.png": (lambda: b"Dear Sir or Madam,\n", ("failed", "not an image")),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><img src=x onerror=1>", ("failed", "not an image")),
    "script.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ("failed", "not an image")),
    "jpeg cut at 20.jpg": (lambda: JPEG[:20], ("failed", "not an image")),
    "png cut at 20.png": (lambda: PNG[:20], TRUNCATED),
    "archive.png": (lambda: gzip.compress(bytes(1 << 20)), ("failed", "not an image")),
    **{
        f"jpeg cut at {n}.jpg": (lambda n=n: JPEG[:n], TRUNCATED)
        for n in (200, 600, len(JPEG) // 2, len(JPEG) - 400)
    },
    **{f"png cut at {n}.png": (lambda n=n: PNG[:n], TRUNCATED) for n in (45, 900, len(PNG) // 2)},
    "gif cut.gif": (lambda: encoded(FACE.quantize(64), "GIF")[:-900], TRUNCATED),
    "webp cut.webp": (lambda: encoded(FACE, "WEBP")[:-300], TRUNCATED),
    "tiff cut.tif": (lambda: encoded(FACE, "TIFF")[:-2000], TRUNCATED),
    "bmp cut.bmp": (lambda: encoded(FACE, "BMP")[:-2000], TRUNCATED),
    "a png.jpg": (lambda: PNG, RESTORED),
    "a jpeg.gif": (lambda: JPEG, RESTORED),
    "loud.JPEG": (lambda: JPEG, RESTORED),
    "animated.gif": (lambda: frames("GIF"), ("skipped", "animated")),
    "animated.png": (lambda: frames("PNG"), ("skipped", "animated")),
    "animated.webp": (lambda: frames("WEBP"), ("skipped", "animated")),
    "levels.tif": (tiles_and_levels, RESTORED),
    "pages.tif": (lambda: frames("TIFF"), RESTORED),
    "endless pages.tif": (tiff_loop, NO_FACE),
    "two in one.jpg": (mpo, RESTORED),
    "cmyk.jpg": (cmyk, RESTORED),
    "cmyk of a broken profile.jpg": (lambda: cmyk(icc_profile=b"no profile" * 20), RESTORED),
    "cmyk of a foreign profile.jpg": (lambda: cmyk(icc_profile=SRGB), RESTORED),
    "cmyk.tif": (lambda: encoded(FACE.convert("CMYK"), "TIFF"), RESTORED),
    "deep grey.png": (lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), RESTORED),
    "deep colour.png": (lambda: deep_colour(".png"), RESTORED),
    "deep colour.tif": (lambda: deep_colour(".tiff"), RESTORED),
    "integers.tif": (integers, ("skipped", "deep samples")),
    "not numbers.tif": (floats, ("skipped", "float samples")),
    "one bit.png": (one_bit, NO_FACE),
    "palette.png": (lambda: encoded(FACE.quantize(200), "PNG"), RESTORED),
    "palette.gif": (lambda: encoded(FACE.quantize(200), "GIF"), RESTORED),
    "alpha.png": (lambda: encoded(FACE.convert("RGBA"), "PNG"), RESTORED),
    "grey alpha.png": (lambda: encoded(FACE.convert("LA"), "PNG"), RESTORED),
    "turned ninefold.jpg": (lambda: encoded(FACE, "JPEG", exif=exif(9)), RESTORED),
    "exif of noise.jpg": (lambda: encoded(FACE, "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 400), RESTORED),
    "density of nothing.jpg": (not_numbers_in_exif, RESTORED),
    "junk between.jpg": (with_junk_between_segments, RESTORED),
    "junk behind.jpg": (lambda: JPEG + b"PK\3\4" * 900, RESTORED),
    "30000 wide.png": (lambda: encoded(Image.new("L", (30_000, 40)), "PNG"), NO_FACE),
    "40000 high.jpg": (lambda: encoded(Image.new("L", (16, 40_000)), "JPEG"), NO_FACE),
    "one pixel.png": (lambda: encoded(Image.new("L", (1, 1)), "PNG"), NO_FACE),
    "one row.bmp": (lambda: encoded(Image.new("RGB", (30_000, 1)), "BMP"), NO_FACE),
    "no pixels.gif": (lambda: gif_of(0, 0), NO_FACE),
    "no pixels.bmp": (lambda: bmp_of(0, 0), ("failed", "not an image")),
    "bomb.png": (png_bomb, TOO_LARGE),
    "promise.png": (lambda: png_of(2**31 - 1, 2**31 - 1), TOO_LARGE),
    "promise.jpg": (lambda: jpeg_of(65_500, 65_500), TOO_LARGE),
    "promise.gif": (lambda: gif_of(65_535, 65_535), TOO_LARGE),
    "promise of a frame.gif": (lambda: gif_frame_of(65_535, 65_535), TOO_LARGE),
    "promise.bmp": (lambda: bmp_of(2**30, 2**30), TOO_LARGE),
    "promise.tif": (lambda: tiff_of(2**31, 2**31), TOO_LARGE),
    "promise.webp": (lambda: webp_of(16_383, 16_383), TOO_LARGE),
    "short promise.tif": (lambda: tiff_of(12_000, 12_000), TRUNCATED),
    "levels in a circle.tif": (lambda: tiff_of(8, 8, (330, 4, 1, 8), behind=bytes(64)), NO_FACE),
    "levels at the start.tif": (lambda: tiff_of(8, 8, (330, 4, 1, 0), behind=bytes(64)), NO_FACE),
    "levels without end.tif": (lambda: tiff_of(8, 8, (330, 4, 2**32 - 1, 8), behind=bytes(64)), NO_FACE),
    "a million pages.tif": (tiff_chain, NO_FACE),
    "strips beyond the end.tif": (lambda: tiff_of(8, 8, (273, 4, 1, 2**32 - 9)), TRUNCATED),
    "billions of strips.tif": (lambda: tiff_of(1, 2**32 - 1, (278, 4, 1, 1)), TOO_LARGE),
    "millions of strips.tif": (lambda: tiff_of(1, 10**8, (278, 4, 1, 1)), TRUNCATED),
    "places without end.tif": (lambda: tiff_of(8, 8, (273, 4, 2**32 - 1, 8)), TRUNCATED),
    "places of text.tif": (lambda: tiff_of(8, 8, (273, 2, 4, 8)), TRUNCATED),
    "tiles of gigabytes.tif": (
        lambda: tiff_of(8, 8, (322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8), (325, 4, 1, 64)),
        TRUNCATED,
    ),
    "tiles of nothing.tif": (
        lambda: tiff_of(8, 8, (322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 8), (325, 4, 1, 64)),
        TRUNCATED,
    ),
    "samples of thousands.tif": (lambda: tiff_of(8, 8, (277, 3, 1, 65_535)), ("skipped", "unsupported TIFF")),
    "palette of nothing.tif": (lambda: tiff_of(8, 8, (262, 3, 1, 3), behind=bytes(64)), TRUNCATED),
    "no bits.tif": (lambda: tiff_of(8, 8, (258, 3, 1, 0)), ("skipped", "few bits")),
    "bomb.tif": (tiff_bomb, NO_FACE),
    "promise of a jpeg.tif": (tiff_of_a_jpeg, TRUNCATED),
    "no directory.tif": (lambda: b"II*\0" + bytes(60), TRUNCATED),
    "big words.tif": (lambda: b"II+\0\x08\0\0\0" + b"\xff" * 60, TRUNCATED),
    "comment bomb.png": (text_bomb, TRUNCATED),
    "profile bomb.png": (profile_bomb, TRUNCATED),
    "scan bomb.jpg": (scan_bomb, ("skipped", "too many scans")),
    "phone.heic": (lambda: box(b"heic"), ("failed", "truncated")),
    "web.avif": (lambda: box(b"avif"), ("failed", "truncated")),
    "new.jxl": (lambda: b"\xff\x0a" + bytes(40), ("skipped", "unsupported JPEG XL")),
    "film.jp2": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), ("failed", "truncated")),
}


# ---- folders

LONG = "n" * 251 + ".png"
NAMES = (
    "-rf.png",
    "%2e%2e%2fescape.png",
    "up..\\..\\escape.png",
    "CON.png",
    "Case.png",
    "case.png",
    "line\nbreak.png",
    unicodedata.normalize("NFC", "é.png"),
    unicodedata.normalize("NFD", "é.png"),
    "tail .png",
    os.fsdecode(b"caf\xe9.png"),
    LONG,
)


def names(folder: Path) -> None:
    for name in NAMES:
        (folder / name).write_bytes(SMALL)


def no_files(folder: Path) -> None:
    """Names of pictures that are no files, beside one that is."""
    (folder / "outside").mkdir()
    (folder.parent / "secret.txt").write_text("not yours")
    (folder / "a.png").write_bytes(SMALL)
    (folder / ".hidden.png").write_bytes(SMALL)
    (folder / "to a text.png").symlink_to(folder.parent / "secret.txt")
    (folder / "to nothing.png").symlink_to(folder / "nothing.png")
    (folder / "to itself.png").symlink_to(folder / "to itself.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")


def long_file(folder: Path) -> None:
    """A terabyte of holes beside a small picture."""
    (folder / "a.png").write_bytes(SMALL)
    with (folder / "long.jpg").open("wb") as file:
        file.truncate(1 << 40)


def deep_path(folder: Path) -> None:
    """A path that is short enough here, and too long below the output."""
    (folder / "a.png").write_bytes(SMALL)
    path = folder
    while (left := 4090 - len(os.fsencode(path))) > 250:
        path /= "d" * min(200, left - 30)
        path.mkdir()
    (path / ("n" * (left - 5) + ".png")).write_bytes(SMALL)


def all_pictures(folder: Path) -> None:
    for name, (make, _) in PICTURES.items():
        (folder / name).write_bytes(make())


def outcomes_of(*pairs: tuple[str, Expected]) -> tuple[tuple[str, Expected], ...]:
    return pairs


FOLDERS: Mapping[str, Source] = {
    "every picture": Source(all_pictures, tuple(sorted((n, e) for n, (_, e) in PICTURES.items()))),
    "names": Source(names, tuple((n, NO_FACE) for n in sorted(NAMES))),
    "no files": Source(
        no_files, outcomes_of(("a.png", NO_FACE), ("to a text.png", ("failed", "not an image")))
    ),
    "a terabyte": Source(
        long_file,
        outcomes_of(("a.png", NO_FACE), ("long.jpg", ("failed", "too many bytes"))),
        lost=frozenset({"long.jpg"}),
    ),
    "nothing": Source(
        lambda folder: (folder / "notes.txt").write_text("no picture"), refused="none of them is one"
    ),
}


# ---- tars


def member(name: str, data: bytes = SMALL, **fields: object) -> bytes:
    """A whole member; `fields` are those of its TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def patched(block: bytes, **fields: bytes) -> bytes:
    """A header block with raw fields instead of its own, and the checksum that fits."""
    places = {"name": (0, 100), "size": (124, 12), "kind": (156, 1), "extended": (482, 1), "whole": (483, 12)}
    raw = bytearray(block)
    for key, value in fields.items():
        place, length = places[key]
        raw[place : place + length] = value.ljust(length, b"\0")[:length]
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def header(name: str, size: int = 0, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


def number(value: int) -> bytes:
    """A size beyond what octal digits tell, as GNU tar writes it."""
    return bytes([0x80 if value >= 0 else 0xFF]) + (value % 256**11).to_bytes(11, "big")


def pax(records: Mapping[str, str], kind: bytes = b"x") -> bytes:
    """An extended header of these records."""
    body = b""
    for key, value in records.items():
        text = f" {key}={value}\n".encode(errors="surrogateescape")
        length = len(text) + 1
        while len(str(length)) + len(text) != length:
            length += 1
        body += str(length).encode() + text
    return raw_pax(body, kind)


def raw_pax(body: bytes, kind: bytes = b"x") -> bytes:
    return header("././@PaxHeader", len(body), kind) + body + bytes(-len(body) % 512)


def gnu_long(name: bytes) -> bytes:
    return header("././@LongLink", len(name) + 1, b"L") + name + bytes(512 - len(name) % 512)


def sparse() -> bytes:
    """A member of a terabyte, nearly all of it holes."""
    block = patched(header("b.png", 512, b"S"), whole=number(1 << 40))
    return block + bytes(512)


END = bytes(1024)


def tar(*parts: bytes, end: bytes = END, name: str = "s.tar") -> Callable[[Path], object]:
    """What writes a tar of these raw parts."""
    return lambda folder: (folder / name).write_bytes(b"".join(parts) + end)


def damaged(place: int, what: str) -> tuple[str, Expected]:
    return f"(damaged at byte {place}: {what})", DAMAGED


A, C = member("a.png"), member("c.png")
OK = (("a.png", NO_FACE), ("c.png", NO_FACE))
PAX_NAME = "p/" * 200 + "n" * 200 + ".png"
RECORDS_OF_TWO_BYTES = b"2 " * 30_000 + b"=\n"


def special(kind: bytes, **fields: object) -> Source:
    """A member that is no file, between two that are."""
    return Source(
        tar(A, member("b.png", b"", type=kind, **fields), C),
        outcomes_of(OK[0], ("b.png", NOT_A_FILE), OK[1]),
    )


def bomb(folder: Path) -> None:
    """A compressed tar of 4 GB of zeros in 4 MB, under the name of a plain one."""
    packer = zlib.compressobj(1, wbits=31)
    with (folder / "s.tar").open("wb") as file:
        for _ in range(256):
            file.write(packer.compress(bytes(1 << 20)))
        piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
        file.write(piece * 3840)


TARS: Mapping[str, Source] = {
    "parent names": Source(
        tar(member("../../escape.png"), member("../escape.png"), A),
        outcomes_of(("../../escape.png", NO_FACE), ("../escape.png", NO_FACE), ("a.png", NO_FACE)),
    ),
    "absolute name": Source(
        lambda folder: tar(member(f"{folder.parent}/escape.png"))(folder), (("*/escape.png", NO_FACE),)
    ),
    "symbolic link": special(tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": Source(
        tar(A, member("b.png", b"", type=tarfile.LNKTYPE, linkname="a.png"), C),
        outcomes_of(OK[0], ("b.png", NO_FACE), OK[1]),
    ),
    "hard link to nothing": special(tarfile.LNKTYPE, linkname="nowhere.png"),
    "hard link to itself": special(tarfile.LNKTYPE, linkname="b.png"),
    "hard link to what follows": special(tarfile.LNKTYPE, linkname="c.png"),
    "hidden": Source(
        tar(member("._a.png", b"\0\5\x16\7"), A, member("__MACOSX/a.png"), member(".thumbs/./b.png"), C),
        OK,
    ),
    "character device": special(tarfile.CHRTYPE, devmajor=1, devminor=5),
    "block device": special(tarfile.BLKTYPE, devmajor=8, devminor=0),
    "pipe": special(tarfile.FIFOTYPE),
    "folder": special(tarfile.DIRTYPE),
    "duplicate names": Source(
        tar(A, member("a.png", PNG), A, C),
        outcomes_of(("a.png", NO_FACE), ("a.png", RESTORED), ("a.png", NO_FACE), ("c.png", NO_FACE)),
    ),
    "names of 255 bytes": Source(tar(member(LONG), A), outcomes_of((LONG, NO_FACE), OK[0])),
    "long path": Source(tar(member(PAX_NAME), A), outcomes_of((PAX_NAME, NO_FACE), OK[0])),
    "gnu long name": Source(
        tar(gnu_long(b"n" * 1000 + b".png") + header("n", len(SMALL)) + SMALL + bytes(-len(SMALL) % 512), A),
        outcomes_of(("n" * 1000 + ".png", NO_FACE), OK[0]),
    ),
    "no UTF-8": Source(
        tar(member(os.fsdecode(b"caf\xe9.png")), A),
        outcomes_of((os.fsdecode(b"caf\xe9.png"), NO_FACE), OK[0]),
    ),
    "line break": Source(tar(member("a\nb.png"), A), outcomes_of(("a\nb.png", NO_FACE), OK[0])),
    "no name": Source(tar(member(""), A), outcomes_of(OK[0])),
    "sparse terabyte": Source(
        tar(A, sparse(), C), outcomes_of(OK[0], ("b.png", ("skipped", "sparse file")), OK[1])
    ),
    "sparse by pax": Source(
        tar(A, pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": f"{1 << 40}"})
            + header("b.png", 512) + b"1\n" * 256, C),
        outcomes_of(OK[0], ("b.png", ("skipped", "sparse file")), OK[1]),
    ),
    "time without end": Source(
        tar(pax({"mtime": "inf"}) + member("b.png"), A), outcomes_of(("b.png", NO_FACE), OK[0])
    ),
    "global path": Source(
        tar(pax({"comment": "all"}, b"g"), A, C), outcomes_of(*OK)
    ),
    "cut in a picture": Source(
        tar(A, C[:600], end=b""), outcomes_of(OK[0], damaged(len(A), "the file ends inside 'c.png'"))
    ),
    "cut in a header": Source(
        tar(A, C[:100], end=b""), outcomes_of(OK[0], damaged(len(A), "a header was wanted, other bytes are there"))
    ),
    "noise in a header": Source(
        tar(A, b"\x55" * 512, C), outcomes_of(OK[0], damaged(len(A), "a header was wanted, other bytes are there"))
    ),
    "one behind the other": Source(
        tar(A, END, C),
        outcomes_of(OK[0], damaged(len(A), "more members may follow its end mark; join tars with `tar -A`")),
    ),
    "backwards": Source(
        tar(A, patched(header("b.png"), size=number(-1024)), C),
        outcomes_of(OK[0], damaged(len(A), "a length of -1024 bytes")),
    ),
    "backwards by pax": Source(
        tar(A, pax({"size": "-2048"}) + header("b.png"), C),
        outcomes_of(OK[0], damaged(len(A), "a length of -2048 bytes")),
    ),
    "exabytes": Source(
        tar(A, patched(header("b.png"), size=number(1 << 62)), C),
        outcomes_of(OK[0], damaged(len(A), "the file ends inside 'b.png'")),
    ),
    "a long name of gigabytes": Source(
        tar(A, patched(header("././@LongLink", 0, b"L"), size=number(1 << 34)), C),
        outcomes_of(OK[0], damaged(len(A), "extended headers of 17179869184 bytes and more")),
    ),
    "quadratic pax": Source(
        tar(A, raw_pax(RECORDS_OF_TWO_BYTES), C), outcomes_of(OK[0], damaged(len(A), "damaged pax records"))
    ),
    "quadratic digits": Source(
        tar(A, pax({"path": "1" * 60_000}), C), outcomes_of(OK[0], damaged(len(A), "a pax record of digits"))
    ),
    "headers without end": Source(
        tar(A, gnu_long(b"n.png") * 3000, C),
        outcomes_of(OK[0], damaged(len(A), "maximum recursion depth exceeded*")),
    ),
    "no pictures, and some": Source(
        lambda folder: (tar(end=bytes(10240), name="e.tar")(folder), tar(A)(folder)), outcomes_of(OK[0])
    ),
    "no bytes": Source(tar(end=b""), refused="no readable tar file"),
    "no tar": Source(tar(b"not a tar" * 100), refused="no readable tar file"),
    "compressed": Source(
        lambda folder: (folder / "s.tar.gz").write_bytes(gzip.compress(A + END)), refused="unpack it to .tar"
    ),
    "compressed among others": Source(
        lambda folder: (tar(A)(folder), (folder / "t.TGZ").write_bytes(gzip.compress(A))),
        refused="unpack it to .tar",
    ),
    "compressed bomb": Source(bomb, refused="unpack it to .tar"),
}  # fmt: skip


# ---- Parquet


def parquet(column: object, name: str = "s.parquet", **options: object) -> Callable[[Path], object]:
    """What writes a file with this image column and an id."""

    def write(folder: Path) -> None:
        pq.write_table(pa.table({"image": column, "id": range(len(column))}), folder / name, **options)  # type: ignore[arg-type]

    return write


def rows(*expected: Expected) -> tuple[tuple[str, Expected], ...]:
    return tuple((str(i), e) for i, e in enumerate(expected))


def broken_pages(folder: Path) -> None:
    parquet([SMALL, PNG], compression="NONE", use_dictionary=False)(folder)
    data = bytearray((folder / "s.parquet").read_bytes())
    data[4:60] = b"\xff" * 56
    (folder / "s.parquet").write_bytes(data)


def broken_neighbour(folder: Path) -> None:
    """The image column can be read, the one beside it can not."""
    parquet([SMALL, PNG], compression="NONE", use_dictionary=False)(folder)
    place = pq.ParquetFile(folder / "s.parquet").metadata.row_group(0).column(1).data_page_offset
    data = bytearray((folder / "s.parquet").read_bytes())
    data[place : place + 24] = b"\xff" * 24
    (folder / "s.parquet").write_bytes(data)


def twice_named(folder: Path) -> None:
    table = pa.Table.from_arrays([pa.array([SMALL]), pa.array([SMALL])], names=["image", "image"])
    pq.write_table(table, folder / "s.parquet")


def empty_groups(folder: Path) -> None:
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(folder / "s.parquet", schema) as writer:
        for cells in ([], [SMALL], [], [], [None, SMALL], []):
            writer.write_table(pa.table({"image": pa.array(cells, pa.binary())}, schema=schema))


def rows_of_nothing(folder: Path) -> None:
    """Hundred million nulls in a few kilobytes."""
    schema = pa.schema([("image", pa.binary())])
    piece = pa.table({"image": pa.nulls(10_000_000, pa.binary())}, schema=schema)
    with pq.ParquetWriter(folder / "s.parquet", schema) as writer:
        for _ in range(10):
            writer.write_table(piece, row_group_size=10_000_000)


def one_value_often(folder: Path, rows: int = 12) -> None:
    """Eight megabytes that stand in the file once and in every row."""
    value = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([bytes(8 << 20)]))
    pq.write_table(pa.table({"image": value}), folder / "s.parquet", compression="ZSTD", store_schema=False)


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PARQUETS: Mapping[str, Source] = {
    "nulls": Source(parquet([SMALL, None, PNG, None]), rows(NO_FACE, UNREADABLE, RESTORED, UNREADABLE)),
    "only nulls": Source(parquet(pa.nulls(2)), rows(UNREADABLE, UNREADABLE)),
    "texts": Source(parquet(["a.png", "b.png"]), rows(UNREADABLE, UNREADABLE)),
    "numbers": Source(parquet([1, 2]), rows(UNREADABLE, UNREADABLE)),
    "lists": Source(parquet([[SMALL], [SMALL, SMALL]]), rows(UNREADABLE, UNREADABLE)),
    "structs": Source(
        parquet(pa.array([{"bytes": PNG, "path": "../x"}, {"bytes": None}, None], STRUCT)),
        rows(RESTORED, UNREADABLE, UNREADABLE),
    ),
    "structs without bytes": Source(parquet([{"path": "a"}, {"path": "b"}]), rows(UNREADABLE, UNREADABLE)),
    "nested twice": Source(parquet([{"bytes": {"bytes": SMALL}}]), rows(UNREADABLE)),
    "large binary": Source(parquet(pa.array([PNG, SMALL], pa.large_binary())), rows(RESTORED, NO_FACE)),
    "words of one length": Source(
        parquet(pa.array([PNG], pa.binary(len(PNG)))), rows(("failed", "unwritable"))
    ),
    "dictionary": Source(
        parquet(pa.array([PNG, SMALL, PNG]).dictionary_encode()), rows(RESTORED, NO_FACE, RESTORED)
    ),
    "empty row groups": Source(empty_groups, rows(NO_FACE, UNREADABLE, NO_FACE)),
    "no rows, and some": Source(
        lambda folder: (parquet([SMALL])(folder), parquet(pa.array([], pa.binary()), "e.parquet")(folder)),
        rows(NO_FACE),
    ),
    "no rows": Source(parquet(pa.array([], pa.binary())), ()),
    "broken pages": Source(broken_pages, rows(UNREADABLE, UNREADABLE), lost=frozenset({"0", "1"})),
    "broken neighbour": Source(broken_neighbour, rows(UNREADABLE, UNREADABLE), lost=frozenset({"0", "1"})),
    "one value often": Source(one_value_often, rows(*[("failed", "not an image")] * 12)),
    "no column": Source(
        lambda folder: pq.write_table(pa.table({"picture": [SMALL]}), folder / "s.parquet"),
        refused="no column 'image'",
    ),
    "a column twice": Source(twice_named, refused="more than one column 'image'"),
    "no footer": Source(
        lambda folder: (folder / "s.parquet").write_bytes(b"PAR1" + bytes(500)),
        refused="no readable Parquet file",
    ),
    "no bytes": Source(
        lambda folder: (folder / "s.parquet").write_bytes(b""), refused="no readable Parquet file"
    ),
    "a cut footer": Source(
        lambda folder: (
            parquet([SMALL, PNG])(folder),
            os.truncate(folder / "s.parquet", (folder / "s.parquet").stat().st_size - 30),
        ),
        refused="no readable Parquet file",
    ),
    "rows of nothing": Source(rows_of_nothing, refused="at most 4000000"),
}


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """A plain tar of the members."""
    buffer = io.BytesIO()
    buffer.write(b"".join(member(name, data) for name, data in members.items()) + END)
    return buffer.getvalue()
