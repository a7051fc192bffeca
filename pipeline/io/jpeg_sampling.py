"""JPEGs of colours and chroma sampling that Pillow reads, and does not write.

Those are inks coded as luma, chroma and black (YCCK), as image editors write CMYK, and chroma of every second row or
every fourth column, as turning a picture without loss gives.
"""

from typing import Any

import imagecodecs

from pipeline.io.picture import Array

# How the chroma may be sampled, by columns and rows of luma to each of its samples.
SAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
# Those of three components that Pillow writes.
OF_PILLOW = frozenset({"444", "422", "420"})
# Adobe's codes of RGB and of YCCK.
RGB, YCCK = 0, 2
# Every quantisation step is 1, so that it divides those of any other file.
FINEST = 100


def sampling_of(image: Any) -> str | None:
    """The chroma sampling of a JPEG that Pillow opened; None where Pillow can write it, or where nothing here can."""
    transform = image.info.get("adobe_transform")
    if image.mode == "CMYK" and transform == YCCK:
        luma, *chroma, black = [tuple(layer[1:3]) for layer in image.layer]
        return SAMPLINGS.get(luma) if luma == black and chroma == [(1, 1), (1, 1)] else None
    if image.mode != "RGB" or len(image.layer) != 3 or transform == RGB:
        return None
    luma, *chroma = [tuple(layer[1:3]) for layer in image.layer]
    found = SAMPLINGS.get(luma) if chroma == [(1, 1), (1, 1)] else None
    return None if found in OF_PILLOW else found


def encode_sampled(planes: Array, sampling: str) -> bytes:
    """[H, W, 3] uint8 RGB, or [H, W, 4] CMYK, 255 is full ink, → JPEG; inks are inverted as Adobe's are."""
    inks = planes.shape[2] == 4
    return bytes(
        imagecodecs.jpeg8_encode(
            255 - planes if inks else planes,
            level=FINEST,
            colorspace="CMYK" if inks else "RGB",
            outcolorspace="YCCK" if inks else "YCBCR",
            subsampling=sampling,
        )
    )
