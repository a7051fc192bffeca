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


class ImageError(ValueError):
    reason = "not an image"


class SkippedImage(ImageError):
    pass


def decode(data, max_pixels=178_956_970):
    class P: pass
    p = P()
    try:
        im = Image.open(io.BytesIO(data)); p.format = im.format
        p.rgb = np.array(im.convert("RGB"))
    except Exception as e:
        raise ImageError(str(e)) from e
    return p


def encode(original, rgb):
    b = io.BytesIO()
    Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8)).save(b, original.format)
    return b.getvalue()


def encode_png(a):
    b = io.BytesIO(); Image.fromarray(a).save(b, "PNG"); return b.getvalue()


def resize(a, side):
    return np.asarray(Image.fromarray(a).resize((side, side), Image.BICUBIC))
