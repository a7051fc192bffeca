"""Pictures with an edited box, coded again."""

import io

import numpy as np

from pipeline.io.images import decode, encode


def saved(picture, kind, **options):
    """The bytes of a Pillow image, as Pillow writes this kind."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_edited_box(data, box, value=90):
    """The file with the pixels of a box at one level; coded twice to the same bytes, and nothing else coded anew."""
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    rgb[box] = value
    again = encode(picture, rgb)
    assert again == encode(picture, rgb) and again.recoded is None
    return again.data
