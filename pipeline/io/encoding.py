"""Picture → bytes of the kind of file it came from; pixels that were not edited keep their stored values."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.io import avif, heic_file, jpeg2000, jpegxl
from pipeline.io.avif import encode_avif
from pipeline.io.carried import carried
from pipeline.io.heic import SRGB, coded_heic
from pipeline.io.heic_file import encode_heic
from pipeline.io.jpeg import keep_untouched_blocks, with_metadata_of
from pipeline.io.jpeg2000 import encode_jpeg2000
from pipeline.io.jpeg_sampling import encode_sampled
from pipeline.io.jpegxl import encode_jpegxl, encode_jpegxl_anew
from pipeline.io.picture import Array, ImageError, Picture, eight_bit, silence_pillow, strips
from pipeline.io.save_options import DEFAULT_OPTIONS
from pipeline.io.thumbnails import renewals

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


# Of kinds that Pillow does not write as they were.
ENCODERS: dict[str, Callable[[Picture, Array], bytes]] = {
    jpeg2000.FORMAT: encode_jpeg2000,
    jpegxl.FORMAT: encode_jpegxl,
    avif.FORMAT: encode_avif,
    heic_file.FORMAT: encode_heic,
}


class Edited(Protocol):
    """[H, W, 3] float32 upright, 0..255: a picture's rgb with edits, held in a way that gives any part of it."""

    def part(self, rows: slice, columns: slice) -> NDArray[np.float32] | None:
        """These pixels; None where all of them are the picture's own."""


class Encoded(NamedTuple):
    """A picture's file."""

    data: bytes
    # why the pixels that are not edited were coded again, too, and with a loss, or which smaller version in the file
    # shows the picture as it was; None where neither is so
    recoded: str | None
    # is added to the picture's name, as it became another kind; empty where it did not
    suffix: str = ""


class Planes(NamedTuple):
    """The samples that are saved."""

    # [H, W] or [H, W, C], transparency last
    planes: Array
    # the colours in it, a view
    colours: Array
    # [H, W], where they are not the original's
    touched: NDArray[np.bool_]


def encode(original: Picture, rgb: NDArray[np.floating] | Edited) -> Encoded:
    """The picture with edited pixels, as bytes of the original's kind.

    rgb: [H, W, 3] upright, 0..255. Where it equals the original's rgb the stored samples are written unchanged;
    elsewhere the change is added to them and rounded. Of a JPEG, blocks without an edited pixel keep their
    coefficients where that is possible; of a TIFF, strips and tiles without one keep their bytes. Same picture, same
    bytes. Raises OSError and MemoryError where the system refused memory or files.
    """
    silence_pillow()
    if original.file is not None:
        return Encoded(*original.file.encode(original, rgb), original.suffix)
    # Pillow has no 16-bit colour, and OpenCV's order is blue, green, red
    deep = original.stored.dtype == np.uint16 and original.stored.ndim == 3 and original.format == "PNG"
    planes, edited, touched = edited_planes(original, rgb, reverse=deep)
    renewed = renewals(original, edited) if touched.any() else []
    if original.format in ENCODERS:
        return Encoded(ENCODERS[original.format](original, planes), None)
    data = _coded(original, edited if original.palette is not None else planes)
    recoded = original.recoded
    del planes, edited
    if original.jpeg:
        data, recoded = keep_untouched_blocks(original.jpeg, data, touched)
    elif original.format == "JPEG" and original.source:
        data = with_metadata_of(original.source, data)
    return Encoded(carried(original, data, renewed), recoded)


def edited_planes(original: Picture, rgb: NDArray[np.floating] | Edited, reverse: bool = False) -> Planes:
    """The picture's samples with edited pixels. rgb: as `encode`. reverse: save colours as blue, green, red."""
    stored, alpha = original.stored, original.alpha
    planes: Array = np.empty(stored.shape, stored.dtype)
    colours = planes
    if alpha is not None:
        planes = np.empty((*stored.shape[:2], 2 if stored.ndim == 2 else 4), stored.dtype)
        planes[..., -1] = alpha
        colours = planes[..., 0] if stored.ndim == 2 else planes[..., :3]
    if reverse:
        colours = colours[..., ::-1]
    return Planes(planes, colours, _edit(original, rgb, colours))


def _coded(original: Picture, samples: Array) -> bytes:
    """Samples, alpha last, as a file of the original's kind; what that file carries beside them may be missing."""
    if original.palette is not None:
        return _encode_gif(original, samples)
    if samples.dtype == np.uint16 and samples.ndim == 3:
        return _encode_deep_png(samples)
    if "sampled" in original.save and original.jpeg:
        return encode_sampled(samples, original.save["sampled"])
    image = Image.fromarray(samples, "CMYK" if original.stored.shape[2:] == (4,) else None)
    return _saved(image, original.format, {k: v for k, v in original.save.items() if k != "sampled"})


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
        if original.profile is not None:
            edited[rows] = original.profile.add(stored[rows], change)
            touched[rows] = change.any(axis=2)
            continue
        if stored.ndim == 2:
            change = change @ LUMA
        edited[rows] = np.rint(stored[rows] + change * (top / 255)).clip(0, top)
        touched[rows] = change.reshape(*touched[rows].shape, -1).any(axis=2)
    if (key := original.save.get("transparency")) is not None:
        _keep_transparent(stored, edited, key)
    return touched


def _keep_transparent(stored: Array, edited: Array, key: int | tuple[int, ...]) -> None:
    """Give pixels of the transparent colour back what they were, and take the others off that colour, in place."""
    for rows in strips(stored):
        was, is_now = ((a[rows] == key).reshape(*a[rows].shape[:2], -1).all(axis=2) for a in (stored, edited))
        changed = edited[rows]
        changed[was] = stored[rows][was]
        hit = is_now & ~was
        part = changed if changed.ndim == 2 else changed[..., 1]
        part[hit] = np.where(part[hit] > 0, part[hit] - 1, 1)


def encode_anew(original: Picture, rgb: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] uint8 upright, of any size, as a file of the original's kind; its transparency where that still fits.

    For a picture that is no edit of the original: metadata and depth stay behind. Same picture, same bytes.
    """
    alpha = None if original.alpha is None else original.upright(original.alpha)
    fits = alpha is not None and alpha.shape == rgb.shape[:2]
    image = _joined(rgb, eight_bit(alpha) if alpha is not None and fits else None)
    if original.format == jpegxl.FORMAT:
        return encode_jpegxl_anew(np.asarray(image))
    if original.format == heic_file.FORMAT:
        return coded_heic(np.asarray(image), 8, SRGB)
    return _saved(image, original.format, DEFAULT_OPTIONS.get(original.format, {}))


def _joined(colour: Array, alpha: Array | None) -> Image.Image:
    if alpha is None:
        return Image.fromarray(np.ascontiguousarray(colour))
    planes = colour[..., None] if colour.ndim == 2 else colour
    return Image.fromarray(np.concatenate([planes, alpha[..., None]], axis=2))


def _encode_gif(original: Picture, edited: NDArray[np.uint8]) -> bytes:
    """Edited pixels take the nearest colour of the palette, the others and transparent ones keep their index."""
    assert original.palette is not None
    indices = np.asarray(original.palette).copy()
    touched = (edited != original.stored).any(axis=2)
    key = original.palette.info.get("transparency")
    palette, other = original.palette, 0
    if isinstance(key, int):
        touched &= original.alpha != 0
        palette, other = _without_colour(palette, key)
    mapped = np.asarray(Image.fromarray(edited).quantize(palette=palette, dither=Image.Dither.NONE))
    indices[touched] = (
        np.where(mapped == key, other, mapped)[touched] if isinstance(key, int) else mapped[touched]
    )
    image = Image.fromarray(indices, "P")
    image.putpalette(original.palette.getpalette() or [])
    return _saved(image, "GIF", {"optimize": False} | ({} if key is None else {"transparency": key}))


def _without_colour(palette: Image.Image, key: int) -> tuple[Image.Image, int]:
    """A picture whose palette has another of its colours in the place of `key`, and the index of that one."""
    colours = np.array(palette.getpalette() or [0] * 6, np.uint8).reshape(-1, 3)
    other = 1 if key == 0 else 0
    colours[key] = colours[other]
    new = Image.new("P", (1, 1))
    new.putpalette(colours.tobytes())
    return new, other


def _encode_deep_png(planes: NDArray[np.uint16]) -> bytes:
    """A 16-bit colour PNG of blue, green, red, alpha."""
    done, body = cv2.imencode(".png", planes)
    if not done:
        raise ImageError("not encoded", "the 16-bit PNG could not be encoded")
    return body.tobytes()


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
