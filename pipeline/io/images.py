"""Bytes ↔ arrays: decoding, colour, depth, orientation, metadata, and encoding back as the same kind.

A picture is edited as upright 8-bit RGB, whatever it is stored as. `encode` gives back the stored kind: format, mode,
bit depth, alpha, orientation, metadata; pixels that were not edited keep their stored values.
"""

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import get_sampling

from pipeline.io.jpeg import keep_untouched_blocks

Array = NDArray[Any]

# Names of pictures. Those of the second line hold kinds that we only tell apart, so that they are accounted for.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".heic", ".heif", ".avif", ".jxl", ".jp2"}
)
# Formats whose decoders we trust with other people's bytes; Pillow knows more, one of which starts Ghostscript.
# A JPEG with further pictures behind it (MPO) is opened by "JPEG".
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
# Descriptive TIFF tags that go along: description, maker, model, software, date, artist, copyright, XMP, IPTC.
TIFF_TAGS = (270, 271, 272, 305, 306, 315, 33432, 700, 33723)
# How files of kinds begin that we can not write back as they were: where, bytes, name.
FOREIGN = (
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1")),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"jP  \r\n\x87\n", "JPEG 2000"),
)
OPENCV_OUT_OF_MEMORY = -4
PNG = b"\x89PNG\r\n\x1a\n"
# The largest picture accepted unless told otherwise; Pillow's own limit against decompression bombs.
MAX_PIXELS = 178_956_970
# What the largest pixel takes uncompressed (four samples of 16 bits), and metadata beside the pixels.
BYTES_PER_PIXEL, METADATA_BYTES = 8, 64 << 20
# A progressive JPEG has some ten scans. Each may cost a pass over the whole picture for a few bytes of the file.
MOST_SCANS = 500

# Samples that are converted at once: a whole picture's, as wider numbers, would be several times the picture.
STRIP = 1 << 20

# Dimensions are checked below, before anything is decoded: Pillow's own check would only warn.
Image.MAX_IMAGE_PIXELS = None


def silence_pillow() -> None:
    """Let Pillow warn of nothing: what it has to say about damaged metadata is nothing a user could act on.

    Asked for at every door, as libraries and test runners put filters of their own before ours. A filter for all, as
    `warnings.catch_warnings` is not safe among threads.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", "") != PILLOW:
        warnings.filterwarnings("ignore", module=PILLOW)


PILLOW = r"PIL\."
silence_pillow()

# How a picture is saved that is no edit of another.
FINE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
}

ORIENTATION = 0x0112
# How a stored picture becomes upright, and how an upright one becomes stored again.
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
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class ImageError(ValueError):
    """Bytes that are no readable picture. `reason` is a short slug, the message one sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SkippedImage(ImageError):
    """A picture we understand and do not restore."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, and what is needed to give back the same kind."""

    # [H, W, 3] uint8 RGB, upright
    rgb: NDArray[np.uint8]
    # Pillow's format name
    format: str
    # colour samples as stored (EXIF orientation not applied): [H, W] grey or [H, W, 3] RGB, uint8 or uint16
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

    def upright(self, stored: Array) -> Array:
        """A plane of stored samples, turned as `rgb` is."""
        return UPRIGHT[self.orientation][0](stored)

    def as_stored(self, upright: Array) -> Array:
        """The other way round."""
        return UPRIGHT[self.orientation][1](upright)


def is_image_name(name: str) -> bool:
    """Whether a file or member name says that it is a picture."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def most_bytes(max_pixels: int) -> int:
    """The longest file that a picture of so many pixels can be."""
    return BYTES_PER_PIXEL * max_pixels + METADATA_BYTES


def weight(data: bytes) -> int:
    """How many pixels one of this file's counts as: 2 of a 16-bit colour PNG, which take twice the memory."""
    return 2 if data[:8] == PNG and data[24:26] in (b"\x10\x02", b"\x10\x06") else 1


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in `data`. max_pixels: as `weight` counts them.

    Raises ImageError, SkippedImage for animated and too large ones, MemoryError, and nothing else.
    """
    silence_pillow()
    try:
        return _decoded(data, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        if isinstance(error, cv2.error) and error.code == OPENCV_OUT_OF_MEMORY:
            raise MemoryError(str(error)) from error
        said = " ".join(str(error).split())[:200]
        raise ImageError("truncated", f"the picture's data end early or are damaged ({said})") from error


def _decoded(data: bytes, max_pixels: int) -> Picture:
    image = _opened(data, max_pixels)
    image.load()
    orientation, save = _orientation(image), _save_options(image, data)
    palette = image.copy() if image.format == "GIF" and image.mode == "P" else None
    mode = image.mode
    stored, alpha = _sixteen_bit_colour(data, image) if _is_deep_colour(data, image) else _samples(image)
    image.close()  # its pixels are not needed twice
    if alpha is not None:
        save.pop("transparency", None)  # which has become alpha
    return Picture(
        rgb=_upright_rgb(stored, orientation),
        format="JPEG" if image.format == "MPO" else str(image.format),
        stored=stored,
        alpha=alpha,
        orientation=orientation,
        save=save,
        palette=palette,
        jpeg=data if image.format in ("JPEG", "MPO") and mode in ("L", "RGB") else b"",
        recoded=f"its {mode} samples are delivered as RGB" if mode in ("CMYK", "LAB") else None,
    )


def _upright_rgb(stored: Array, orientation: int) -> NDArray[np.uint8]:
    """Stored samples as `Picture.rgb`."""
    upright = UPRIGHT[orientation][0](_eight_bit(stored))
    if upright.ndim == 2:
        upright = np.repeat(upright[..., None], 3, axis=2)
    return np.ascontiguousarray(upright)


def enlarged(picture: Picture, times: int) -> Picture:
    """The same kind of picture, so many times larger in both directions (bicubic); with 1 the picture itself."""
    if times == 1:
        return picture
    height, width = picture.stored.shape[:2]
    size = (width * times, height * times)

    def larger(samples: Array) -> Array:
        return cv2.resize(samples, size, interpolation=cv2.INTER_CUBIC)

    stored = larger(picture.stored)
    return replace(
        picture,
        rgb=_upright_rgb(stored, picture.orientation),
        stored=stored,
        alpha=None if picture.alpha is None else larger(picture.alpha),
        palette=picture.palette and picture.palette.resize(size, Image.Resampling.NEAREST),
        jpeg=b"",
        recoded=None,
    )


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """The image with its header read and judged; nothing is decoded yet."""
    if not data:
        raise ImageError("empty", "the file holds no bytes")
    foreign = next((name for place, sign, name in FOREIGN if data[place:].startswith(sign)), "")
    if foreign:
        raise SkippedImage(
            "unsupported format", f"{foreign} can not be written back as it was; save it as PNG or JPEG"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError("not an image", "the bytes are of no picture format that is known here") from error
    _check_size(image, max_pixels, weight(data))
    # whether there is a second frame; counting them all would take as long as there are bytes
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise SkippedImage("animated", "a single picture was wanted, got several frames")
    _check_size(image, max_pixels, weight(data))  # a look at the second frame may have changed it
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS:
        raise SkippedImage("too many scans", f"a JPEG of at most {MOST_SCANS} scans was wanted; save it anew")
    if image.mode == "F":
        raise SkippedImage("float samples", "samples of 8 or 16 bits were wanted, got floating point numbers")
    if _would_lose_depth(image, data):
        raise SkippedImage(
            "deep samples",
            f"samples of a {image.format} as deep as these can not be written back; save it as 16-bit RGB PNG",
        )
    return image


def _check_size(image: Image.Image, max_pixels: int, counts: int) -> None:
    """Refuse a picture by the size that its header gives. counts: as `weight`."""
    width, height = image.size
    if width * height * counts > max_pixels:
        size = f"{width}x{height} is {width * height / 1e6:.0f} Mpx"
        raise SkippedImage(
            "too large",
            f"{size}{' of 16-bit colour, which count twice' if counts > 1 else ''}, above the limit of "
            f"{max_pixels / 1e6:.0f} Mpx; raise --max-pixels to accept it",
        )
    if not width * height:
        raise ImageError("truncated", f"a picture was wanted, its header tells {width}x{height} pixels")


def _would_lose_depth(image: Image.Image, data: bytes) -> bool:
    """Whether Pillow would change the samples' depth, and we have no other reader and writer."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return tuple(bits) != (16,) or image.mode == "I" if image.mode[:1] == "I" else max(bits) > 8
    return image.format == "PNG" and data[24:26] == b"\x10\x04"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where it is missing or unreadable."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF: nobody can tell how the picture was held
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
    return _as_array(_to_srgb(image) if mode in ("CMYK", "LAB") else image, "RGB"), None


def _as_array(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    """A loaded image's samples in another mode of 8 bits, or its own."""
    width, height = image.size
    samples = np.empty((height, width, len(mode)) if len(mode) > 1 else (height, width), np.uint8)
    for rows in _strips(samples):
        samples[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)).convert(mode))
    return samples


def _strips(samples: Array) -> Iterator[slice]:
    """Consecutive rows of an array, so many at a time that they are about STRIP samples."""
    height = len(samples)
    few = max(STRIP * height // max(samples.size, 1), 1)
    return (slice(top, min(top + few, height)) for top in range(0, height, few))


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
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ValueError("16-bit samples were wanted")
    colour = decoded[..., :3]
    for rows in _strips(colour):
        colour[rows] = colour[rows][..., ::-1].copy()  # OpenCV's order is blue, green, red
    return colour, decoded[..., 3] if decoded.shape[2] == 4 else None


def _eight_bit(samples: Array) -> NDArray[np.uint8]:
    """uint16 0..65535 → uint8 0..255, rounded; uint8 as it is."""
    if samples.dtype == np.uint8:
        return samples
    rounded = np.empty(samples.shape, np.uint8)
    for rows in _strips(samples):
        rounded[rows] = (samples[rows].astype(np.uint32) + 128) // 257
    return rounded


def _save_options(image: Image.Image, data: bytes) -> dict[str, Any]:
    """What Pillow needs to write the same kind of file again."""
    info = image.info
    options = {k: info[k] for k in ("icc_profile", "exif", "dpi") if info.get(k)}
    if image.mode in ("CMYK", "LAB"):
        options.pop("icc_profile", None)  # delivered as sRGB
    if image.format in ("JPEG", "MPO"):
        options |= _jpeg_options(image)
    elif image.format == "PNG":
        options |= _png_options(image, data)
    elif image.format == "WEBP":
        # a lossy one too: coding it once more with loss would change every pixel by up to some twenty levels
        options |= {"lossless": True, "exact": True} | {k: info[k] for k in ("xmp",) if info.get(k)}
    elif image.format == "TIFF":
        lossy = info.get("compression") in ("jpeg", "webp", "group3", "group4", "tiff_ccitt")
        options["compression"] = "tiff_deflate" if lossy else info.get("compression", "raw")
        tags = getattr(image, "tag_v2", {})
        options["tiffinfo"] = {tag: tags[tag] for tag in TIFF_TAGS if tag in tags}
    return options


def _png_options(image: Image.Image, data: bytes) -> dict[str, Any]:
    text = PngImagePlugin.PngInfo()
    for key, value in getattr(image, "text", {}).items():
        text.add_itxt(key, value) if not value.isascii() else text.add_text(key, value)
    options: dict[str, Any] = {"pnginfo": text}
    key = image.info.get("transparency")
    if key is not None:
        # samples of few bits were spread over 0..255, their transparent colour was not
        few_bits = image.mode == "L" and data[24] < 8
        options["transparency"] = key * 255 // (2 ** data[24] - 1) if few_bits else key
    return options


def _jpeg_options(image: Any) -> dict[str, Any]:
    """Tables in which the original's coefficients stay whole numbers, and its chroma sampling."""
    if image.mode == "CMYK":
        return {"quality": 95, "subsampling": 0}
    sampling = get_sampling(image)
    tables = {k: divisor_table(t, _fine_table(k)) for k, t in image.quantization.items()}
    if (
        sampling < 0
    ):  # 4:4:0 and the like, which Pillow can not write: whole chroma, and steps as fine as they get
        tables = {k: [1] * 64 for k in tables}
    # components that are red, green and blue themselves, as Adobe programs may write them
    as_rgb = image.mode == "RGB" and (
        image.info.get("adobe_transform") == 0 or bytes(layer[0] for layer in image.layer) == b"RGB"
    )
    return {"qtables": tables, "subsampling": max(sampling, 0), "keep_rgb": as_rgb}


def divisor_table(table: list[int], finest: list[int]) -> list[int]:
    """For each quantisation step the largest divisor that is at most the entry of `finest`, and at least 1.

    Coefficients that are multiples of the old step are multiples of the new one, so that untouched blocks are
    coded again without loss, while restored ones are not squeezed through a coarse table.
    """
    return [
        max(d for d in range(1, max(min(q, f), 1) + 1) if q % d == 0)
        for q, f in zip(table, finest, strict=True)
    ]


def _fine_table(component: int) -> list[int]:
    """The encoder's own table at quality 95."""
    if not _FINE:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=95)
        _FINE.update({k: list(v) for k, v in Image.open(buffer).quantization.items()})  # type: ignore[attr-defined]
    return _FINE[min(component, 1)]


_FINE: dict[int, list[int]] = {}


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
    coefficients where that is possible. Same picture, same bytes. Raises OSError and MemoryError where the system
    refused memory or files.
    """
    silence_pillow()
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
    for rows in _strips(stored):
        box = _upright_box(original, rows)
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


def _upright_box(picture: Picture, rows: slice) -> tuple[slice, slice]:
    """Where these rows of the stored picture lie in the upright one: rows and columns."""
    height, width = picture.stored.shape[:2]
    if picture.orientation in (3, 4, 6, 7):  # their order is reversed
        rows = slice(height - rows.stop, height - rows.start)
    return (slice(0, width), rows) if picture.orientation >= 5 else (rows, slice(0, width))


def encode_anew(original: Picture, rgb: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] uint8 upright, of any size, as a file of the original's kind; its transparency where that still fits.

    For a picture that is no edit of the original: metadata and depth stay behind. Same picture, same bytes.
    """
    alpha = None if original.alpha is None else original.upright(original.alpha)
    if alpha is not None and alpha.shape == rgb.shape[:2]:
        return _saved(_joined(rgb, _eight_bit(alpha)), original.format, FINE.get(original.format, {}))
    return _saved(_joined(rgb, None), original.format, FINE.get(original.format, {}))


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


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB upright, for reading only. Raises ImageError."""
    return decode(data).rgb


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] or [H, W] uint8 → PNG."""
    return _saved(Image.fromarray(np.ascontiguousarray(picture)), "PNG", {})


def encode_jpeg(picture: NDArray[np.uint8], quality: int, comment: bytes = b"") -> bytes:
    """[H, W, 3] uint8 RGB → JPEG with whole chroma."""
    options: dict[str, Any] = {"quality": quality, "subsampling": 0}
    options |= {"comment": comment} if comment else {}
    return _saved(Image.fromarray(np.ascontiguousarray(picture)), "JPEG", options)


def jpeg_round_trip(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 through a JPEG of the given quality (4:2:0) and back."""
    coded = _saved(Image.fromarray(picture), "JPEG", {"quality": quality, "subsampling": 2})
    return np.asarray(Image.open(io.BytesIO(coded)).convert("RGB"))


def resize(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 → [side, side, 3], bicubic with antialiasing."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
