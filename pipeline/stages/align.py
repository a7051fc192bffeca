"""Read a unit's pictures, find their faces, cut the aligned crops. One bad picture is a record, not an exception."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from pipeline.console.work_counts import Report, WorkCounts, ignore
from pipeline.diffusion.task import BLIND, Task, shrinking
from pipeline.faces.detect import CenterFace, Detector, Face, RetinaFace, Selection
from pipeline.faces.geometry import CropFrame, box_to_crop, crop_scale, face_to_crop, warp_crop
from pipeline.faces.pasting import paste_strength
from pipeline.faces.search import Found, search
from pipeline.faces.sharpness import sharpness
from pipeline.faces.sides import LargerSide, cut_crop
from pipeline.io import images, store
from pipeline.io.errors import message, outline
from pipeline.io.face_list import NO_FACES, FaceList
from pipeline.io.masks import Hole, fill, is_mask
from pipeline.io.readers import REFUSED, Read, Unreadable, read_unit
from pipeline.io.stop import is_stopping
from pipeline.io.units import Address, Unit
from pipeline.io.weights import DETECTOR_WEIGHTS, resolve
from pipeline.records.rows import (
    KEPT,
    LEFT_TEXTS,
    FaceRecord,
    ImageRecord,
    Row,
    dump_records,
    pack,
    with_crops,
)
from pipeline.stages.holes import holes_of
from pipeline.stages.isolate import Died, call_apart
from pipeline.stages.verdicts import UnitVerdicts

# A unit's crops travel in one column of one row; what does not fit below this is a failed image.
MOST_CROP_BYTES = 1 << 30
# Reason of a picture that no process survives.
KILLED = "killed its worker"

# A face, its crop, [S, S, 3] uint8 RGB, and of the same shape how much of each pixel is a hole, 0 to 255
FoundFace = tuple[FaceRecord, NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class DetectorChoice:
    """Which detector, with which weights."""

    name: str
    min_score: float | None
    weights_dir: str | None


@lru_cache(maxsize=2)
def load_detector(choice: DetectorChoice) -> Detector:
    """The detector, once per worker process. Weights come from the cache that the driver filled."""
    if choice.name == "centerface":
        return CenterFace(choice.min_score)
    published = DETECTOR_WEIGHTS[choice.name]
    found = resolve(published.file, published.url, published.sha256, choice.weights_dir)
    return RetinaFace(found.path, choice.name.removeprefix("retinaface-"), choice.min_score)


@dataclass(frozen=True)
class ReadAndAlign:
    """Row with `work` → row with `images`, `faces`, `crops`."""

    frame: CropFrame
    detector: DetectorChoice
    selection: Selection
    # every picture is one aligned face: as FFHQ's are, or (whole) the very crop
    aligned: bool
    whole: bool
    # share of the restoration that is pasted; None chooses for each face
    strength: float | None
    max_pixels: int
    image_column: str
    # while this object exists no further unit is begun
    stop_uri: str
    # sides of crops that some faces have instead of the frame's, rising
    larger: tuple[LargerSide, ...] = ()
    task: Task = BLIND
    # where pictures have holes, as --mask; None where none is to be filled
    mask: str | None = None
    # where true pictures are, as --truth
    truth: str | None = None
    # faces that are not touched; and those that alone are, None for all
    never: FaceList = NO_FACES
    only: FaceList | None = None
    # what pictures become that can not be written back, as --convert
    into: images.Into = "none"
    # look at each picture in a process of its own: the unit has killed workers
    careful: bool = False
    # is given what was read and found
    report: Report = ignore

    def __call__(self, row: Row) -> Row:
        if row.get("work") is None or is_stopping(self.stop_uri):
            return row
        began = time.monotonic()
        unit = Unit.from_json(row["work"])
        records: list[ImageRecord] = []
        faces: list[FaceRecord] = []
        crops: list[NDArray[np.uint8]] = []
        holes: list[NDArray[np.uint8]] = []
        look = self._picture_apart if self.careful else self._picture
        carried = UnitVerdicts.from_json(row.get("verdicts")).carried
        for place, (address, data) in enumerate(read_unit(unit, self.image_column, self.max_pixels)):
            if place in carried and carried[place] == _sha256_of(data):
                records.append(ImageRecord(address.member, carried[place], carried=True))
                continue
            record, found = look(unit, address, data)
            crops_before = len(crops)
            for number, (face, crop, hole) in enumerate(found):
                face.image, face.face = len(records), number
                faces.append(face)
                if face.has_crop:
                    crops.append(crop)
                    holes.append(hole)
            if sum(c.nbytes for c in crops) > MOST_CROP_BYTES:
                faces = [f for f in faces if f.image != len(records)]
                crops, holes = crops[: len(with_crops(faces))], holes[: len(with_crops(faces))]
                record.settle(
                    "failed", "unit too large", "align",
                    f"the unit's face crops exceed {MOST_CROP_BYTES >> 20} MiB with this picture; lower --unit-images",
                )  # fmt: skip
            records.append(record)
            self.report(WorkCounts(pictures=1, faces=len(crops) - crops_before))
        return row | {
            "images": dump_records(records),
            "faces": dump_records(faces),
            "crops": pack(crops),
            "holes": pack(holes) if self.mask else b"",
            "sums": json.dumps({"seconds_read": time.monotonic() - began}),
        }

    def _picture(self, unit: Unit, address: Address, data: Read) -> tuple[ImageRecord, list[FoundFace]]:
        """The picture's record, settled when nothing is to be restored, and its faces with their crops."""
        record = ImageRecord(address.member)
        return record, list(self._faces_of(record, unit, address, data))

    def _picture_apart(self, unit: Unit, address: Address, data: Read) -> tuple[ImageRecord, list[FoundFace]]:
        """`_picture` in a process of its own; one that it kills is a failed picture."""
        if isinstance(data, store.StoreError):
            return self._picture(unit, address, data)
        try:
            # the other process has no way to report
            alone = replace(self, report=ignore)
            return call_apart(partial(alone._picture, unit, address, data))
        except Died as error:
            record = ImageRecord(address.member, hashlib.sha256(data).hexdigest())
            record.settle("failed", KILLED, "align", f"{address.member}: {message(error)}")
            return record, []

    def _faces_of(self, record: ImageRecord, unit: Unit, address: Address, data: Read) -> Iterator[FoundFace]:
        """The picture's faces and crops; settles the record when there are none to restore."""
        try:
            if isinstance(data, store.StoreError):
                raise data
            record.sha256 = hashlib.sha256(data).hexdigest()
            if is_mask(self.mask, address.member):
                raise images.SkippedImage("a mask", f"{address.member} is the mask of another picture")
            if is_mask(self.truth, address.member):
                raise images.SkippedImage("a truth", f"{address.member} is the truth of another picture")
            picture = images.decode(data, self.max_pixels, self.into)
            record.height, record.width = picture.rgb.shape[:2]
            hole = None
            if self.mask:
                hole = holes_of(self.mask, picture, address, unit, self.max_pixels)
            cut = self._aligned if self.aligned else self._search
            found = [self._unless_named(record, n, f) for n, f in enumerate(cut(record, picture.rgb, hole))]
        except Unreadable as error:
            record.settle(REFUSED[error.reason][0], error.reason, "read", message(error), outline(error))
        except store.StoreError as error:
            record.settle("failed", "unreadable", "read", message(error), outline(error))
        except images.SkippedImage as error:
            record.settle("skipped", error.reason, "read", message(error))
        except images.ImageError as error:
            record.settle("failed", error.reason, "read", message(error), outline(error))
        except Exception as error:  # a picture that breaks a library must not take its neighbours along
            said = f"{address.member}: {message(error)}"
            record.settle("failed", type(error).__name__, "align", said, outline(error))
        else:
            if record.outcome is None and not found:
                record.settle("no_face")
            elif found and not any(face.has_crop for face, *_ in found):
                first = found[0][0]
                reason = LEFT_TEXTS[first.left_for] if first.left_for else KEPT
                record.settle("skipped", reason, "align", first.kept)
            yield from found

    def _search(
        self, record: ImageRecord, picture: NDArray[np.uint8], hole: Hole | None
    ) -> Iterator[FoundFace]:
        """Detected faces, in the order of `search`."""
        seen = picture if hole is None else fill(picture, hole)
        for found in search(load_detector(self.detector), seen, self.selection):
            if found.left:
                yield self._left(found)
            else:
                yield self._cut(seen, hole, found.face, face_to_crop(found.face.landmarks, self.frame))

    def _left(self, found: Found) -> FoundFace:
        """A face that is left before its crop is looked at; that is empty."""
        to_crop = box_to_crop(found.face.box, self.frame)
        record = _face_record(found.face, to_crop, self.frame.side)
        record.left_for = found.left
        leave(record, found.why)
        nothing = np.zeros((0, 0, 3), np.uint8)
        return record, nothing, nothing

    def _unless_named(self, record: ImageRecord, number: int, found: FoundFace) -> FoundFace:
        """The face; without its crop where it is not to be touched."""
        face, *crops = found
        never = self.never.names(record.member, number, face.box)
        if not never and (self.only is None or self.only.names(record.member, number, face.box)):
            return found
        leave(face, "it is named in --never" if never else "it is not named in --only")
        face.left_for = "named"
        crop, hole = (image[:0, :0] for image in crops)
        return face, crop, hole

    def _aligned(
        self, record: ImageRecord, picture: NDArray[np.uint8], hole: Hole | None
    ) -> Iterator[FoundFace]:
        """The one face that the whole picture shows."""
        height, width = picture.shape[:2]
        if height != width:
            message = f"{record.member}: a square aligned face was wanted, got {width}x{height}; leave out --aligned"
            record.settle("skipped", "not square", "align", message)
            return
        ratio = self.frame.side / width
        shift = (ratio - 1) / 2
        to_crop = np.array([[ratio, 0, shift], [0, ratio, shift]])
        if not self.whole:
            to_crop = self.frame.of_ffhq_picture(width)
        face = Face((0.0, 0.0, float(width), float(height)), np.zeros((5, 2), np.float32), 1.0)
        seen = picture if hole is None else fill(picture, hole)
        found, crop, hole_of_face = self._cut(seen, hole, face, to_crop)
        # it is wanted, however fine
        found.strength = 1.0 if self.strength is None else self.strength
        leave(found, self._why_not_task(found.scale, hole_of_face))
        if self.whole:
            crop = seen if width == self.frame.side else images.resize(seen, self.frame.side)
        yield found, crop, hole_of_face

    def _cut(
        self, picture: NDArray[np.uint8], hole: Hole | None, face: Face, to_crop: NDArray[np.float64]
    ) -> FoundFace:
        scale = crop_scale(to_crop)
        cut = cut_crop(picture, to_crop, self.frame, self.larger)
        crop, to_crop, side = cut.crop, cut.to_crop, cut.side
        hole_of_face = np.zeros(crop.shape, np.uint8)
        if hole is not None:
            white = np.repeat(hole[..., None] * np.uint8(255), 3, axis=2)
            hole_of_face = warp_crop(white, to_crop, side)
        strength = paste_strength(cut.crispness, scale) if self.strength is None else self.strength
        record = _face_record(face, to_crop, side)
        record.crispness, record.sharpness_before = cut.crispness, sharpness(crop)
        record.strength = strength if self.task.is_blind else 1.0
        leave(record, self._why_not_task(scale, hole_of_face))
        return record, crop, hole_of_face

    def _why_not_task(self, scale: float, hole: NDArray[np.uint8]) -> str:
        """Why the task has nothing to do with a face, in one sentence; empty when it has."""
        if self.mask and not hole.any():
            return "no hole reaches into the face"
        if self.task.name == "upscale" and not self.task.factor and shrinking(scale, self.frame.side) == 1:
            side = self.frame.side
            return (
                f"the face is not smaller than the preset's side of {side} px; say with --factor how it was"
            )
        return ""


def _sha256_of(data: Read) -> str:
    """Of a picture's bytes; empty where they could not be read."""
    return hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else ""


def _face_record(face: Face, to_crop: NDArray[np.float64], side: int) -> FaceRecord:
    """A face's record, without what its pixels say. side: its crop's, pixels."""
    return FaceRecord(
        image=-1,
        face=-1,
        box=[round(v, 3) for v in face.box],
        landmarks=[round(float(v), 3) for v in face.landmarks.ravel()],
        affine=[float(v) for v in to_crop.ravel()],
        score=round(face.score, 6),
        scale=crop_scale(to_crop),
        side=side,
    )


def leave(face: FaceRecord, why: str) -> None:
    """Leave a face as it is, before anything looks at it, for a reason in one sentence; an empty one restores it."""
    face.kept, face.has_crop, face.treatment = why, not why, "left" if why else ""
    if why:
        face.sharpness_before = 0.0  # means are over the faces that have crops
