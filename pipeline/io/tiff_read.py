"""TIFFs that can not be edited in place, read whole by libtiff (through imagecodecs) to be written as another kind."""

from collections.abc import Callable
from contextlib import suppress

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.io import metadata
from pipeline.io.converted import Metadata, converted_picture
from pipeline.io.formats import Into
from pipeline.io.icc import rgb_profile
from pipeline.io.picture import UPRIGHT, Array, Picture, SkippedImage, spread, strips
from pipeline.io.tiff import Directory, Tiff
from pipeline.io.tiff_pages import (
    BITS,
    BLACK_IS_ZERO,
    CIELAB,
    EXTRA,
    ORIENTATION,
    PHOTOMETRIC,
    PROFILE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    find_page,
    page_size,
)

# White, and primaries, of ROMM RGB (ISO 22028-2), which has nearly all colours of surfaces; its curve here has no toe.
D50, ROMM_PRIMARIES, ROMM_EXPONENT = (0.3457, 0.3585), (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8
# XYZ of D50 white, and XYZ → ROMM RGB.
D50_XYZ = np.array([0.9642, 1.0, 0.8249])
TO_ROMM = np.array(
    [[1.3459433, -0.2556075, -0.0511118], [-0.5445989, 1.5081673, 0.0205351], [0.0, 0.0, 1.2118128]]
)
PREMULTIPLIED, ALPHA = 1, 2


def read_tiff(data: bytes, into: Into, check_size: Callable[[int, int, int], None]) -> Picture:
    """A TIFF that NotWritable was raised for. Raises SkippedImage, and whatever libtiff does."""
    tiff = Tiff.of(data)
    page = find_page(tiff)
    bits, photometric = tiff.value(page, BITS, 1), tiff.value(page, PHOTOMETRIC, BLACK_IS_ZERO)
    check_size(*page_size(tiff, page), 1 + (bits > 8 or photometric == CIELAB))
    samples = _samples(tiff, page, photometric)
    colours = 1 if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) else 3
    extra = [int(n) for n in tiff.numbers(page.tags[EXTRA])] if EXTRA in page.tags else []
    if PREMULTIPLIED in extra or samples.shape[2] < colours:
        raise SkippedImage("unsupported TIFF", "its samples can not be converted")
    alpha = samples[..., colours + extra.index(ALPHA)] if ALPHA in extra else None
    stored = samples[..., 0] if colours == 1 else samples[..., :colours]
    stored = np.iinfo(stored.dtype).max - stored if photometric == WHITE_IS_ZERO else stored
    icc, recoded = tiff.bytes_of(page, PROFILE), None
    if photometric == CIELAB:
        stored, icc, recoded = romm_of_lab(stored), romm_profile(), "its CIELAB samples are delivered as RGB"
    elif photometric == YCBCR:
        recoded = "its YCbCr samples are delivered as RGB"
    upright = UPRIGHT.get(tiff.value(page, ORIENTATION, 1), UPRIGHT[1])[0]
    alpha = None if alpha is None else upright(alpha)
    return converted_picture(upright(stored), alpha, into, _metadata(data, icc), recoded)


def _samples(tiff: Tiff, page: Directory, photometric: int) -> Array:
    """[H, W, C] uint8 or uint16 of all of their range, as stored, but for YCbCr, which becomes RGB."""
    chain = [directory for directory in tiff.directories if not directory.below]
    if page not in chain or photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CIELAB, YCBCR):
        raise SkippedImage("unsupported TIFF", "its samples can not be converted")
    width, height = page_size(tiff, page)
    is_luma = photometric == YCBCR
    if is_luma and tiff.value(page, ORIENTATION, 1) != 1:
        raise SkippedImage("unsupported TIFF", "YCbCr that is turned can not be converted")
    samples = np.array(imagecodecs.tiff_decode(tiff.data, index=chain.index(page), asrgb=is_luma))
    samples = samples[..., :3] if is_luma else samples
    if samples.dtype == np.bool_:
        samples = samples.view(np.uint8) * np.uint8(255)
    elif samples.dtype in (np.uint8, np.uint16):
        bits = tiff.value(page, BITS, 1)
        samples = spread(samples, bits if bits < 16 else 16)
    else:
        raise SkippedImage("deep samples", f"samples of at most 16 bits were wanted, got {samples.dtype}")
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.ndim == 3 and samples.shape[:2] != (height, width):
        samples = np.moveaxis(samples, 0, -1)  # in planes
    if samples.ndim != 3 or samples.shape[:2] != (height, width):
        raise ValueError("samples of another size than its header says")
    return samples


def _metadata(data: bytes, icc: bytes | None) -> Metadata:
    exif, dpi = b"", None
    with suppress(Exception):  # damaged tags, about which the library raises nearly anything
        exif = metadata.exif_of_tiff(data)
        dpi = metadata.dpi_of_exif(exif) if exif else None
    return Metadata(icc, metadata.upright_exif(exif), metadata.xmp_of(data), dpi)


def romm_profile() -> bytes:
    """The ICC profile of what `romm_of_lab` gives."""
    return rgb_profile(D50, ROMM_PRIMARIES, ROMM_EXPONENT)


def romm_of_lab(lab: Array) -> NDArray[np.uint16]:
    """[H, W, 3] CIELAB of a TIFF, uint8 or uint16, a* and b* with a sign → [H, W, 3] uint16 ROMM RGB."""
    done = np.empty(lab.shape, np.uint16)
    top = np.iinfo(lab.dtype).max
    signed = np.dtype(f"i{lab.dtype.itemsize}")
    for rows in strips(lab):
        light = lab[rows][..., 0].astype(np.float64) * (100 / top)
        a, b = (lab[rows][..., i].astype(signed) / (256.0 ** (lab.dtype.itemsize - 1)) for i in (1, 2))
        middle = (light + 16) / 116
        cubes = np.stack([middle + a / 500, middle, middle - b / 200], axis=-1)
        xyz = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29)) * D50_XYZ
        linear = (xyz @ TO_ROMM.T).clip(0, 1)
        done[rows] = np.rint(linear ** (1 / ROMM_EXPONENT) * 65535)
    return done
