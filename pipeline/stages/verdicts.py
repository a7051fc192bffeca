"""The verdicts on a unit that is done again, and the pictures of it that stay as they were delivered.

A verdict is on one face, and a unit may have thousands of others. Pictures without a new verdict are carried over from
what the unit delivered before, records and all: their bytes stay, and no network sees them again. Whatever of that is
not intact is restored again instead, to the same result.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io import layout, store
from pipeline.io.delivered import UNREADABLE, delivered_name, is_held, parquet_pictures, tar_pictures
from pipeline.io.tables import read_table
from pipeline.io.units import Address, Unit
from pipeline.records.marker import Marker, Output, environment_text
from pipeline.records.rows import FEATURES_LENGTH, FaceRecord, ImageRecord, with_crops
from pipeline.records.verdicts import (
    Verdict,
    deciding,
    digest,
    digest_by_place,
    last_by_face,
    read_verdicts,
)
from pipeline.stages.record import by_image, records_of


@dataclass(frozen=True)
class UnitVerdicts:
    """What people said of a unit's faces."""

    # all of it, by face and time
    history: tuple[Verdict, ...] = ()
    # sha256 of the originals of pictures that stay as they were delivered, by place
    carried: Mapping[int, str] = field(default_factory=dict)

    def deciding(self, place: int, face: int) -> Verdict | None:
        """The verdict that decides the pixels of a face."""
        return deciding(self.history).get((place, face))

    def note(self, faces: Sequence[FaceRecord]) -> None:
        """Put the last verdict on each face into its record, and the settings of its redo."""
        last, decided = last_by_face(self.history), deciding(self.history)
        for face in faces:
            if (found := last.get((face.image, face.face))) is not None:
                face.note(found, decided.get((face.image, face.face)))

    @property
    def digest(self) -> str:
        return digest(self.history)

    @property
    def digest_by_place(self) -> dict[str, str]:
        """Of what decides the pixels of each picture."""
        return digest_by_place(self.history)

    def of(self, place: int) -> "UnitVerdicts":
        """Those on one picture, as the only one of a unit."""
        return UnitVerdicts(tuple(replace(v, place=0) for v in self.history if (v.place or 0) == place))

    def to_json(self) -> str:
        return json.dumps({"history": [v.to_values() for v in self.history], "carried": dict(self.carried)})

    @classmethod
    def from_json(cls, text: str | None) -> "UnitVerdicts":
        """Of a row's column; without one there are none."""
        values = json.loads(text or '{"history": [], "carried": {}}')
        history = tuple(Verdict.from_values(v) for v in values["history"])
        return cls(history, {int(place): sha256 for place, sha256 in values["carried"].items()})


def load_verdicts(output: str, unit: str) -> tuple[Verdict, ...]:
    """What the ledger keeps of a unit's verdicts. Raises StoreError, or BadVerdicts for a damaged file."""
    uri = store.join(output, layout.verdicts_path(unit))
    return tuple(read_verdicts(store.read_bytes(uri))) if store.exists(uri) else ()


def verdicts_of(output: str, unit: Unit) -> UnitVerdicts:
    """The verdicts on a unit that is begun again, with what of it can be carried over."""
    history = load_verdicts(output, unit.name)
    if not history:
        return UnitVerdicts()
    return UnitVerdicts(history, _intact(output, unit, digest_by_place(history)))


def _intact(output: str, unit: Unit, wanted: Mapping[str, str]) -> dict[int, str]:
    """sha256 of the originals, by place, of the pictures that were delivered with the very verdicts that are wanted."""
    with suppress(*UNREADABLE, store.StoreError, KeyError, TypeError, AttributeError):
        marker = Marker.from_json(store.read_bytes(store.join(output, unit.marker_path)))
        if marker.run != unit.run or marker.checksum == "broken":
            return {}
        rows = _rows(output, unit, marker)
        whole = unit.kind == "folder" or _is_intact(output, unit.shard_path, marker)
        return {
            place: rows[place][0]["sha256"]
            for place, address in enumerate(unit.images)
            if whole
            and marker.verdicts_by_place.get(str(place)) == wanted.get(str(place))
            and rows[place][0]["outcome"] != "failed"
            and (
                unit.kind != "folder"
                or (address.is_path and _is_intact(output, _path_of(address, rows[place][0]), marker))
            )
        }
    return {}


def _path_of(address: Address, record: Mapping[str, Any]) -> str:
    """Where a picture of a folder was delivered."""
    return layout.image_path(delivered_name(address.member, record))


def _is_intact(output: str, path: str, marker: Marker) -> bool:
    """Whether a delivered object is what the marker says."""
    wanted = marker.sha256.get(path)
    return wanted is not None and wanted == _sha256(output, path)


def _sha256(output: str, path: str) -> str:
    return hashlib.sha256(store.read_bytes(store.join(output, path))).hexdigest()


def _rows(output: str, unit: Unit, marker: Marker) -> list[list[dict[str, Any]]]:
    """The unit's records as they were written, by image. Raises ValueError where they are others."""
    data = store.read_bytes(store.join(output, unit.records_path))
    if hashlib.sha256(data).hexdigest() != marker.sha256.get(unit.records_path):
        raise ValueError(f"{unit.records_path} is not what its marker says")
    rows = by_image(read_table(data).to_pylist())
    if len(rows) != len(unit.images):
        raise ValueError(f"{unit.records_path} is of {len(rows)} images, its unit has {len(unit.images)}")
    return rows


@dataclass(frozen=True)
class Carried:
    """What a unit that is done again keeps of what it delivered before."""

    marker: Marker
    images: Mapping[int, ImageRecord]
    faces: Mapping[int, list[FaceRecord]]
    # columns of vectors by face
    features: Mapping[tuple[int, int], Mapping[str, list[float]]]
    # of every image of the unit, why it was not restored
    reasons: Sequence[str]

    @classmethod
    def read(
        cls, output: str, unit: Unit, places: Sequence[int], marker: Marker, measured: Sequence[str]
    ) -> "Carried":
        """Raises StoreError where the records are not what the marker says any more."""
        try:
            rows = _rows(output, unit, marker)
        except UNREADABLE as error:
            raise store.StoreError(f"{unit.name}: what it delivered before changed meanwhile") from error
        images: dict[int, ImageRecord] = {}
        faces: dict[int, list[FaceRecord]] = {}
        features: dict[tuple[int, int], dict[str, list[float]]] = {}
        for place in places:
            found = records_of(rows[place], place, unit.images[place].member, measured)
            images[place], faces[place] = found.image, found.faces
            features |= {(place, number): vectors for number, vectors in found.features.items()}
        return cls(marker, images, faces, features, [image["reason"] for image, *_ in rows])

    def pictures(self, output: str, unit: Unit, image_column: str) -> Iterator[tuple[int, bytes]]:
        """Place and bytes of the pictures carried over inside a delivered shard."""
        uri = store.join(output, unit.shard_path)
        pairs = enumerate(zip(unit.images, self.reasons, strict=True))
        held = [place for place, (address, reason) in pairs if is_held(address, {"reason": reason})]
        with store.open_read(uri) as source:
            found = (
                tar_pictures(source) if unit.kind == "tar" else parquet_pictures(source.read(), image_column)
            )
            for place, (_, data) in zip(held, found, strict=False):
                if place in self.images:
                    yield place, data

    def outputs(self, unit: Unit, written: Collection[str]) -> list[Output]:
        """The objects of the pictures that stay; the strip of the contact sheet, too, where none was made anew."""
        members = [unit.images[place].member for place in self.images]
        names = [*members, *(image.delivered for image in self.images.values() if image.delivered)]
        paths = {path(name) for name in names for path in (layout.image_path, layout.sidecar_path)}
        stems = tuple(
            f"{folder}/{place:04d}-"
            for place in self.images
            for folder in (unit.faces_folder, unit.tiles_folder)
        )
        return [
            output
            for output in self.marker.outputs
            if output.path not in written
            and (output.path in paths or output.path == unit.sample_path or output.path.startswith(stems))
        ]

    def with_faces(
        self, records: list[ImageRecord], faces: Sequence[FaceRecord], verdicts: UnitVerdicts
    ) -> list[FaceRecord]:
        """All faces of the unit in their order; the records of the pictures that stay take their places."""
        for place, image in self.images.items():
            records[place] = image
        kept = [face for place in self.faces for face in self.faces[place]]
        verdicts.note(kept)
        return sorted([*faces, *kept], key=lambda face: (face.image, face.face))

    def with_features(
        self, faces: Sequence[FaceRecord], features: Mapping[str, NDArray[np.float16]]
    ) -> dict[str, NDArray[np.float16]]:
        """Columns of vectors for all faces that have crops, in their order; nan where there are none."""
        fresh = {(face.image, face.face): i for i, face in enumerate(with_crops(faces))}
        kept = [face for place in self.faces for face in self.faces[place]]
        every = sorted([*fresh, *((f.image, f.face) for f in with_crops(kept))])
        joined = {}
        # where no face was restored again nothing was measured anew
        for name in {**features, **{n: None for found in self.features.values() for n in found}}:
            rows = np.full((len(every), FEATURES_LENGTH), np.nan, np.float16)
            for row, key in enumerate(every):
                if key in fresh and name in features:
                    rows[row] = features[name][fresh[key]]
                elif (vector := self.features.get(key, {}).get(name)) is not None:
                    rows[row] = vector
            joined[name] = rows
        return joined

    def with_sums(self, sums: Mapping[str, float]) -> dict[str, float]:
        """The sums with the time, slots and chains that the pictures that stay have taken."""
        before = {k: v for k, v in self.marker.sums.items() if k.startswith(("seconds_", "slot_", "chains_"))}
        return dict(sums) | {k: sums.get(k, 0.0) + v for k, v in before.items()}

    def with_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What the bits of all faces depend on; of two environments both are named, so that no other equals it."""
        before = dict(self.marker.environment)
        if not environment or before == dict(environment):
            return before or dict(environment)
        return before | {"some on": environment_text(environment)}
