"""Bytes ↔ arrays: decoding, colour, depth, orientation, metadata, and encoding back as the same kind.

A picture is edited as upright 8-bit RGB, whatever it is stored as. `encode` gives back the stored kind: format, mode,
bit depth, alpha, orientation, metadata; pixels that were not edited keep their stored values.

The front of formats.py, picture.py, decoding.py and encoding.py.
"""

import io
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.io.decoding import decode
from pipeline.io.encoding import LUMA, Edited, Encoded, encode, encode_anew, encode_jpeg, encode_png
from pipeline.io.formats import MAX_PIXELS, is_image_name, most_bytes, weight
from pipeline.io.picture import ImageError, Picture, SkippedImage, enlarged

__all__ = [
    "LUMA", "MAX_PIXELS", "Edited", "Encoded", "ImageError", "Picture", "SkippedImage", "decode", "decode_rgb",
    "encode", "encode_anew", "encode_jpeg", "encode_png", "enlarged", "is_image_name", "jpeg_quality",
    "jpeg_round_trip", "most_bytes", "resize", "weight",
]  # fmt: skip

# Sum of the steps of the luma table of ITU-T T.81, Annex K.
ANNEX_K_LUMA = 3688


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB upright, for reading only. Raises ImageError."""
    return decode(data).rgb


def jpeg_quality(data: bytes) -> float | None:
    """The quality, 1 to 100, at which libjpeg writes luma tables as coarse as those of these bytes; None: no JPEG.

    libjpeg scales its table of ITU-T T.81, Annex K, by 50 / quality, above 50 by 2 - quality / 50.
    """
    with suppress(OSError, KeyError), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        coarse = sum(image.quantization[0]) / ANNEX_K_LUMA  # type: ignore[attr-defined]
        return float(np.clip(50 / coarse if coarse > 1 else 100 - 50 * coarse, 1, 100))
    return None


def jpeg_round_trip(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 through a JPEG of the given quality (4:2:0) and back."""
    coded = io.BytesIO()
    Image.fromarray(picture).save(coded, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(coded).convert("RGB"))


def resize(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 → [side, side, 3], bicubic with antialiasing."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
