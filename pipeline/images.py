"""Bytes ↔ arrays."""
import io
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def jpeg_round_trip(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 through a JPEG of the given quality (4:2:0) and back."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(buffer).convert("RGB"))


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def is_image_name(name: str) -> bool:
    return name.lower().endswith((".png", ".jpg", ".jpeg"))
