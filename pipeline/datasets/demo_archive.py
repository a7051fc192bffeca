"""A small archive of real photographs, generated for `make demo`.

The photographs are public domain or CC0 and come with packages that are dependencies anyway; docs/demo.md lists them
with their sources. They are damaged by the paper's synthetic degradation and stored as in real archives: colour, grey
and sepia, 8 and 16 bit, rotated by EXIF, with transparency, under awkward names, among files that are no pictures.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.degradation import Degradation, blur_kernel, to_grey
from pipeline.io import store
from pipeline.io.images import decode_rgb, jpeg_round_trip

# [H, W, 3] uint8 RGB
Picture = NDArray[np.uint8]
# Rows and columns of a source that are kept
Cut = tuple[slice, slice]
WHOLE: Cut = (slice(None), slice(None))
# Side of an FFHQ crop around the face of each portrait, pixels: the degradation is scaled by it.
CROP_SIDES = {"astronaut": 167, "hopper": 318, "cameraman": 107}
HEADS: Mapping[str, Cut] = {
    "astronaut": (slice(0, 300), slice(76, 376)),
    "hopper": (slice(20, 470), slice(31, 481)),
}
# Degradations as in the paper, for a 512 px face.
SHARP = Degradation(sigma_x=0.1, sigma_y=0.1, theta=0, scale=1, noise=0, jpeg=95)
WORN = Degradation(sigma_x=2.5, sigma_y=2.5, theta=0, scale=3, noise=2, jpeg=85)
SOFT = Degradation(sigma_x=6, sigma_y=6, theta=0, scale=8, noise=3, jpeg=80)
SHAKEN = Degradation(sigma_x=9, sigma_y=3, theta=0.6, scale=5, noise=3, jpeg=80)
GRAINY = Degradation(sigma_x=3, sigma_y=3, theta=0, scale=4, noise=14, jpeg=85)
SQUEEZED = Degradation(sigma_x=2, sigma_y=2, theta=0, scale=6, noise=4, jpeg=35)
TINY = Degradation(sigma_x=5, sigma_y=5, theta=0, scale=14, noise=4, jpeg=65)


@dataclass(frozen=True)
class Photograph:
    """One file of the archive: its photograph, size, degradation and file format."""

    name: str
    source: str
    # factor by which the source is resized
    scale: float
    degradation: Degradation
    # the degraded picture → the bytes of the file
    store_as: Callable[[Picture], bytes]
    cut: Cut = WHOLE
    mirrored: bool = False


def write_archive(folder: str) -> list[str]:
    """Write every file of the archive below `folder` and return their URIs. The bytes are the same every time.

    Files of the same name are replaced, other files are kept. Raises store.StoreError where the folder cannot be
    written.
    """
    files = archive()
    for name, data in files.items():
        store.write_bytes(store.join(folder, name), data)
    return [store.join(folder, name) for name in files]


def archive() -> dict[str, bytes]:
    """Every file of the archive: its path below the folder → its bytes."""
    files = {photo.name: photo.store_as(degraded(photo)) for photo in PHOTOGRAPHS}
    portrait = files["portraits/Eileen Collins, blurred.jpg"]
    return {
        **files,
        "contact print.jpg": as_jpeg(contact_print(), quality=70),
        "animals/Chelsea.jpg": as_jpeg(source("chelsea"), quality=80),
        "still life/café.png": as_png(shrink(source("coffee"), 0.6)),
        "damaged/cut off.jpg": portrait[: len(portrait) * 3 // 5],
        "damaged/letter.jpg": b"Dear Madam,\nthe photographs follow by separate post.\n",
        "damaged/empty.jpg": b"",
    }


def degraded(photo: Photograph) -> Picture:
    """The photograph at its size in the archive, degraded. Its noise depends on its name alone."""
    picture = shrink(source(photo.source)[photo.cut], photo.scale)
    if photo.mirrored:
        picture = picture[:, ::-1]
    rng = np.random.default_rng(list(photo.name.encode()))
    return degrade_picture(picture, photo.degradation, CROP_SIDES[photo.source] * photo.scale, rng)


def degrade_picture(
    picture: Picture, how: Degradation, crop_side: float, rng: np.random.Generator
) -> Picture:
    """The paper's degradation (METHOD: blur → shrink → noise → JPEG → back to size) of a whole picture.

    crop_side: side in pixels of an aligned crop of the face; `how` is scaled by crop_side / 512.
    """
    ratio = crop_side / 512
    height, width = picture.shape[:2]
    blurred = cv2.filter2D(
        picture.astype(np.float32), -1, blur_kernel(how, ratio), borderType=cv2.BORDER_REFLECT_101
    )
    factor = max(how.scale * ratio, 1.0)
    small_size = (max(round(width / factor), 1), max(round(height / factor), 1))
    small = cv2.resize(blurred, small_size, interpolation=cv2.INTER_LINEAR)
    noisy = small + rng.normal(0, how.noise, small.shape)
    coded = jpeg_round_trip(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), how.jpeg)
    return cv2.resize(coded, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def contact_print() -> Picture:
    """Six heads on one sheet, three by two, each with its own brightness and tint."""
    side, gap = 176, 16
    sheet = np.full((2 * side + 3 * gap, 3 * side + 4 * gap, 3), 236, np.uint8)
    rng = np.random.default_rng(6)
    for place, (name, mirrored, light) in enumerate(
        [
            ("hopper", False, (1.0, 1.0, 1.0)),
            ("astronaut", True, (1.05, 0.98, 0.86)),
            ("hopper", False, (1.1, 1.04, 0.94)),
            ("astronaut", False, (0.8, 0.82, 0.86)),
            ("hopper", True, (0.86, 0.93, 1.06)),
            ("astronaut", False, (1.04, 1.0, 1.0)),
        ]
    ):
        head = source(name)[HEADS[name]]
        factor = side / head.shape[0]
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        lit = np.clip(small[:, :: -1 if mirrored else 1] * np.array(light), 0, 255).astype(np.uint8)
        row, column = divmod(place, 3)
        y, x = gap + row * (side + gap), gap + column * (side + gap)
        sheet[y : y + side, x : x + side] = degrade_picture(lit, SOFT, CROP_SIDES[name] * factor, rng)
    return sheet


@cache
def source(name: str) -> Picture:
    """[H, W, 3] uint8 RGB: one of the photographs that installed packages carry."""
    if name == "hopper":
        import matplotlib

        return decode_rgb(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg").read_bytes())
    from skimage import data

    loaders: dict[str, Callable[[], Picture]] = {
        "astronaut": data.astronaut,
        "cameraman": data.camera,
        "chelsea": data.chelsea,
        "coffee": data.coffee,
    }
    picture = loaders[name]()
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


def shrink(picture: Picture, scale: float) -> Picture:
    """The picture with both sides times `scale`, at most 1."""
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def as_jpeg(picture: Picture, quality: int = 88) -> bytes:
    """A colour JPEG file."""
    return encoded(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])


def as_grey_jpeg(picture: Picture) -> bytes:
    """A JPEG file with one channel."""
    return encoded(".jpg", to_grey(picture)[..., 0], [cv2.IMWRITE_JPEG_QUALITY, 85])


def as_sepia_jpeg(picture: Picture) -> bytes:
    """A colour JPEG file of a picture toned brown."""
    toned = to_grey(picture)[..., :1] * np.array([1.0, 0.87, 0.68]) + np.array([14.0, 8.0, 0.0])
    return as_jpeg(np.clip(np.rint(toned), 0, 255).astype(np.uint8))


def as_rotated_jpeg(picture: Picture) -> bytes:
    """A JPEG file stored rotated by 90 degrees, with the EXIF orientation (6) that turns it upright."""
    lying = as_jpeg(np.rot90(picture))
    # TIFF header, one directory with one entry: tag 0x0112 (orientation), type SHORT, count 1, value 6
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    payload = b"Exif\x00\x00" + tiff
    return lying[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + lying[2:]


def as_png(picture: Picture) -> bytes:
    """A colour PNG file."""
    return encoded(".png", picture[..., ::-1], [])


def as_oval_png(picture: Picture) -> bytes:
    """A PNG file with transparency: opaque inside an oval, soft at its edge."""
    height, width = picture.shape[:2]
    y, x = np.ogrid[:height, :width]
    distance = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    alpha = np.clip((1.02 - distance) / 0.08, 0, 1) * 255
    return encoded(".png", np.dstack([picture[..., ::-1], np.rint(alpha).astype(np.uint8)]), [])


def as_16_bit_png(picture: Picture) -> bytes:
    """A grey PNG file of 16 bit, as film scanners write."""
    grey = to_grey(picture)[..., 0].astype(np.uint16)
    return encoded(".png", grey * np.uint16(257), [])


def encoded(suffix: str, pixels: NDArray[np.uint8] | NDArray[np.uint16], options: list[int]) -> bytes:
    """The picture, in OpenCV's channel order, as the bytes of a file of that kind."""
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    if not done:
        raise RuntimeError(f"OpenCV wrote no {suffix} of an array {pixels.shape} {pixels.dtype}")
    return data.tobytes()


PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("portraits/Eileen Collins, blurred.jpg", "astronaut", 0.9, SOFT, as_jpeg),
    Photograph("portraits/Grace Hopper, grainy.jpg", "hopper", 0.5, GRAINY, as_jpeg),
    Photograph("portraits/Grace Hopper, grey.jpg", "hopper", 0.46, SOFT, as_grey_jpeg, mirrored=True),
    Photograph("portraits/sépia 1984.jpg", "hopper", 0.52, SHAKEN, as_sepia_jpeg),
    Photograph("portraits/写真 (small).png", "astronaut", 0.7, TINY, as_png, HEADS["astronaut"]),
    Photograph("scans/16 bit grey.png", "astronaut", 0.8, GRAINY, as_16_bit_png, mirrored=True),
    Photograph("scans/Kameramann.jpg", "cameraman", 0.9, WORN, as_grey_jpeg),
    Photograph("phone/IMG 0042.jpg", "astronaut", 1.0, SHARP, as_rotated_jpeg),
    Photograph("oval/Großes Oval.png", "hopper", 0.5, SQUEEZED, as_oval_png, HEADS["hopper"]),
)
