"""Media types of what is delivered, by name and by content."""

from pathlib import PurePosixPath

_BY_SUFFIX = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".jpe": "image/jpeg", ".jfif": "image/jpeg", ".png": "image/png",
    ".webp": "image/webp", ".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp", ".gif": "image/gif",
    ".heic": "image/heic", ".heif": "image/heif", ".avif": "image/avif", ".jxl": "image/jxl", ".jp2": "image/jp2",
    ".xmp": "application/rdf+xml", ".tar": "application/x-tar", ".parquet": "application/vnd.apache.parquet",
}  # fmt: skip
# Kinds that C2PA's library signs, by the first bytes of a file; of ISO's media files by their brand.
_SIGNABLE = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"GIF8": "image/gif",
}
_BRANDS = {b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif"}


def media_type(name: str) -> str:
    """The media type that the suffix of a file's name stands for."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")


def signable(data: bytes) -> str | None:
    """The media type of a picture that can be signed; None for other kinds."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((kind for begin, kind in _SIGNABLE.items() if data.startswith(begin)), None)
