"""Read a unit's pictures, find their faces, cut the aligned crops. One bad picture is a record, not an exception."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from pipeline import images, store
from pipeline.faces.detect import CenterFace, Detector, Face, RetinaFace, Selection, select_faces
from pipeline.faces.geometry import UnusableLandmarks, crop_scale, face_to_crop, paste_strength, warp_crop
from pipeline.metrics.sharpness import crispness, sharpness
from pipeline.records import Address, FaceRecord, ImageRecord, Row, Unit, dump_records, pack, restorable
from pipeline.stages.apart import Died, call_apart
from pipeline.stages.failure import message, outline
from pipeline.stages.read import REFUSED, Read, Unreadable, read_unit
from pipeline.stages.stop import is_stopping
from pipeline.weights import DETECTOR_WEIGHTS, resolve

# A unit's crops travel in one column of one row; what does not fit below this is a failed image.
MOST_CROP_BYTES = 1 << 30
# Reason of a picture all of whose faces are left as they are.
KEPT = "nothing to gain"
# Reason of a picture that no process survives.
KILLED = "killed its worker"

# A face and its crop, [S, S, 3] uint8 RGB
FoundFace = tuple[FaceRecord, NDArray[np.uint8]]


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

    side: int
    detector: DetectorChoice
    selection: Selection
    aligned: bool
    # crispness and scale above which a face is left as it is
    max_crispness: float | None
    max_scale: float | None
    # share of the restoration that is pasted; None chooses for each face
    strength: float | None
    max_pixels: int
    image_column: str
    # while this object exists no further unit is begun
    stop_uri: str
    # look at each picture in a process of its own: the unit has killed workers
    careful: bool = False

    def __call__(self, row: Row) -> Row:
        if row.get("work") is None or is_stopping(self.stop_uri):
            return row
        began = time.monotonic()
        unit = Unit.from_json(row["work"])
        records: list[ImageRecord] = []
        faces: list[FaceRecord] = []
        crops: list[NDArray[np.uint8]] = []
        for address, data in read_unit(unit, self.image_column, self.max_pixels):
            record, found = (
                self._picture_apart(address, data) if self.careful else self._picture(address, data)
            )
            for number, (face, crop) in enumerate(found):
                face.image, face.face = len(records), number
                faces.append(face)
                if not face.kept:
                    crops.append(crop)
            if sum(c.nbytes for c in crops) > MOST_CROP_BYTES:
                faces = [f for f in faces if f.image != len(records)]
                crops = crops[: len(restorable(faces))]
                record.settle(
                    "failed", "unit too large", "align",
                    f"the unit's face crops exceed {MOST_CROP_BYTES >> 20} MiB with this picture; lower --unit-images",
                )  # fmt: skip
            records.append(record)
        return row | {
            "images": dump_records(records),
            "faces": dump_records(faces),
            "crops": pack(crops),
            "sums": json.dumps({"seconds_read": time.monotonic() - began}),
        }

    def _picture(self, address: Address, data: Read) -> tuple[ImageRecord, list[FoundFace]]:
        """The picture's record, settled when nothing is to be restored, and its faces with their crops."""
        record = ImageRecord(address.member)
        return record, list(self._faces_of(record, address, data))

    def _picture_apart(self, address: Address, data: Read) -> tuple[ImageRecord, list[FoundFace]]:
        """`_picture` in a process of its own; one that it kills is a failed picture."""
        if isinstance(data, store.StoreError):
            return self._picture(address, data)
        try:
            return call_apart(partial(self._picture, address, data))
        except Died as error:
            record = ImageRecord(address.member, hashlib.sha256(data).hexdigest())
            record.settle("failed", KILLED, "align", f"{address.member}: {message(error)}")
            return record, []

    def _faces_of(self, record: ImageRecord, address: Address, data: Read) -> Iterator[FoundFace]:
        """The picture's faces and crops; settles the record when there are none to restore."""
        try:
            if isinstance(data, store.StoreError):
                raise data
            record.sha256 = hashlib.sha256(data).hexdigest()
            picture = images.decode(data, self.max_pixels).rgb
            record.height, record.width = picture.shape[:2]
            found = list(self._whole(record, picture) if self.aligned else self._search(picture))
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
            elif found and all(face.kept for face, _ in found):
                record.settle("skipped", KEPT, "align", found[0][0].kept)
            yield from found

    def _search(self, picture: NDArray[np.uint8]) -> Iterator[FoundFace]:
        """Detected faces, largest first."""
        faces = select_faces(load_detector(self.detector)(picture), self.selection)
        for face in faces:
            try:
                to_crop = face_to_crop(face.landmarks, self.side)
            except UnusableLandmarks:
                continue
            yield self._cut(picture, face, to_crop)

    def _whole(self, record: ImageRecord, picture: NDArray[np.uint8]) -> Iterator[FoundFace]:
        """The whole picture as the one face."""
        height, width = picture.shape[:2]
        if height != width:
            message = f"{record.member}: a square aligned face was wanted, got {width}x{height}; leave out --aligned"
            record.settle("skipped", "not square", "align", message)
            return
        ratio = self.side / width
        shift = (ratio - 1) / 2
        to_crop = np.array([[ratio, 0, shift], [0, ratio, shift]])
        face = Face((0.0, 0.0, float(width), float(height)), np.zeros((5, 2), np.float32), 1.0)
        record_of_face, _ = self._cut(picture, face, to_crop)
        # the whole picture is wanted, however fine
        record_of_face.kept, record_of_face.strength = "", 1.0 if self.strength is None else self.strength
        crop = picture if width == self.side else images.resize(picture, self.side)
        yield record_of_face, crop

    def _cut(self, picture: NDArray[np.uint8], face: Face, to_crop: NDArray[np.float64]) -> FoundFace:
        crop = warp_crop(picture, to_crop, self.side)
        crisp, scale = round(crispness(crop), 6), crop_scale(to_crop)
        record = FaceRecord(
            image=-1,
            face=-1,
            box=[round(v, 3) for v in face.box],
            landmarks=[round(float(v), 3) for v in face.landmarks.ravel()],
            affine=[float(v) for v in to_crop.ravel()],
            score=round(face.score, 6),
            scale=scale,
            crispness=crisp,
            strength=paste_strength(crisp, scale) if self.strength is None else self.strength,
            kept=self._why_kept(crisp, scale),
            sharpness_before=sharpness(crop),
        )
        return record, crop

    def _why_kept(self, crisp: float, scale: float) -> str:
        """Why a face is left as it is, in one sentence; empty when it is restored."""
        if self.max_scale is not None and scale > self.max_scale:
            return (
                f"the face is {scale:.1f} times larger than {self.side} px, above --max-scale {self.max_scale:g}; "
                "take a preset of a larger side"
            )
        if self.max_crispness is not None and crisp > self.max_crispness:
            return (
                f"the face is sharp already at {self.side} px (crispness {crisp:.2f}, above --max-crispness "
                f"{self.max_crispness:g})"
            )
        return ""
