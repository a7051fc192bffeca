"""HEIC files, written by libheif."""

import io
from typing import Any

import pillow_heif
from PIL import Image


def heic_file(picture: Any, tile: int = 0, **options: Any) -> bytes:
    """A picture of Pillow or of pillow_heif as HEIC. tile: side of the tiles, as telephones write them; 0: one item."""
    buffer = io.BytesIO()
    pillow_heif.options.GRID_TILE_SIZE = tile
    try:
        made = pillow_heif.from_pillow(picture) if isinstance(picture, Image.Image) else picture
        made.save(buffer, format="HEIF", **{"quality": 90} | options)
    finally:
        pillow_heif.options.GRID_TILE_SIZE = 0
    return buffer.getvalue()
