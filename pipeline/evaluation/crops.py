"""Faces as aligned crops of 512 px in FFHQ's frame: crops that are such already, or cut out of photographs."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.console.options import UsageError
from pipeline.datasets.faces import FaceAddress, SampleError
from pipeline.evaluation.labels import without_suffix
from pipeline.evaluation.photographs import LEAST_BOX, MOST_PIXELS, for_each, head_box, measured_face
from pipeline.evaluation.realworld import Pixels
from pipeline.evaluation.testset import PictureSet
from pipeline.faces.detect import CenterFace, Face, Selection, select_faces
from pipeline.faces.geometry import (
    CropFrame,
    UnusableLandmarks,
    crop_scale,
    face_to_crop,
    resize_crop,
    warp_crop,
)
from pipeline.io import images, store

SIDE = 512
FRAME = CropFrame(SIDE, resampling="fine")
# Incremented when the same pictures give other crops.
VERSION = 1
# Why a picture is left out of a set.
Reason = Literal["no_face", "too_small", "unreadable"]
REASONS: Mapping[Reason, str] = {
    "no_face": "without a face",
    "too_small": "with a face too small",
    "unreadable": "unreadable",
}


@dataclass(frozen=True)
class Cut:
    """One face of a picture."""

    # [SIDE, SIDE, 3]
    crop: Pixels
    # the 2x3 similarity from picture to crop; None where the picture is the crop
    to_crop: NDArray[np.float64] | None
    # width and height of the picture
    size: tuple[int, int]


def cut_faces(data: bytes, detector: CenterFace) -> list[Cut] | Reason:
    """The crops of all faces of an encoded picture, the largest first; a picture of SIDE x SIDE is one crop itself."""
    return _cut(data, lambda picture: _faces_of(picture, detector))


def cut_face(data: bytes, detector: CenterFace, most_enlarged: float) -> list[Cut] | Reason:
    """The crop of the face of an encoded picture that is measured (photographs.measured_face), as of `cut_faces`.

    A face whose crop would be enlarged by more than `most_enlarged` is too small.
    """
    found = _cut(data, lambda picture: [f for f in (measured_face(picture, detector),) if f is not None])
    if isinstance(found, str):
        return found
    large = [c for c in found if c.to_crop is None or crop_scale(c.to_crop) * most_enlarged >= 1]
    return large or "too_small"


def _cut(data: bytes, search: Callable[[Pixels], Sequence[Face]]) -> list[Cut] | Reason:
    try:
        picture = images.decode(data, MOST_PIXELS).rgb
    except images.ImageError:
        return "unreadable"
    height, width = picture.shape[:2]
    if (height, width) == (SIDE, SIDE):
        return [Cut(picture, None, (width, height))]
    found = []
    for face in search(picture):
        to_crop = face_to_crop(face.landmarks, FRAME)
        found.append(Cut(warp_crop(picture, to_crop, SIDE, FRAME.resampling), to_crop, (width, height)))
    return found or "no_face"


def _faces_of(picture: Pixels, detector: CenterFace) -> list[Face]:
    return [f for f in select_faces(detector(picture), Selection()) if _is_large(f, *picture.shape[:2])]


def _is_large(face: Face, height: int, width: int) -> bool:
    try:
        x0, y0, x1, y1 = head_box(face.landmarks, height, width)
    except UnusableLandmarks:
        return False
    return min(x1 - x0, y1 - y0) >= LEAST_BOX


def folder_digest(faces: Sequence[FaceAddress]) -> str:
    """A digest of where these pictures are, their sizes, and the versions of their files."""
    versions = {shard: store.stat(shard).version for shard in {f.shard for f in faces}}
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{face.name} {versions[face.shard]} {face.offset} {face.length}\n".encode())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class RealFaces(PictureSet):
    """Real degraded faces without ground truth: `degraded` holds NUMBER.png, their crops."""

    @property
    def contents(self) -> str:
        """Its contents in words."""
        cut_out = sum(row is not None for row in self.sheet["to_crop"].to_pylist())
        return f"{len(self.sheet)} faces ({len(self.sheet) - cut_out} aligned crops, {cut_out} cut out of photographs)"

    @cached_property
    def sources(self) -> list[str]:
        """The path of the picture of each face, without its suffix."""
        found: list[str] = self.sheet["source"].to_pylist()
        return found


SHEET = pa.schema(
    {
        "name": pa.string(),
        # of its picture, without the suffix
        "source": pa.string(),
        # of the picture, pixels
        "width": pa.int64(),
        "height": pa.int64(),
        # the 2x3 similarity from picture to crop; null where the picture is the crop
        "to_crop": pa.list_(pa.float64()),
    }
)


def place_real(faces: Sequence[FaceAddress], around: str) -> RealFaces:
    """The set of the faces of these pictures below `around`, written or not."""
    return RealFaces(store.join(around, f"faces-{VERSION}-{folder_digest(faces)}"))


def write_real(found: RealFaces, faces: Sequence[FaceAddress]) -> dict[Reason, int]:
    """Write the set unless it exists; returns how many pictures are left out. Raises SampleError without any face."""
    if found.is_whole:
        return left_out_of(found)

    def written(number: int, detector: CenterFace) -> list[dict[str, Any]] | Reason:
        cuts = cut_faces(faces[number].read(), detector)
        return (
            cuts
            if isinstance(cuts, str)
            else [_write_face(found, faces, number, *c) for c in enumerate(cuts)]
        )

    finish(found, for_each(faces, written), SHEET)
    return left_out_of(found)


def _write_face(
    found: RealFaces, faces: Sequence[FaceAddress], number: int, place: int, cut: Cut
) -> dict[str, Any]:
    name = f"{number:06d}-{place}"
    store.write_bytes(store.join(found.degraded, f"{name}.png"), images.encode_png(cut.crop))
    to_crop = None if cut.to_crop is None else cut.to_crop.ravel().tolist()
    width, height = cut.size
    source = key_of(faces[number])
    return {"name": name, "source": source, "width": width, "height": height, "to_crop": to_crop}


def finish(found: PictureSet, parts: Sequence[list[dict[str, Any]] | Reason], schema: pa.Schema) -> None:
    """Write a set's sheet, with what was left out of it. Raises SampleError where nothing remains."""
    rows = [row for part in parts if not isinstance(part, str) for row in part]
    counts = {reason: parts.count(reason) for reason in REASONS}
    if not rows:
        raise SampleError(f"expected pictures with faces; of {len(parts)} are {left_out_words(counts)}")
    metadata = {reason: str(count) for reason, count in counts.items()}
    found.finish(pa.Table.from_pylist(rows, schema).replace_schema_metadata(metadata))


def left_out_of(found: PictureSet) -> dict[Reason, int]:
    """How many pictures were left out of a written set, by reason."""
    metadata = found.sheet.schema.metadata or {}
    return {reason: int(metadata.get(reason.encode(), 0)) for reason in REASONS}


def left_out_words(counts: Mapping[Reason, int]) -> str:
    """The same in words; empty where nothing was left out."""
    return ", ".join(f"{count} {REASONS[reason]}" for reason, count in counts.items() if count)


def key_of(face: FaceAddress) -> str:
    """The path of a picture without its suffix; in a tar, after the path of the tar."""
    path = f"{without_suffix(face.shard)}/{face.member}" if face.member else face.shard
    return without_suffix(path)


class RestoredFaces:
    """What another program made of a set's pictures, found in a folder or tar by the pictures' names."""

    def __init__(self, name: str, faces: Sequence[FaceAddress], found: RealFaces) -> None:
        """Raises UsageError where a picture is missing, or its name fits several."""
        self.name = name
        self._sheet = found.sheet.to_pylist()
        self._faces = matched(sorted(set(found.sources)), faces, f"--restored {name}")
        self.digest = folder_digest(faces)

    def read(self, number: int) -> Pixels:
        """The crop of face `number` of the set. Raises SampleError for an unreadable picture."""
        row = self._sheet[number]
        picture = self._faces[row["source"]].picture()
        height, width = picture.shape[:2]
        if abs(height * row["width"] - width * row["height"]) > max(
            height, width, row["width"], row["height"]
        ):
            raise SampleError(
                f"{self._faces[row['source']].name}: expected the shape of the input, {row['width']}x{row['height']} "
                f"or a multiple of it, got {width}x{height}; restore whole pictures"
            )
        if row["to_crop"] is None:
            return picture if width == SIDE else images.resize(picture, SIDE)
        to_crop = np.reshape(row["to_crop"], (2, 3))
        to_crop = resize_crop(to_crop, width / row["width"], height / row["height"])
        return warp_crop(picture, to_crop, SIDE, FRAME.resampling)


def matched(sources: Sequence[str], faces: Sequence[FaceAddress], what: str) -> dict[str, FaceAddress]:
    """Source → the picture whose path has the most last parts in common with it, at least its name.

    Raises UsageError where one is missing, where several fit, or where a picture fits several sources.
    """
    by_end: dict[str, list[FaceAddress]] = {}
    for face in faces:
        for end in _ends(key_of(face)):
            by_end.setdefault(end, []).append(face)
    found: dict[str, FaceAddress] = {}
    for source in sources:
        fitting = next((by_end[end] for end in _ends(source) if end in by_end), [])
        if len(fitting) != 1:
            named = f"{len(fitting)} pictures" if fitting else "no picture"
            raise UsageError(f"{what}: expected one picture for every input, {named} for {source}")
        found[source] = fitting[0]
    if len({face.name for face in found.values()}) < len(sources):
        raise UsageError(f"{what}: a picture fits several inputs; give it the inputs' folders, too")
    return found


def _ends(key: str) -> list[str]:
    """The last parts of a path, the whole path first."""
    parts = [part for part in key.split("/") if part not in ("", ".")]
    return ["/".join(parts[i:]) for i in range(len(parts))]
