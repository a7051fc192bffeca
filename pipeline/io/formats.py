"""Which files are pictures, which formats are decoded, and how large one may be."""

from pathlib import PurePosixPath

# Suffixes of pictures. HEIC we only recognise, so that they are accounted for.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jxl", ".heic", ".heif", ".avif"}
)
# Formats whose decoders we trust with untrusted bytes; Pillow knows more, one of which starts Ghostscript.
# A JPEG with further pictures behind it (MPO) is opened by "JPEG". TIFFs are read by tiff.py.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# Signatures of formats that we can not write back as they were: offset, bytes, name.
_UNSUPPORTED = (
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1")),
)
_PNG = b"\x89PNG\r\n\x1a\n"
# The default limit; Pillow's own against decompression bombs.
MAX_PIXELS = 178_956_970
# Most bytes of an uncompressed pixel (four samples of 16 bits), and of metadata beside the pixels.
BYTES_PER_PIXEL, METADATA_BYTES = 8, 64 << 20


def is_image_name(name: str) -> bool:
    """Whether the suffix of a file or member name is a picture's."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def unsupported_format(data: bytes) -> str:
    """The name of a format that can not be written back; empty for every other file."""
    return next((name for offset, sign, name in _UNSUPPORTED if data[offset:].startswith(sign)), "")


def most_bytes(max_pixels: int) -> int:
    """The longest file that a picture of so many pixels can be."""
    return BYTES_PER_PIXEL * max_pixels + METADATA_BYTES


def weight(data: bytes) -> int:
    """How many pixels one of this file's counts as: 2 of a 16-bit colour PNG, which take twice the memory."""
    return 2 if data[:8] == _PNG and data[24:26] in (b"\x10\x02", b"\x10\x06") else 1
