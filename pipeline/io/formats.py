"""Which files are pictures, which formats are decoded, and how large one may be."""

from pathlib import PurePosixPath
from typing import Literal

# Suffixes of pictures.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jxl", ".heic", ".heif", ".avif"}
)
# Formats whose decoders we trust with untrusted bytes; Pillow knows more, one of which starts Ghostscript.
# A JPEG with further pictures behind it (MPO) is opened by "JPEG". TIFFs are read by tiff.py.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# What pictures become that can not be written back, as --convert, and what is added to their names.
Into = Literal["none", "png", "tiff"]
CONVERTED: dict[Into, str] = {"png": ".png", "tiff": ".tif"}
_PNG = b"\x89PNG\r\n\x1a\n"
# The default limit; Pillow's own against decompression bombs.
MAX_PIXELS = 178_956_970
# Most bytes of an uncompressed pixel (four samples of 16 bits), and of metadata beside the pixels.
BYTES_PER_PIXEL, METADATA_BYTES = 8, 64 << 20


def is_image_name(name: str) -> bool:
    """Whether the suffix of a file or member name is a picture's."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def most_bytes(max_pixels: int) -> int:
    """The longest file that a picture of so many pixels can be."""
    return BYTES_PER_PIXEL * max_pixels + METADATA_BYTES


def weight(data: bytes) -> int:
    """How many pixels one of this file's counts as: 2 of a 16-bit colour PNG, which take twice the memory."""
    return 2 if data[:8] == _PNG and data[24:26] in (b"\x10\x02", b"\x10\x06") else 1
