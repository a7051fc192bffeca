"""Picture → bytes of the kind of file it came from; pixels that were not edited keep their stored values."""

import io
import struct
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.io.jpeg import keep_untouched_blocks
from pipeline.io.picture import Array, ImageError, Picture, eight_bit, silence_pillow, strips
from pipeline.io.save_options import DEFAULT_OPTIONS

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Edited(Protocol):
    """[H, W, 3] float32 upright, 0..255: a picture's rgb with edits, held in a way that gives any part of it."""

    def part(self, rows: slice, columns: slice) -> NDArray[np.float32] | None:
        """These pixels; None where all of them are the picture's own."""


class Encoded(NamedTuple):
    """A picture's file."""

    data: bytes
    # why the pixels that are not edited were coded again, too, and with a loss; None where they were not
    recoded: str | None


def encode(original: Picture, rgb: NDArray[np.floating] | Edited) -> Encoded:
    """The picture with edited pixels, as bytes of the original's kind.

    rgb: [H, W, 3] upright, 0..255. Where it equals the original's rgb the stored samples are written unchanged;
    elsewhere the change is added to them and rounded. Of a JPEG, blocks without an edited pixel keep their
    coefficients where that is possible; of a TIFF, strips and tiles without one keep their bytes. Same picture, same
    bytes. Raises OSError and MemoryError where the system refused memory or files.
    """
    silence_pillow()
    if original.file is not None:
        return Encoded(*original.file.encode(original, rgb))
    stored, alpha = original.stored, original.alpha
    deep = stored.dtype == np.uint16 and stored.ndim == 3
    # what is saved, transparency included; `edited` are the colours in it
    planes: Array = np.empty(stored.shape, stored.dtype)
    edited = planes
    if alpha is not None:
        planes = np.empty((*stored.shape[:2], 2 if stored.ndim == 2 else 4), stored.dtype)
        planes[..., -1] = alpha
        edited = planes[..., 0] if stored.ndim == 2 else planes[..., :3]
    if deep:  # OpenCV's order is blue, green, red
        edited = edited[..., ::-1]
    touched = _edit(original, rgb, edited)
    if original.palette is not None:
        return Encoded(_encode_gif(original, edited), None)
    if deep:
        return Encoded(_encode_deep_png(original, planes), None)
    image = Image.fromarray(planes)
    del planes, edited
    data = _saved(image, original.format, original.save)
    if original.jpeg:
        del image
        return Encoded(*keep_untouched_blocks(original.jpeg, data, touched))
    return Encoded(data, original.recoded)


def _edit(original: Picture, rgb: NDArray[np.floating] | Edited, edited: Array) -> NDArray[np.bool_]:
    """Fill `edited`, stored samples, from the upright `rgb`; [H, W], where they are not the original's."""
    stored = original.stored
    top = 255 if stored.dtype == np.uint8 else 65535
    touched = np.zeros(stored.shape[:2], bool)
    for rows in strips(stored):
        box = original.upright_box(rows, slice(0, stored.shape[1]))
        part = rgb[box].astype(np.float32, copy=False) if isinstance(rgb, np.ndarray) else rgb.part(*box)
        if part is None:
            edited[rows] = stored[rows]
            continue
        change = original.as_stored(part - original.rgb[box])
        if stored.ndim == 2:
            change = change @ LUMA
        edited[rows] = np.rint(stored[rows] + change * (top / 255)).clip(0, top)
        touched[rows] = change.reshape(*touched[rows].shape, -1).any(axis=2)
    return touched


def encode_anew(original: Picture, rgb: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] uint8 upright, of any size, as a file of the original's kind; its transparency where that still fits.

    For a picture that is no edit of the original: metadata and depth stay behind. Same picture, same bytes.
    """
    alpha = None if original.alpha is None else original.upright(original.alpha)
    if alpha is not None and alpha.shape == rgb.shape[:2]:
        return _saved(
            _joined(rgb, eight_bit(alpha)), original.format, DEFAULT_OPTIONS.get(original.format, {})
        )
    return _saved(_joined(rgb, None), original.format, DEFAULT_OPTIONS.get(original.format, {}))


def _joined(colour: Array, alpha: Array | None) -> Image.Image:
    if alpha is None:
        return Image.fromarray(np.ascontiguousarray(colour))
    planes = colour[..., None] if colour.ndim == 2 else colour
    return Image.fromarray(np.concatenate([planes, alpha[..., None]], axis=2))


def _encode_gif(original: Picture, edited: NDArray[np.uint8]) -> bytes:
    """Edited pixels take the nearest colour of the palette, the others keep their index."""
    assert original.palette is not None
    mapped = np.asarray(Image.fromarray(edited).quantize(palette=original.palette, dither=Image.Dither.NONE))
    indices = np.asarray(original.palette).copy()
    touched = (edited != original.stored).any(axis=2)
    indices[touched] = mapped[touched]
    image = Image.fromarray(indices, "P")
    image.putpalette(original.palette.getpalette() or [])
    transparency = original.palette.info.get("transparency")
    return _saved(image, "GIF", {} if transparency is None else {"transparency": transparency})


def _encode_deep_png(original: Picture, planes: NDArray[np.uint16]) -> bytes:
    """A 16-bit colour PNG of blue, green, red, alpha, with the metadata chunks that Pillow would have written."""
    done, body = cv2.imencode(".png", planes)
    if not done:
        raise ImageError("not encoded", "the 16-bit PNG could not be encoded")
    small = _saved(Image.new("RGB", (1, 1)), "PNG", original.save)
    kept = b"".join(chunk for name, chunk in png_chunks(small) if name not in (b"IHDR", b"IDAT", b"IEND"))
    return b"".join([body[:33].tobytes(), kept, body[33:].data])


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and whole bytes of a PNG's chunks."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place : place + 12 + length]))
        place += 12 + length
    return chunks


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] or [H, W] uint8 → PNG."""
    return _saved(Image.fromarray(np.ascontiguousarray(picture)), "PNG", {})


def encode_jpeg(picture: NDArray[np.uint8], quality: int, comment: bytes = b"") -> bytes:
    """[H, W, 3] uint8 RGB → JPEG with whole chroma."""
    options: dict[str, Any] = {"quality": quality, "subsampling": 0}
    options |= {"comment": comment} if comment else {}
    return _saved(Image.fromarray(np.ascontiguousarray(picture)), "JPEG", options)
