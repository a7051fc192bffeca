"""What Pillow needs to write a picture as the kind of file it came from."""

import io
from functools import cache
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from pipeline.io.jpeg_sampling import sampling_of

# For a picture that is no edit of another.
DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4", "max_threads": 1},
    "TIFF": {"compression": "tiff_lzw"},
}


def save_options(image: Image.Image, data: bytes) -> dict[str, Any]:
    """Keyword arguments of Pillow's `save` that write an opened image as the same kind of file again."""
    info = image.info
    options = {k: info[k] for k in ("icc_profile", "exif", "dpi") if info.get(k)}
    if image.mode in ("CMYK", "LAB"):
        options.pop("icc_profile", None)  # delivered as sRGB, or as the file's own segments say
    if image.format in ("JPEG", "MPO"):
        options |= jpeg_options(image)
    elif image.format == "PNG":
        options |= _png_options(image, data)
    elif image.format == "GIF":
        # the indices are those of the file's own palette, of which no colour may be left out
        options["optimize"] = False
        if image.mode == "L" and "transparency" in info:
            options["transparency"] = info["transparency"]
    elif image.format == "WEBP":
        # a lossy one too: coding it once more with loss would change every pixel by up to some twenty levels
        options |= {"lossless": True, "exact": True} | {k: info[k] for k in ("xmp",) if info.get(k)}
    return options


def _png_options(image: Image.Image, data: bytes) -> dict[str, Any]:
    key = image.info.get("transparency")
    if key is None:
        return {}
    # samples of few bits were spread over 0..255, their transparent colour was not
    few_bits = image.mode in ("1", "L") and data[24] < 8
    return {"transparency": key * 255 // (2 ** data[24] - 1) if few_bits else key}


def jpeg_options(image: Any) -> dict[str, Any]:
    """Tables in which the original's coefficients stay whole numbers, and its chroma sampling.

    Of a JPEG that Pillow does not write, `sampled` with its sampling alone, for `encode_sampled`.
    """
    if sampled := sampling_of(image):
        return {"sampled": sampled}
    # Pillow knows chroma sampling of three components only
    sampling = get_sampling(image) if image.layers != 4 else 0 if _unsampled(image) else -1
    tables = {k: divisor_table(t, _fine_table(k)) for k, t in image.quantization.items()}
    if sampling < 0:
        # what can not be written: whole chroma, and the finest steps there are
        tables = {k: [1] * 64 for k in tables}
    # components that are red, green and blue themselves, as Adobe programs may write them
    as_rgb = image.mode == "RGB" and (
        image.info.get("adobe_transform") == 0 or bytes(layer[0] for layer in image.layer) == b"RGB"
    )
    return {"qtables": tables, "subsampling": max(sampling, 0), "keep_rgb": as_rgb}


def _unsampled(image: Any) -> bool:
    return all(layer[1:3] == image.layer[0][1:3] for layer in image.layer)


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
    """The encoder's own table at quality 95: luma's of component 0, chroma's of the others."""
    return _fine_tables()[min(component, 1)]


@cache
def _fine_tables() -> dict[int, list[int]]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=95)
    return {k: list(v) for k, v in Image.open(buffer).quantization.items()}  # type: ignore[attr-defined]
