"""JPEGs of inks coded as luma, chroma and black (YCCK), as image editors write CMYK; Pillow reads them only."""

from typing import Any

import imagecodecs

from pipeline.io.picture import Array

# How the chroma may be sampled, by columns and rows of luma to each of its samples.
SAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
# Adobe's code of YCCK.
TRANSFORM = 2
# Every quantisation step is 1, so that it divides those of any other file.
FINEST = 100


def ycck_sampling(image: Any) -> str | None:
    """The chroma sampling of a JPEG that Pillow opened; None where it is not YCCK, or can not be written so."""
    if image.mode != "CMYK" or image.info.get("adobe_transform") != TRANSFORM:
        return None
    luma, *chroma, black = [tuple(layer[1:3]) for layer in image.layer]
    return SAMPLINGS.get(luma) if luma == black and chroma == [(1, 1), (1, 1)] else None


def encode_ycck(planes: Array, sampling: str) -> bytes:
    """[H, W, 4] uint8 CMYK, 255 is full ink → JPEG, whose inks are inverted as Adobe's are."""
    return bytes(
        imagecodecs.jpeg8_encode(
            255 - planes, level=FINEST, colorspace="CMYK", outcolorspace="YCCK", subsampling=sampling
        )
    )
