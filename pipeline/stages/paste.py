"""Put a picture's restored faces back into the picture it came from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import images
from pipeline.faces.geometry import paste_face
from pipeline.records import FaceRecord

Crop = NDArray[np.uint8]


def paste_faces(
    data: bytes,
    faces: Sequence[tuple[FaceRecord, Crop, Crop]],
    keep_detail: float | None,
    aligned: bool,
    max_pixels: int,
) -> bytes:
    """The picture's bytes with its faces restored, of the same kind, orientation and metadata.

    faces: each with its crop before and after, [S, S, 3] uint8. The smallest are pasted last, so that a face in
    front of a larger one is not cut by it.
    """
    original = images.decode(data, max_pixels)
    edited = original.rgb.astype(np.float32)
    for face, before, after in faces:
        to_crop = np.array(face.affine).reshape(2, 3)
        paste_face(edited, before, after, to_crop, keep_detail, face.strength, feathered=not aligned)
    return images.encode(original, edited)
