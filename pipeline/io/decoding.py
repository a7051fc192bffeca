"""Bytes → picture: format, size, colour, depth and orientation, without trust in any of them."""

import io
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from pipeline.io import riff
from pipeline.io.avif import avif_layout, decode_avif, is_avif
from pipeline.io.bmp import bmp_profile
from pipeline.io.carried import check_carried
from pipeline.io.convertible import decode_convertible
from pipeline.io.formats import FORMATS, MAX_PIXELS, Into, weight
from pipeline.io.heic import is_heic, open_heic
from pipeline.io.heic_file import decode_heic, heic_layout
from pipeline.io.icc import PlainInks, Profile
from pipeline.io.jpeg2000 import decode_jpeg2000, is_jpeg2000, jpeg2000_layout
from pipeline.io.jpeg_parts import JPEG_START, check_frame, has_every_scan, picture_end
from pipeline.io.jpegxl import decode_jpegxl, is_jpegxl, jpegxl_header
from pipeline.io.picture import (
    UPRIGHT,
    Array,
    ImageError,
    NotWritable,
    Picture,
    SkippedImage,
    silence_pillow,
    strips,
    upright_rgb,
)
from pipeline.io.png import RGB as RGB_PNG
from pipeline.io.png import has_frames, png_profile, without_chunks
from pipeline.io.save_options import save_options
from pipeline.io.tiff import is_tiff
from pipeline.io.tiff_picture import decode_tiff

OPENCV_OUT_OF_MEMORY = -4
ORIENTATION = 0x0112
# A progressive JPEG has some ten scans. Each may cost a pass over the whole picture for a few bytes of the file.
MOST_SCANS = 500
# Bits that change what is decoded where a scan's data have not ended, and nothing where they have.
FILLING = bytes(range(1, 255)) * 8


def decode(data: bytes, max_pixels: int = MAX_PIXELS, into: Into = "none") -> Picture:
    """The picture in `data`. max_pixels: as `weight` counts them.

    into: what a picture is encoded as that can not be written back as what it is; with `none` it raises NotWritable.
    Raises ImageError, SkippedImage for animated and too large ones, MemoryError, and nothing else.
    """
    silence_pillow()
    try:
        try:
            return _decoded(data, max_pixels)
        except NotWritable:
            if into == "none":
                raise
        return decode_convertible(data, into, partial(_check_size, max_pixels))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        if isinstance(error, cv2.error) and error.code == OPENCV_OUT_OF_MEMORY:
            raise MemoryError(str(error)) from error
        text = " ".join(str(error).split())[:200]
        raise ImageError("truncated", f"the picture's data end early or are damaged ({text})") from error


def _decoded(data: bytes, max_pixels: int) -> Picture:
    if is_tiff(data):
        return decode_tiff(data, partial(_check_size, max_pixels, counts=weight(data)))
    if is_jpeg2000(data):
        layout = jpeg2000_layout(data)
        counts = 1 + (max(layout.bits) > 8 and len(layout.bits) > 2)
        _check_size(max_pixels, layout.width, layout.height, counts)
        return decode_jpeg2000(data, layout)
    if is_jpegxl(data):
        header = jpegxl_header(data)
        _check_size(max_pixels, header.width, header.height, 1 + (header.bits > 8 and not header.is_grey))
        return decode_jpegxl(data, header)
    if is_avif(data):
        avif = avif_layout(data)
        _check_size(max_pixels, avif.width, avif.height, 1 + (avif.bits > 8 and not avif.is_grey))
        return decode_avif(data, avif)
    if is_heic(data):
        opened = open_heic(data)
        _check_size(max_pixels, opened.width, opened.height, 1 + (opened.bits > 8))
        return decode_heic(data, opened, heic_layout(data))
    image = _opened(data, max_pixels)
    if image.format in ("JPEG", "MPO") and picture_end(data) is None:
        image, data = _with_end(data, max_pixels)
    image.load()
    orientation, save = _orientation(image), save_options(image, data)
    palette = image.copy() if image.format == "GIF" and image.mode == "P" else None
    mode, is_jpeg = image.mode, image.format in ("JPEG", "MPO")
    profile = _profile(image, data)
    stored, alpha = _sixteen_bit_colour(data, image) if _is_deep_colour(data, image) else _samples(image)
    image.close()  # its pixels are not needed twice
    if alpha is not None:
        save.pop("transparency", None)  # which has become alpha
    return Picture(
        rgb=upright_rgb(stored, orientation, profile),
        format="JPEG" if is_jpeg else str(image.format),
        stored=stored,
        alpha=alpha,
        orientation=orientation,
        save=save,
        palette=palette,
        jpeg=data if is_jpeg else b"",
        recoded=f"its {mode} samples are delivered as RGB"
        if mode in ("CMYK", "LAB") and not is_jpeg
        else None,
        profile=profile,
        source=data,
    )


def _with_end(data: bytes, max_pixels: int) -> tuple[Image.Image, bytes]:
    """A JPEG without an end mark, and its bytes with one where nothing else is missing."""
    image = _opened(data, max_pixels)
    try:
        image.load()
        return _opened(data, max_pixels), data
    except OSError:
        if not has_every_scan(data):
            raise
    ended, filled = (data.removesuffix(b"\xff") + more + b"\xff\xd9" for more in (b"", FILLING))
    first, second = (np.asarray(_opened(d, max_pixels)) for d in (ended, filled))
    if (first != second).any():  # so that the decoder was still waiting for these bits
        raise OSError("the last scan is not whole")
    return _opened(ended, max_pixels), ended


def _profile(image: Image.Image, data: bytes) -> Profile | PlainInks | None:
    """What the samples of `_samples` stand for."""
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO"):
        return Profile.of(image.info.get("icc_profile"), "CMYK") or PlainInks()
    if image.mode in ("CMYK", "LAB"):
        return None  # converted by `_to_srgb`
    is_grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    icc = image.info.get("icc_profile")
    if image.format == "PNG":
        icc = png_profile(data, is_grey) or icc
    elif image.format == "BMP":
        icc = bmp_profile(data)
    return Profile.of(icc, "L" if is_grey else "RGB")


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """The image with its header read and judged; nothing is decoded yet."""
    if not data:
        raise ImageError("empty", "the file holds no bytes")
    if data[:2] == JPEG_START:
        check_frame(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError("not an image", "the bytes are of no picture format that is known here") from error
    _check_size(max_pixels, *image.size, weight(data))
    # whether there is a second frame; counting them all would take as long as there are bytes
    more = getattr(image, "is_animated", False) or (image.format == "PNG" and has_frames(data))
    more = more or (image.format == "WEBP" and riff.has_frames(data))
    if image.format != "MPO" and more:
        raise SkippedImage("animated", "a single picture was wanted, got several frames")
    _check_size(max_pixels, *image.size, weight(data))  # opening the second frame may have changed it
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS:
        raise SkippedImage(
            "too many scans", f"a JPEG of at most {MOST_SCANS} scans was wanted; save it again"
        )
    check_carried(data, str(image.format))
    if image.mode == "F":
        raise SkippedImage("float samples", "samples of 8 or 16 bits were wanted, got floating point numbers")
    if _would_lose_depth(image, data):
        raise SkippedImage(
            "deep samples",
            f"samples of a {image.format} as deep as these can not be written back; save it as 16-bit RGB PNG",
        )
    return image


def _check_size(max_pixels: int, width: int, height: int, counts: int) -> None:
    """Refuse a picture by the size that its header gives. counts: as `weight`."""
    if width * height * counts > max_pixels:
        said = f"{width}x{height} is {width * height / 1e6:.0f} Mpx"
        raise SkippedImage(
            "too large",
            f"{said}{' of 16-bit colour, which count twice' if counts > 1 else ''}, above the limit of "
            f"{max_pixels / 1e6:.0f} Mpx; raise --max-pixels to accept it",
        )
    if not width * height:
        raise ImageError("truncated", f"a picture was wanted, its header says {width}x{height} pixels")


def _would_lose_depth(image: Image.Image, data: bytes) -> bool:
    """Whether Pillow would change the samples' depth, and we have no other reader and writer."""
    return image.format == "PNG" and data[24:26] == b"\x10\x04"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where it is missing or unreadable."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF
        return 1
    return found if isinstance(found, int) and found in UPRIGHT else 1


def _samples(image: Image.Image) -> tuple[Array, Array | None]:
    """Colour samples (grey or RGB) and alpha of a loaded image, at their stored depth."""
    mode = image.mode
    if mode.startswith("I"):
        return np.asarray(image).astype(np.uint16, copy=False), None
    if mode in ("1", "L"):
        return _as_array(image, "L"), None
    if mode == "LA":
        both = _as_array(image, "LA")
        return both[..., 0], both[..., 1]
    if mode in ("RGBA", "PA", "RGBa", "La") or (mode == "P" and "transparency" in image.info):
        both = _as_array(image, "RGBA")
        return both[..., :3], both[..., 3]
    if mode == "CMYK" and image.format in ("JPEG", "MPO"):
        return _as_array(image, "CMYK"), None
    return _as_array(_to_srgb(image) if mode in ("CMYK", "LAB") else image, "RGB"), None


def _as_array(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    """A loaded image's samples in another mode of 8 bits, or its own."""
    width, height = image.size
    samples = np.empty((height, width, len(mode)) if len(mode) > 1 else (height, width), np.uint8)
    for rows in strips(samples):
        samples[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)).convert(mode))
    return samples


def _to_srgb(image: Image.Image) -> Image.Image:
    """CMYK or LAB through its ICC profile where it carries one, else as Pillow converts it."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that is damaged or does not fit its picture: the plain conversion below
    return image.convert("RGB")


def _is_deep_colour(data: bytes, image: Image.Image) -> bool:
    """Whether it is a 16-bit colour PNG, which Pillow would cut to 8 bits."""
    return image.format == "PNG" and weight(data) > 1


def _sixteen_bit_colour(data: bytes, image: Image.Image) -> tuple[Array, Array | None]:
    """RGB(A) samples of a 16-bit colour PNG that Pillow could load."""
    image.close()  # what Pillow has cut is not needed
    if data[25] == RGB_PNG:  # a transparent colour would become alpha
        data = without_chunks(data, b"tRNS")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ValueError("16-bit samples were wanted")
    colour = decoded[..., :3]
    for rows in strips(colour):
        colour[rows] = colour[rows][..., ::-1].copy()  # OpenCV's order is blue, green, red
    return colour, decoded[..., 3] if decoded.shape[2] == 4 else None
