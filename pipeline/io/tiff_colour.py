"""Samples of a TIFF ↔ 8-bit sRGB: grey of both senses, RGB, CMYK, palettes, profiles, premultiplied alpha."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.io.icc import Mode, Profile
from pipeline.io.picture import Array, eight_bit
from pipeline.io.tiff_pages import PROFILE, SEPARATED, WHITE_IS_ZERO, Page

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Colour:
    """What the samples of a page stand for."""

    page: Page

    @cached_property
    def profile(self) -> Profile | None:
        """The page's ICC profile; None where it is sRGB's, missing or unusable."""
        modes: dict[int, Mode] = {1: "L", 3: "RGB", 4: "CMYK"}
        if self.page.palette is not None:
            return Profile.of(self._icc, "RGB")
        return Profile.of(self._icc, modes[self.page.colours])

    @property
    def _icc(self) -> bytes | None:
        return self.page.tiff.bytes_of(self.page.directory, PROFILE)

    def to_rgb(self, samples: Array) -> NDArray[np.uint8]:
        """[h, w, C] samples of the page → [h, w, 3] uint8 sRGB."""
        page = self.page
        if page.palette is not None:
            colours = page.palette[samples[..., 0]]
            return colours if self.profile is None else self.profile.to_srgb(colours)
        top = np.iinfo(samples.dtype).max
        inks = samples[..., : page.colours]
        if page.premultiplied:
            inks = _divided(inks, samples[..., page.alpha])
        if page.photometric == WHITE_IS_ZERO:
            inks = top - inks
        if self.profile is not None:
            return self.profile.to_srgb(inks[..., 0] if page.colours == 1 else inks)
        if page.photometric == SEPARATED:
            light = _light_of_inks(inks.astype(np.float32) / np.float32(top))
            return np.rint(light * 255).astype(np.uint8)
        return np.broadcast_to(eight_bit(inks), (*inks.shape[:2], 3))

    def add(self, samples: Array, change: NDArray[np.float32]) -> None:
        """Add a change to samples, in place; where it is 0 they stay.

        samples: [h, w, C] of the page, not of a palette. change: [h, w, 3] float32 in levels of 8-bit sRGB.
        """
        page = self.page
        top = np.iinfo(samples.dtype).max
        inks = samples[..., : page.colours]
        where = change.any(axis=2)
        if page.premultiplied:
            alpha = samples[..., page.alpha]
            share = alpha.astype(np.float32)[..., None] / np.float32(top)
            straight = self._added(_divided(inks, alpha), change)
            inks[where] = np.rint(straight * share).astype(samples.dtype)[where]
            return
        inks[where] = self._added(inks, change)[where]

    def _added(self, inks: Array, change: NDArray[np.float32]) -> Array:
        """[h, w, colours] with the change."""
        page, top = self.page, np.iinfo(inks.dtype).max
        if page.photometric == WHITE_IS_ZERO:
            inks = top - inks
        if self.profile is not None:
            done = self.profile.add(inks[..., 0] if page.colours == 1 else inks, change).reshape(inks.shape)
        elif page.photometric == SEPARATED:
            shares: NDArray[np.float32] = inks.astype(np.float32) / np.float32(top)
            by_share: NDArray[np.float32] = change / np.float32(255)
            done = np.rint(_with_light(shares, by_share) * top).astype(inks.dtype)
        else:
            by = change @ LUMA[:, None] if page.colours == 1 else change
            done = np.rint(inks + by * (top / 255)).clip(0, top).astype(inks.dtype)
        return top - done if page.photometric == WHITE_IS_ZERO else done


def _divided(inks: Array, alpha: Array) -> Array:
    """Colours that were multiplied by alpha, without that; where it is 0 they are 0."""
    top = np.float32(np.iinfo(inks.dtype).max)
    share = alpha.astype(np.float32)[..., None] / top
    straight = np.divide(inks, share, out=np.zeros(inks.shape, np.float32), where=share > 0)
    done: Array = np.rint(straight).clip(0, top).astype(inks.dtype)
    return done


def _light_of_inks(inks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[..., 4] cyan, magenta, yellow, black, 0..1 → [..., 3] RGB, 0..1, as Pillow converts it."""
    light: NDArray[np.float32] = (1 - inks[..., :3]) * (1 - inks[..., 3:])
    return light


def _with_light(inks: NDArray[np.float32], change: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inks, [..., 4] 0..1, whose RGB is changed. Black is lessened only where the other inks can not give the light."""
    light = np.clip(_light_of_inks(inks) + change, 0, 1)
    most = np.maximum(1 - inks[..., 3:], light.max(axis=-1, keepdims=True))
    share = np.divide(light, most, out=np.zeros_like(light), where=most > 0)
    return np.concatenate([1 - share, 1 - most], axis=-1)
