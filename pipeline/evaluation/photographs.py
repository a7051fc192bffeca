"""Test sets of whole photographs: each damaged at every level at full size, with the one face that is measured."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.console.progress import counted
from pipeline.datasets.faces import FaceAddress, SampleError
from pipeline.evaluation.realworld import LEVELS, Pixels, damage, draw_damage, generator
from pipeline.evaluation.testset import PictureSet
from pipeline.faces.detect import CenterFace, Face, Selection, box_size, select_faces
from pipeline.faces.geometry import CropFrame, UnusableLandmarks, face_to_crop
from pipeline.io import images, store

R = TypeVar("R")
# Incremented when the same settings give another set.
VERSION = 1
# Larger photographs are left out: damaging one of 36 Mpx takes a gigabyte of memory.
MOST_PIXELS = 36_000_000
# The measured region: the part of FFHQ's frame with head and chin.
HEAD = CropFrame(512, zoom=1.45, centre=(0.5, 0.57))
# Minimum shorter side of that box for a face to be measured, pixels.
LEAST_BOX = 48
# A face below this fraction of the largest one is in the background (by the square root of the box's area).
LEAST_SHARE = 0.5
# Photographs processed concurrently.
MOST_THREADS = 8
NO_FACE, UNREADABLE = "no_face", "unreadable"
# key of the sheet's metadata: number of photographs left out, by reason
LEFT_OUT = b"left_out"

Box = tuple[int, int, int, int]
SHEET = pa.schema(
    {
        "name": pa.string(),
        # of the photograph, and the name of its ground truth
        "number": pa.int64(),
        "truth": pa.string(),
        "level": pa.string(),
        "shard": pa.string(),
        "member": pa.string(),
        "offset": pa.int64(),
        # in the ground truth, pixels: x0, y0, x1, y1, and five points
        "box": pa.list_(pa.float64()),
        "landmarks": pa.list_(pa.float64()),
        # null where no damage is applied
        "blur": pa.float64(),
        "blur_across": pa.float64(),
        "angle": pa.float64(),
        "shrink": pa.float64(),
        "down": pa.string(),
        "up": pa.string(),
        "noise": pa.float64(),
        "grey_noise": pa.bool_(),
        "grain": pa.float64(),
        "quality": pa.int64(),
        "shared_chroma": pa.bool_(),
    }
)


@dataclass(frozen=True)
class PhotographSet(PictureSet):
    """Photographs at their levels: `degraded` holds NUMBER-LEVEL.png, `truth` NUMBER.png."""

    seed: int
    levels: tuple[str, ...]

    @cached_property
    def left_out(self) -> dict[str, int]:
        """Number of photographs left out, by NO_FACE and UNREADABLE."""
        counts: dict[str, int] = json.loads(self.sheet.schema.metadata[LEFT_OUT])
        return counts

    @property
    def contents(self) -> str:
        """Its contents in words."""
        photographs = len(set(self.sheet["number"].to_pylist()))
        without, broken = self.left_out[NO_FACE], self.left_out[UNREADABLE]
        reasons = [f"{without} without a face to measure"] if without else []
        reasons += [f"{broken} unreadable"] if broken else []
        left = f" ({' and '.join(reasons)} left out)" if reasons else ""
        return f"{photographs} photographs at {len(self.levels)} levels{left}"

    def photographs(self) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        """The sheet's rows with their indices, grouped by photograph."""
        columns = ("name", "number", "truth", "landmarks")
        rows = enumerate(self.sheet.select(columns).to_pylist())
        for _, together in groupby(rows, key=lambda row: row[1]["number"]):
            yield list(together)


def place_photographs(
    faces: Sequence[FaceAddress], seed: int, levels: Sequence[str], around: str
) -> PhotographSet:
    """The set of these photographs below `around`, written or not.

    The name of its folder contains a digest of everything that affects its pictures.
    """
    middles = {level: middle and asdict(middle) for level in levels for middle in (LEVELS[level],)}
    inputs = {"grid": "real", "version": VERSION, "seed": seed, "levels": middles}
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for face in faces:
        digest.update(f"{store.name_of(face.shard)} {face.offset} {face.length}\n".encode())
    return PhotographSet(store.join(around, f"real-{digest.hexdigest()[:12]}"), seed, tuple(levels))


def write_photographs(found: PhotographSet, faces: Sequence[FaceAddress]) -> None:
    """Write a set unless it exists. Raises SampleError where no photograph has a face."""
    if found.is_whole:
        return

    def written(number: int, detector: CenterFace) -> list[dict[str, Any]] | str:
        return _write_photograph(found, number, faces[number], detector)

    parts = for_each(faces, written)
    left_out = {reason: parts.count(reason) for reason in (NO_FACE, UNREADABLE)}
    rows = [row for part in parts if not isinstance(part, str) for row in part]
    if not rows:
        raise SampleError(
            f"expected photographs with faces; of {len(faces)}, {left_out[NO_FACE]} have none and "
            f"{left_out[UNREADABLE]} cannot be read"
        )
    metadata = {LEFT_OUT: json.dumps(left_out).encode()}
    found.finish(pa.Table.from_pylist(rows, SHEET).replace_schema_metadata(metadata))


def for_each(faces: Sequence[FaceAddress], work: Callable[[int, CenterFace], R]) -> list[R]:
    """The results of `work` for the number of every picture, in order; each thread has a detector of its own.

    Prints how many are done, where it takes long.
    """
    kept = threading.local()

    def done(number: int) -> R:
        if not hasattr(kept, "detector"):
            kept.detector = CenterFace()
        return work(number, kept.detector)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        return counted(pool.map(done, range(len(faces))), "making the set", len(faces), "pictures")


def _write_photograph(
    found: PhotographSet, number: int, face: FaceAddress, detector: CenterFace
) -> list[dict[str, Any]] | str:
    """Write one photograph and its damaged copies. Returns its rows of the sheet, or why it is left out."""
    try:
        clean = images.decode(face.read(), MOST_PIXELS).rgb
    except images.ImageError:
        return UNREADABLE
    measured = measured_face(clean, detector)
    if measured is None:
        return NO_FACE
    truth = f"{number:06d}"
    store.write_bytes(store.join(found.truth, f"{truth}.png"), images.encode_png(clean))
    common = {
        "number": number,
        "truth": truth,
        "shard": store.name_of(face.shard),
        "member": face.member,
        "offset": face.offset,
        "box": list(measured.box),
        "landmarks": measured.landmarks.astype(float).ravel().tolist(),
    }
    rows = []
    for level in found.levels:
        picture, how = damaged(clean, found.seed, number, level)
        name = f"{truth}-{level}"
        store.write_bytes(store.join(found.degraded, f"{name}.png"), images.encode_png(picture))
        rows.append({"name": name, "level": level} | common | how)
    return rows


def damaged(clean: Pixels, seed: int, number: int, level: str) -> tuple[Pixels, dict[str, Any]]:
    """Picture `number` of a set at a level, and its damage by the sheet's columns."""
    middle = LEVELS[level]
    if middle is None:
        return clean, {}
    rng = generator(seed, number, level)
    how = draw_damage(middle, rng)
    return damage(clean, how, rng), asdict(how)


def measured_face(picture: Pixels, detector: CenterFace) -> Face | None:
    """The face that is measured: the nearest to the picture's centre of those not much smaller than the largest.

    None without a face of sufficient size.
    """
    height, width = picture.shape[:2]
    found = [f for f in select_faces(detector(picture), Selection()) if _is_measurable(f, height, width)]
    if not found:
        return None
    sizes = [float(np.prod(box_size(f))) ** 0.5 for f in found]
    large = [f for f, size in zip(found, sizes, strict=True) if size >= LEAST_SHARE * max(sizes)]
    middle = np.array([width, height]) / 2
    # of several at the same distance the first, which is the largest
    return min(large, key=lambda f: float(np.hypot(*(np.reshape(f.box, (2, 2)).mean(axis=0) - middle))))


def _is_measurable(face: Face, height: int, width: int) -> bool:
    try:
        x0, y0, x1, y1 = head_box(face.landmarks, height, width)
    except UnusableLandmarks:
        return False
    return min(x1 - x0, y1 - y0) >= LEAST_BOX


def head_box(landmarks: NDArray[np.floating], height: int, width: int) -> Box:
    """The upright box x0, y0, x1, y1 (ends excluded) around head and chin of a face, from its landmarks, [5, 2].

    The bounding box of the frame HEAD, clipped to the picture. Raises UnusableLandmarks.
    """
    to_crop = face_to_crop(landmarks, HEAD)
    ends = (-0.5, HEAD.side - 0.5)
    corners = np.array([(x, y) for y in ends for x in ends]) - to_crop[:, 2]
    reached = corners @ np.linalg.inv(to_crop[:, :2]).T
    (x0, y0), (x1, y1) = np.floor(reached.min(axis=0) + 0.5), np.ceil(reached.max(axis=0) + 0.5)
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)
