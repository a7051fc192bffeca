"""A decoded picture: upright 8-bit RGB to edit, beside the samples as they are stored."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pipeline.io.icc import PlainInks, Profile

Array = NDArray[Any]

# Samples that are converted at once: a whole picture's, as wider numbers, would be several times the picture.
STRIP = 1 << 20

# Dimensions are checked in decoding.py, before anything is decoded: Pillow's own check would only warn.
Image.MAX_IMAGE_PIXELS = None
# Unpacked texts and profiles of a PNG; Pillow's own limit of 1 MiB is below what editors write.
PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20
# Modules whose warnings are switched off.
PILLOW = r"PIL\."


def silence_pillow() -> None:
    """Switch Pillow's warnings off: of damaged metadata, about which a user can do nothing.

    Called before every decoding and encoding, as libraries and test runners put filters of their own before ours. One
    filter for the process, because `warnings.catch_warnings` is not thread-safe.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", "") != PILLOW:
        warnings.filterwarnings("ignore", module=PILLOW)


silence_pillow()

# By EXIF orientation: stored → upright, and upright → stored.
UPRIGHT: dict[int, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    1: (lambda a: a, lambda a: a),
    2: (lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
    3: (lambda a: a[::-1, ::-1], lambda a: a[::-1, ::-1]),
    4: (lambda a: a[::-1], lambda a: a[::-1]),
    5: (lambda a: a.swapaxes(0, 1), lambda a: a.swapaxes(0, 1)),
    6: (lambda a: np.rot90(a, -1), np.rot90),
    7: (lambda a: a[::-1, ::-1].swapaxes(0, 1), lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
    8: (np.rot90, lambda a: np.rot90(a, -1)),
}


class ImageError(ValueError):
    """Bytes that are no readable picture. `reason` is a short slug, the message one sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SkippedImage(ImageError):
    """A picture we understand and do not restore."""


class NotWritable(SkippedImage):
    """A picture that is decoded, and can not be written back as the kind of file that it is."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, f"{message}; --convert png or --convert tiff delivers it as such a file")


class Original(Protocol):
    """A file that writes itself: edited in place, so that all else in it stays, or converted to another kind."""

    def encode(self, picture: "Picture", rgb: Any) -> tuple[bytes, str | None]:
        """The file with edited pixels, and why others were coded again, as `encoding.Encoded`."""

    def to_rgb(self, stored: Array) -> Array:
        """Colour samples as `Picture.stored` → what `upright_rgb` takes with `Picture.profile`."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, and what is needed to give back the same kind."""

    # [H, W, 3] uint8 RGB, upright
    rgb: NDArray[np.uint8]
    # Pillow's format name
    format: str
    # colour samples as stored (EXIF orientation not applied): [H, W] grey, [H, W, 3] RGB or [H, W, 4] CMYK (255 is
    # full ink; of a TIFF as its file has it), uint8 or uint16
    stored: Array
    # [H, W] of the same depth as stored, or None
    alpha: Array | None
    orientation: int
    # keyword arguments that save the same kind of file
    save: dict[str, Any] = field(default_factory=dict)
    # palette of a GIF, whose pixels must stay within it
    palette: Image.Image | None = None
    # the file itself, of a JPEG whose blocks can be kept
    jpeg: bytes = b""
    # why the pixels that are not edited can not stay as they are stored; None where they can
    recoded: str | None = None
    # what the stored samples stand for; None: sRGB, or luma
    profile: Profile | PlainInks | None = None
    # the file itself, of which the edited one keeps all that is not its pixels
    source: bytes = b""
    # the file, of a kind that writes itself
    file: Original | None = None
    # is added to its name where it is delivered as another kind, as ".png"; empty where it is not
    suffix: str = ""

    def upright(self, stored: Array) -> Array:
        """A plane of stored samples, turned as `rgb` is."""
        return UPRIGHT[self.orientation][0](stored)

    def as_stored(self, upright: Array) -> Array:
        """Upright samples, turned as they are stored."""
        return UPRIGHT[self.orientation][1](upright)

    def upright_box(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Where these rows and columns of the stored picture lie in the upright one."""
        height, width = self.stored.shape[:2]
        if self.orientation in (3, 4, 6, 7):  # their order is reversed
            rows = slice(height - rows.stop, height - rows.start)
        if self.orientation in (2, 3, 7, 8):
            columns = slice(width - columns.stop, width - columns.start)
        return (columns, rows) if self.orientation >= 5 else (rows, columns)


def upright_rgb(
    stored: Array, orientation: int, profile: Profile | PlainInks | None = None
) -> NDArray[np.uint8]:
    """Stored samples as `Picture.rgb`."""
    upright = UPRIGHT[orientation][0](eight_bit(stored) if profile is None else profile.to_srgb(stored))
    if upright.ndim == 2:
        upright = np.repeat(upright[..., None], 3, axis=2)
    return np.ascontiguousarray(upright)


def eight_bit(samples: Array) -> NDArray[np.uint8]:
    """uint16 0..65535 → uint8 0..255, rounded; uint8 as it is."""
    if samples.dtype == np.uint8:
        return samples
    rounded = np.empty(samples.shape, np.uint8)
    for rows in strips(samples):
        rounded[rows] = (samples[rows].astype(np.uint32) + 128) // 257
    return rounded


def strips(samples: Array) -> Iterator[slice]:
    """Consecutive rows of an array, so many at a time that they are about STRIP samples."""
    height = len(samples)
    few = max(STRIP * height // max(samples.size, 1), 1)
    return (slice(top, min(top + few, height)) for top in range(0, height, few))


def spread(samples: Array, bits: int) -> Array:
    """Samples of fewer bits than their dtype → of all of its range, from which `gathered` gets them back."""
    full = 8 * samples.dtype.itemsize
    if bits == full:
        return samples
    for rows in strips(samples):
        samples[rows] = np.rint(samples[rows] * ((2**full - 1) / (2**bits - 1))).astype(samples.dtype)
    return samples


def without_alpha(samples: Array) -> tuple[Array, Array | None]:
    """Colours, [H, W] or [H, W, 3], and alpha, [H, W], of samples, [H, W] or [H, W, C]; alpha is last, of an even C."""
    if samples.ndim == 2:
        return samples, None
    count = samples.shape[2]
    alpha = samples[..., -1] if count in (2, 4) else None
    return samples[..., 0] if count < 3 else samples[..., :3], alpha


def gathered(samples: Array, bits: int) -> Array:
    """What `spread` was given."""
    full = 8 * samples.dtype.itemsize
    if bits == full:
        return samples
    done = np.empty_like(samples)
    for rows in strips(samples):
        done[rows] = np.rint(samples[rows] * ((2**bits - 1) / (2**full - 1))).astype(samples.dtype)
    return done


def enlarged(picture: Picture, times: int) -> Picture:
    """The same kind of picture, so many times larger in both directions (bicubic); with 1 the picture itself."""
    if times == 1:
        return picture
    height, width = picture.stored.shape[:2]
    size = (width * times, height * times)

    def larger(samples: Array) -> Array:
        return cv2.resize(samples, size, interpolation=cv2.INTER_CUBIC)

    stored = larger(np.asarray(picture.stored))
    samples = stored if picture.file is None else picture.file.to_rgb(stored)
    seen = upright_rgb(samples, picture.orientation, picture.profile)
    return replace(
        picture,
        rgb=seen,
        stored=stored,
        alpha=None if picture.alpha is None else larger(picture.alpha),
        palette=picture.palette and picture.palette.resize(size, Image.Resampling.NEAREST),
        jpeg=b"",
        recoded=None,
    )
