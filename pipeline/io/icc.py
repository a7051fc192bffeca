"""Colours by ICC profiles: stored samples → sRGB for the networks, and a change in sRGB → stored samples.

The intent is relative colorimetric with black point compensation. Its two directions are inverse to each other within
the gamut, also for profiles that are tables, whereas perceptual tables squeeze one way and need not stretch the other;
and a press's or a scanner's black becomes black, as in the photographs that the networks were trained on.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Mode = Literal["RGB", "L", "CMYK"]
Array = NDArray[Any]
# By mode: the colour space as a profile's header names it, as the library does, and the number of samples a pixel.
_SPACES = {"RGB": (b"RGB ", "rgb", 3), "L": (b"GRAY", "gray", 1), "CMYK": (b"CMYK", "cmyk", 4)}
# Profiles of scanners, monitors, presses and colour spaces; others describe no picture's samples.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_INTENT = imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC
_BLACK = imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION
# Without it 16-bit samples go through a table of 33 steps, which is wrong by up to 5 % of the range in the shadows.
_EXACT = _BLACK | imagecodecs.CMS.FLAGS.NOOPTIMIZE
# Samples that are converted at once.
_STRIP = 1 << 22
# x, y of white, and of red, green and blue.
SRGB_WHITE, SRGB_PRIMARIES = (0.3127, 0.3290), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# A profile that differs from sRGB by no more than this, in 8-bit levels, is sRGB.
_SAME = 1
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Profile:
    """How the samples of one kind of picture stand for colours."""

    icc: bytes
    mode: Mode

    @classmethod
    def of(cls, icc: bytes | None, mode: Mode) -> "Profile | None":
        """The profile; None where it is sRGB's, or none that can be used, which is logged once.

        Without one, RGB is taken as sRGB, grey as its luma, and CMYK as Pillow converts it.
        """
        return _usable(icc, mode) if icc else None

    def to_srgb(self, stored: Array) -> NDArray[np.uint8]:
        """[..., C] uint8 or uint16 of the mode ([...] of grey) → [..., 3] uint8 sRGB."""
        pixels = self._pixels(stored)
        colours = np.empty((len(pixels), 3), np.uint8)
        # a table is exact enough for 8 bits, and ten times as fast
        flags = _BLACK if stored.dtype == np.uint8 else _EXACT
        for part in _strips(pixels):
            seen = self._forth(pixels[part], np.uint8, flags)
            # rounding may leave grey a level of colour
            colours[part] = seen[:, 1:2] if self.mode == "L" else seen
        return colours.reshape(*self._shape(stored), 3)

    def add(self, stored: Array, change: NDArray[np.float32]) -> Array:
        """Stored samples whose sRGB is changed, in their own dtype; where the change is 0 the stored values.

        stored: [..., C] uint8 or uint16 ([...] of grey). change: [..., 3] float32, in levels of 8-bit sRGB.
        """
        pixels = self._pixels(stored)
        done = pixels.copy()
        changes = change.reshape(-1, 3)
        (places,) = np.nonzero(changes.any(axis=1))
        top = np.iinfo(stored.dtype).max
        for part in _strips(places):
            chosen = places[part]
            old = self._forth(pixels[chosen], np.uint16, _EXACT)
            by = changes[chosen]
            if self.mode == "L":
                by = np.repeat((by @ _LUMA)[:, None], 3, axis=1)
            new = np.rint(old + by * np.float32(257)).clip(0, 65535).astype(np.uint16)
            # the difference of both ways back, so that what a way forth and back loses stays in the samples
            difference = self._back(new).astype(np.float32) - self._back(old)
            samples = pixels[chosen] + difference * np.float32(top / 65535)
            done[chosen] = np.rint(samples).clip(0, top).astype(stored.dtype)
        return done.reshape(stored.shape)

    def _pixels(self, stored: Array) -> Array:
        """[N, C], or [N] of grey."""
        channels = _SPACES[self.mode][2]
        return np.ascontiguousarray(stored).reshape((-1, channels) if channels > 1 else -1)

    def _shape(self, stored: Array) -> tuple[int, ...]:
        return stored.shape if self.mode == "L" else stored.shape[:-1]

    def _forth(self, pixels: Array, dtype: type[np.unsignedinteger[Any]], flags: int) -> Array:
        """[N, C] or [N] → [N, 3] sRGB of that dtype."""
        return _transformed(pixels, self.icc, _srgb(), _SPACES[self.mode][1], "rgb", dtype, flags)

    def _back(self, colours: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """[N, 3] sRGB → [N, C] or [N]."""
        return _transformed(colours, _srgb(), self.icc, "rgb", _SPACES[self.mode][1], np.uint16, _EXACT)


@dataclass(frozen=True)
class PlainInks:
    """CMYK without a usable profile: each ink takes its share of the light, as Pillow converts it."""

    def to_srgb(self, stored: Array) -> NDArray[np.uint8]:
        """As `Profile.to_srgb`."""
        top = np.iinfo(stored.dtype).max
        colours = np.empty((*stored.shape[:-1], 3), np.uint8)
        for rows in _strips(stored):
            inks = stored[rows].astype(np.float32) / top
            colours[rows] = np.rint(255 * (1 - inks[..., :3]) * (1 - inks[..., 3:]))
        return colours

    def add(self, stored: Array, change: NDArray[np.float32]) -> Array:
        """As `Profile.add`. There is less black only where the colour can not be as light with it."""
        top = np.iinfo(stored.dtype).max
        done = stored.copy()
        changed = change.any(axis=-1)
        inks = stored[changed].astype(np.float32) / top
        light = ((1 - inks[:, :3]) * (1 - inks[:, 3:]) + change[changed] / np.float32(255)).clip(0, 1)
        black = np.minimum(inks[:, 3], 1 - light.max(axis=1))
        coloured = 1 - light / np.maximum(1 - black, 1e-6)[:, None]
        new = np.concatenate([np.where(black[:, None] < 1, coloured, inks[:, :3]), black[:, None]], axis=1)
        done[changed] = np.rint(new.clip(0, 1) * top).astype(stored.dtype)
        return done


def rgb_profile(
    white: Sequence[float], primaries: Sequence[float], curve: float | NDArray[np.float64]
) -> bytes:
    """An ICC profile of RGB. white: x, y. primaries: x, y of red, green, blue. curve: an exponent, or a table."""
    corners = [number for i in (0, 2, 4) for number in (*primaries[i : i + 2], 1.0)]
    return _undated(
        imagecodecs.cms_profile("rgb", whitepoint=[*white, 1.0], primaries=corners, **_curve(curve))
    )


def grey_profile(curve: float | NDArray[np.float64]) -> bytes:
    """An ICC profile of grey. curve: the exponent of its samples, or a table of their light, 0..1."""
    return _undated(imagecodecs.cms_profile("gray", **_curve(curve)))


def linear_profile(mode: Mode) -> Profile | None:
    """That of samples that are light itself, in the primaries of sRGB."""
    if mode == "L":
        return Profile.of(grey_profile(1.0), mode)
    return Profile.of(rgb_profile(SRGB_WHITE, SRGB_PRIMARIES, 1.0), mode)


def _undated(icc: bytes) -> bytes:
    """A profile without the time at which it was made: the same bytes always."""
    return bytes(icc[:24]) + bytes(12) + bytes(icc[36:])


def _curve(curve: float | NDArray[np.float64]) -> dict[str, Any]:
    if isinstance(curve, np.ndarray):
        return {"transferfunction": np.rint(curve * 65535).astype(np.uint16)}
    return {"gamma": curve}


@lru_cache(maxsize=64)
def _usable(icc: bytes, mode: Mode) -> Profile | None:
    """`Profile.of`, once for each profile."""
    space, _, channels = _SPACES[mode]
    if len(icc) < 128 or icc[36:40] != b"acsp":
        return _refused(mode, "it is no ICC profile")
    if icc[16:20] != space:
        return _refused(mode, f"it is one of {icc[16:20]!r}")
    if icc[12:16] not in _CLASSES:
        return _refused(mode, f"its class is {icc[12:16]!r}")
    profile = Profile(icc, mode)
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(*[steps] * channels), axis=-1).reshape(-1, channels)
    try:
        seen = profile.to_srgb(probe if channels > 1 else probe[:, 0])
        profile._back(np.full((1, 3), 32768, np.uint16))
    except Exception as error:  # the library's errors, of whatever bytes a profile may hold
        return _refused(mode, " ".join(str(error).split())[:200])
    plain = np.repeat(probe, 3, axis=1) if channels == 1 else probe
    is_srgb = channels < 4 and int(np.abs(seen.astype(np.int16) - plain).max()) <= _SAME
    return None if is_srgb else profile


@cache
def _refused(mode: Mode, why: str) -> None:
    log.warning("the ICC profile of a picture of mode %s is not used: %s", mode, why)


@cache
def _srgb() -> bytes:
    return bytes(imagecodecs.cms_profile("srgb"))


def _transformed(
    pixels: Array,
    source: bytes,
    target: bytes,
    source_space: str,
    target_space: str,
    dtype: type[np.unsignedinteger[Any]],
    flags: int,
) -> Array:
    """[N, C] or [N] samples → those of another profile."""
    done: Array = imagecodecs.cms_transform(
        # the library takes pictures: one of one row
        pixels[None],
        source,
        target,
        colorspace=source_space,
        outcolorspace=target_space,
        outdtype=np.dtype(dtype),
        intent=_INTENT,
        flags=flags,
    )
    row: Array = done[0]
    return row


def _strips(pixels: Array) -> Iterator[slice]:
    few = max(_STRIP // (pixels.size // max(len(pixels), 1) or 1), 1)
    return (slice(start, start + few) for start in range(0, len(pixels), few))
