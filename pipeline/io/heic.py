"""HEIC: decoded and encoded by libheif (through pillow-heif), which the extra `archive` installs."""

import io
from typing import Any, NamedTuple

import numpy as np

from pipeline.io.picture import Array, SkippedImage, gathered, spread

BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1")
# Codes of colours (ITU-T H.273): RGB itself instead of luma and chroma; primaries and transfer that are not given.
IDENTITY, UNSPECIFIED = 0, (2, 2)
SRGB = (1, 13)
_MISSING = (
    "HEIC needs pillow-heif, which is not installed; install it with pip install '.[archive]', or save the picture as "
    "PNG or JPEG"
)


class Heic(NamedTuple):
    """A picture that is decoded when `samples` is called."""

    # upright
    width: int
    height: int
    bits: int
    icc: bytes | None
    # codes of primaries and transfer (ITU-T H.273); None where none are given
    codes: tuple[int, int] | None
    is_premultiplied: bool
    image: Any

    def samples(self) -> Array:
        """[H, W] or [H, W, C] uint8, or uint16 of the whole range, upright; alpha comes last."""
        return spread(np.array(self.image), self.bits)


def is_heic(data: bytes) -> bool:
    """Whether a file is one, by its first bytes; AVIF may have the same ones and is to be checked first."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def open_heic(data: bytes) -> Heic:
    """A file's picture with its header read. Raises SkippedImage without the library, and its ValueError and others."""
    file = _library().open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index]
    info: dict[str, Any] = dict(image.info)
    coded = info.get("nclx_profile")
    codes = (coded["color_primaries"], coded["transfer_characteristics"]) if coded else None
    return Heic(
        width=image.size[0],
        height=image.size[1],
        bits=int(info.get("bit_depth", 8)),
        icc=info.get("icc_profile") or None,
        codes=codes,
        is_premultiplied=bool(image.premultiplied_alpha),
        image=image,
    )


def coded_heic(samples: Array, bits: int, codes: tuple[int, int]) -> bytes:
    """[H, W] or [H, W, C] as `Heic.samples` gives them → a file of its own, without loss and without metadata."""
    count = samples.shape[2] if samples.ndim == 3 else 1
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[count] + (f";{bits}" if bits > 8 else "")
    plain = np.ascontiguousarray(gathered(samples, bits))
    made = _library().from_bytes(mode, (samples.shape[1], samples.shape[0]), plain.tobytes())
    buffer = io.BytesIO()
    made.save(
        buffer,
        format="HEIF",
        quality=-1,
        chroma=444,
        matrix_coefficients=IDENTITY,
        full_range_flag=1,
        color_primaries=codes[0],
        transfer_characteristics=codes[1],
    )
    return buffer.getvalue()


def _library() -> Any:
    try:
        import pillow_heif
    except ImportError as error:
        raise SkippedImage("unsupported format", _MISSING) from error
    return pillow_heif
