"""A few faces of each unit, before and as they were delivered, for the run's contact sheet: cut, written and read."""

import hashlib
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.faces.geometry import CropFrame
from pipeline.io import images
from pipeline.records.rows import LEFT_TEXTS, RUNG_TEXTS, FaceRecord
from pipeline.reporting.sheet import tile_side
from pipeline.stages.tiles import cut_pair, tile_matrix

Pixels = NDArray[np.uint8]

STRIP_FACES = 12
# characters of an error that the sheet shows
MOST_OF_ERROR = 200
# A face of a strip: its two tiles side by side, [T, 2T, 3] uint8, and what was decided of it; a first line of two or
# more is its picture's name.
Shown = tuple[Pixels, str]
# A tile shows so many times more of the picture than a crop does, to each side of the face.
AROUND = 1.2


@dataclass(frozen=True)
class Sample:
    """One face for the contact sheet: two pictures of one square shape, [T, T, 3] uint8 RGB, and a sentence."""

    before: Pixels
    delivered: Pixels
    # what was decided; a line before it is the picture's name
    decision: str


def choose_samples(crops: Sequence[Pixels]) -> list[int]:
    """At most twelve of a unit's faces, chosen by their content, in their order."""
    by_hash = sorted(range(len(crops)), key=lambda i: hashlib.sha256(crops[i].tobytes()).digest())
    return sorted(by_hash[:STRIP_FACES])


def cut_sample(
    before: Pixels, delivered: Pixels, face: FaceRecord, frame: CropFrame, name: str = ""
) -> Sample:
    """The face of the picture of this name as it was and as it was delivered, at about the picture's own scale.

    before, delivered: as `cut_pair` takes them.
    """
    frame = frame.of(face.side)
    side = tile_side([int(frame.side * max(face.scale, 1) * AROUND)])
    tile, after = cut_pair(before, delivered, tile_matrix(face.affine, frame, side, AROUND), side)
    return Sample(tile, after, f"{name}\n{decision(face)}".lstrip("\n"))


def decision(face: FaceRecord) -> str:
    """What was decided of a face, in a line for people."""
    if face.error:
        return f"failed: {face.error[:MOST_OF_ERROR]}"  # a JPEG's comment is short
    changed = "" if face.estimated_change is None else f"damage {face.estimated_change:.1f}: "
    if face.treatment == "chain":
        held = f", held below {face.hold:g} px" if face.hold else ""
        rung = f" ({RUNG_TEXTS[face.rung]})" if face.rung and face.rung != "asked" else ""
        several = (
            f", one of {face.samples}, which differ by {face.spread:.1f}" if face.spread is not None else ""
        )
        invented = ": invented here" if face.invented else ""
        return f"{changed}diffusion from step {face.start_step}, {face.calls} calls{held}{rung}{several}{invented}"
    texts = {"left": "left as it was", "estimator": "the estimator alone", "": "not treated"}
    why = f": {LEFT_TEXTS[face.left_for]}" if face.left_for and face.tried else ""
    return changed + texts[face.treatment] + why


def sample_strip(samples: Collection[Sample]) -> bytes:
    """The faces as a JPEG: a row per face, its two tiles side by side; the decisions are its comment, as JSON.

    Same faces, same bytes. Raises ValueError when there are none.
    """
    if not samples:
        raise ValueError("a sample strip needs a face, and got none; write no strip for a unit without faces")
    side = max(len(s.before) for s in samples)
    rows = [
        np.concatenate([images.resize(tile, side) for tile in (s.before, s.delivered)], axis=1)
        for s in samples
    ]
    comment = json.dumps([s.decision for s in samples]).encode()
    return images.encode_jpeg(np.concatenate(rows), quality=92, comment=comment)


def read_strip(data: bytes) -> list[Shown]:
    """The faces of a strip, in their order; one that another program saved without its comment has no decisions."""
    with Image.open(io.BytesIO(data)) as picture:
        comment, tiles = picture.info.get("comment", b"[]"), split_strip(np.asarray(picture.convert("RGB")))
    decisions = json.loads(comment)
    return list(zip(tiles, [*decisions, *[""] * (len(tiles) - len(decisions))], strict=True))


def split_strip(strip: Pixels) -> list[Pixels]:
    """A strip's faces: each [T, 2T, 3] uint8, a row of its tiles. Raises ValueError for another picture."""
    height, width = strip.shape[:2]
    tile = width // 2
    if width % 2 or not tile or height % tile or not height:
        raise ValueError(
            f"a sample strip has rows of two square tiles, but this picture is {width} x {height}"
        )
    return [strip[y : y + tile] for y in range(0, height, tile)]
