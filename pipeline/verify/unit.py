"""One unit of an output read again: its marker, every object the marker names, and the records in it."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.io import layout, store
from pipeline.io.images import is_image_name
from pipeline.io.tables import read_table
from pipeline.io.units import Unit
from pipeline.ledger.delivered import (
    UNREADABLE,
    Hashed,
    is_held,
    parquet_pictures,
    tar_pictures,
    wrong_picture,
)
from pipeline.ledger.findings import Finding, Kind, redoable
from pipeline.ledger.output import BROKEN, Run
from pipeline.records.marker import Marker, Output
from pipeline.records.rows import OUTCOMES, Counts
from pipeline.stages.publish import NOT_DELIVERED
from pipeline.stages.record import ADDED_LATER, SCHEMA, storable

# A record table by image: the image's row, then those of its faces.
Rows = list[list[dict[str, Any]]]


@dataclass(frozen=True, order=True)
class Candidate:
    """A restored picture that may be restored again. The order is that of the draw."""

    draw: str
    # the unit with this one image
    unit: Unit = field(compare=False)
    # number of the image among those that the unit's shard holds
    place: int = field(compare=False)
    # the image's row of the records, then its faces'
    rows: list[dict[str, Any]] = field(compare=False)
    # device type of the run; empty where the marker does not say
    device: str = field(compare=False)


@dataclass
class UnitAudit:
    """What one unit, or a shard whose units are not known, turned out to be."""

    name: str
    images: int = 0
    counts: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)
    finished: bool = False
    objects: int = 0
    bytes: int = 0
    # hashes of the paths that are accounted for
    named: list[int] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)


def audit_unit(run: Run, unit: Unit, marked: bool, sample: int = 0, seed: str = "") -> UnitAudit:
    """Compare everything a unit left behind with its marker, its records and the plan."""
    audited = UnitAudit(unit.name, len(unit.images))
    if marked:
        _Reading(run, unit, audited).read(sample, seed)
    if not audited.finished or audited.findings:
        # an object of a unit that is to be done again is no stray
        audited.named += [hash(path) for path in unit.paths]
    return audited


class _Reading:
    """One unit being read."""

    def __init__(self, run: Run, unit: Unit, audited: UnitAudit) -> None:
        self._run, self._unit, self._audited = run, unit, audited
        self._places = {layout.image_path(a.member): place for place, a in enumerate(unit.images)}

    def read(self, sample: int, seed: str) -> None:
        unit, audited = self._unit, self._audited
        try:
            marker = Marker.from_json(store.read_bytes(store.join(self._run.output, unit.marker_path)))
            wrong = next(wrong_marker(unit, marker), "")
            if not wrong and (marker.checksum == "broken" or (unit.run and marker.checksum == "none")):
                wrong = "what the run wrote was wanted, its checksum does not fit what is there"
        except BROKEN as error:
            wrong = f"a whole marker was wanted, it can not be read ({type(error).__name__}: {error})"
        if wrong:
            self._found("marker", unit.marker_path, wrong)
            return
        audited.finished = True
        audited.counts = marker.counts
        audited.named += [hash(unit.marker_path), *(hash(path) for path in marker.sha256)]
        objects = {output.path: output for output in marker.outputs}
        rows = self._records(objects.pop(unit.records_path), marker)
        if rows is not None and unit.kind == "folder":
            self._all_delivered(rows, objects)
        for written in objects.values():
            if written.path == unit.shard_path:
                self._shard(written, rows)
            else:
                self._object(written, rows)
        if rows is not None and not audited.findings:
            done = replace(unit, attempts=marker.attempts)
            audited.candidates = _draw(done, rows, marker.device, sample, seed)

    def _found(self, kind: Kind, where: str, what: str) -> None:
        self._audited.findings.append(redoable(kind, where, what, self._unit.marker_path))

    def _can_not_read(self, path: str, error: Exception) -> None:
        if not isinstance(error, store.StoreError) or store.exists(store.join(self._run.output, path)):
            self._found("unreadable", path, f"an object was wanted, it can not be read ({error})")
        else:
            self._found("missing", path, "an object that the marker names was wanted, it is not there")

    def _same(self, written: Output, size: int, sha256: str) -> bool:
        """Whether these are the size and digest that the marker names."""
        self._audited.objects += 1
        self._audited.bytes += size
        if (size, sha256) == (written.size, written.sha256):
            return True
        self._found(
            "altered",
            written.path,
            f"{written.size} bytes with sha256 {written.sha256[:16]} were wanted, "
            f"{size} bytes with {sha256[:16]} are there",
        )
        return False

    def _read(self, written: Output) -> bytes | None:
        """The object's bytes where they are what was written."""
        try:
            data = store.read_bytes(store.join(self._run.output, written.path))
        except store.StoreError as error:
            self._can_not_read(written.path, error)
            return None
        return data if self._same(written, len(data), hashlib.sha256(data).hexdigest()) else None

    def _records(self, written: Output, marker: Marker) -> Rows | None:
        """The record table by image, where it is whole and agrees with everything else."""
        data = self._read(written)
        if data is None:
            return None
        try:
            table = read_table(data)
        except UNREADABLE as error:
            self._found("records", written.path, f"a record table was wanted, it does not open ({error})")
            return None
        wanted = [name for name in SCHEMA.names if name not in ADDED_LATER]
        missing = [name for name in wanted if name not in table.schema.names]
        if missing:
            self._found(
                "records", written.path, f"columns {', '.join(missing)} were wanted and are not there"
            )
            return None
        rows = _by_image(table.to_pylist())
        wrong = next(wrong_records(self._unit, rows, marker, self._run.settings), "")
        if wrong:
            self._found("records", written.path, wrong)
            return None
        return rows

    def _all_delivered(self, rows: Rows, objects: Mapping[str, Output]) -> None:
        for address, (image, *_) in zip(self._unit.images, rows, strict=True):
            path = layout.image_path(address.member)
            if path not in objects and image["reason"] not in NOT_DELIVERED:
                what = f"{path} was wanted among its outputs, as it is recorded as {image['outcome']}"
                self._found("marker", self._unit.marker_path, f"{what}, and is not there")

    def _object(self, written: Output, rows: Rows | None) -> None:
        """A picture by itself, or one of the extras."""
        path = written.path
        data = self._read(written)
        if data is None:
            return
        record = {"outcome": "restored"} if is_image_name(path) else {}
        if path.startswith(f"{layout.IMAGES}/"):
            record = self._run.as_delivered(rows[self._places[path]][0]) if rows else {}
        wrong = wrong_picture(record, data, self._run.max_pixels) if record else ""
        if wrong:
            self._found("picture", path, wrong)

    def _shard(self, written: Output, rows: Rows | None) -> None:
        """A tar is read once, front to back; a Parquet file as a whole."""
        path = written.path
        wrong: list[str] = []
        if self._unit.kind == "parquet":
            data = self._read(written)
            if data is not None:
                wrong = self._wrong_pictures(parquet_pictures(data, self._run.image_column), rows)
        else:
            try:
                with store.open_read(store.join(self._run.output, path)) as source:
                    hashed = Hashed(source)
                    wrong = self._wrong_pictures(tar_pictures(hashed), rows)
                    if not self._same(written, *hashed.drain()):
                        return
            except (store.StoreError, OSError) as error:
                self._can_not_read(path, error)
                return
        for what in wrong:
            self._found("picture", path, what)

    def _wrong_pictures(self, pictures: Iterator[tuple[str, bytes]], rows: Rows | None) -> list[str]:
        """What is wrong with the pictures of a shard, a text for each."""
        wrong = []
        held = [p for p, a in enumerate(self._unit.images) if not rows or is_held(a, rows[p][0])]
        wanted = [self._unit.images[p].member for p in held]
        if self._unit.kind == "parquet":
            wanted = [str(place) for place in range(len(wanted))]
        number = 0
        try:
            for number, (name, data) in enumerate(pictures, start=1):
                if number > len(wanted) or name != wanted[number - 1]:
                    return [
                        f"the pictures of the plan were wanted in their order, {storable(name)} is number {number}"
                    ]
                record = self._run.as_delivered(rows[held[number - 1]][0]) if rows else {}
                what = wrong_picture(record, data, self._run.max_pixels) if record else ""
                wrong += [f"{storable(name)}: {what}"] if what else []
        except UNREADABLE as error:
            return [f"a whole {self._unit.kind} shard was wanted, it does not open ({error})"]
        # a slice of which nothing can be read is delivered without rows
        lost = self._unit.kind == "parquet" and rows and all(r[0]["reason"] == "unreadable" for r in rows)
        if number != len(wanted) and not (lost and not number):
            return [f"{len(wanted)} pictures were wanted, {number} are there"]
        return wrong


def wrong_marker(unit: Unit, marker: Marker) -> Iterator[str]:
    """In what a marker is not one of this unit; a later answer is only right where there was none before."""
    if marker.run != unit.run:
        yield "a marker of this run was wanted, that of another one is there"
    wanted = {"unit": unit.name, "shard": unit.shard, "part": unit.part, "last": unit.last}
    given = {name: getattr(marker, name) for name in wanted} | {"images": marker.counts.images}
    for name, value in (wanted | {"images": len(unit.images)}).items():
        if given[name] != value:
            yield f"{name} {value} was wanted, as the plan says, {given[name]} is there"
    counts = marker.counts
    if set(counts.outcomes) != set(OUTCOMES) or not all(
        isinstance(n, int) for n in (counts.faces, *counts.outcomes.values())
    ):
        yield f"counts of faces and of {', '.join(OUTCOMES)} were wanted, others are there"
    if not isinstance(marker.attempts, int):
        yield f"a number of attempts was wanted, {marker.attempts!r} is there"
    if not counts.accounted:
        yield f"one outcome for each of {counts.images} images was wanted, {sum(counts.outcomes.values())} are there"
    yield from _wrong_outputs(unit, marker)


def _wrong_outputs(unit: Unit, marker: Marker) -> Iterator[str]:
    """In what the outputs that a marker names are not those of its unit."""
    paths = [o.path for o in marker.outputs if isinstance(o.size, int) and len(o.sha256) == 64]
    possible, faces = set(unit.paths), f"{unit.faces_folder}/"
    others = [p for p in paths if p not in possible and not (p.startswith(faces) and ".." not in p)]
    # a shard that could not be read any more when its pictures were pasted is not delivered
    shard = unit.kind != "folder" and marker.counts.outcomes["failed"] < marker.counts.images
    needed = [unit.records_path, *([unit.shard_path] if shard else [])]
    lacking = [p for p in needed if p not in paths]
    if others:
        yield f"outputs of this unit were wanted, {storable(others[0])} is not one"
    if lacking:
        yield f"{lacking[0]} was wanted among its outputs and is not there"
    if len(set(paths)) != len(marker.outputs):
        yield "outputs with size and sha256, each once, were wanted, others are there"


def wrong_records(unit: Unit, rows: Rows, marker: Marker, settings: Mapping[str, Any]) -> Iterator[str]:
    """In what a unit's records disagree with the plan, the marker or the settings; read as `wrong_marker`."""
    if [[r["kind"] for r in image] for image in rows] != [
        ["image"] + ["face"] * (len(image) - 1) for image in rows
    ]:
        yield "a row for each image and then its faces were wanted, other rows are there"
    wanted, members = [storable(a.member) for a in unit.images], [image[0]["member"] for image in rows]
    if wanted != members:
        yield f"the {len(wanted)} images of the plan were wanted in their order, {_first_other(wanted, members)}"
    if {r["unit"] for image in rows for r in image} - {unit.name}:
        yield f"rows of unit {unit.name} were wanted, others are there"
    attempts = {image[0]["attempts"] for image in rows} - {marker.attempts}
    if attempts:
        yield f"images of attempt {marker.attempts} were wanted, as the marker says, one is of {attempts.pop()}"
    outcomes = Counter(image[0]["outcome"] for image in rows)
    counted = {name: number for name, number in marker.counts.outcomes.items() if number}
    if dict(outcomes) != counted:
        yield (
            f"the outcomes of the marker were wanted ({_told(counted)}), others are there ({_told(outcomes)})"
        )
    faces = [r for image in rows for r in image[1:]]
    if len(faces) != marker.counts.faces:
        yield f"{marker.counts.faces} faces were wanted, as the marker says, {len(faces)} are there"
    for name, value in settings.items():
        other = [r[name] for r in faces if r[name] != value and not r["kept"] and not r["error"]]
        if other:
            yield f"faces with the run's {name} {value} were wanted, one has {other[0]}"


def _told(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items())) or "none"


def _first_other(wanted: Sequence[str], there: Sequence[str]) -> str:
    for number, (a, b) in enumerate(zip(wanted, there, strict=False), start=1):
        if a != b:
            return f"number {number} is {b} and not {a}"
    return f"{len(there)} are there"


def _by_image(rows: list[dict[str, Any]]) -> Rows:
    """The rows in groups that each begin with an image's."""
    groups: Rows = []
    for row in rows:
        if row["kind"] == "image" or not groups:
            groups.append([])
        groups[-1].append(row)
    return groups


def _draw(unit: Unit, rows: Rows, device: str, most: int, seed: str) -> list[Candidate]:
    """The unit's restored pictures that come first in the order of the draw."""
    found = []
    for place, (address, image) in enumerate(zip(unit.images, rows, strict=True)):
        if most and image[0]["outcome"] == "restored":
            draw = hashlib.sha256(f"{seed}\0{unit.name}\0{place}".encode()).hexdigest()
            # number among the pictures that the delivered shard holds
            number = sum(is_held(a, r[0]) for a, r in zip(unit.images[:place], rows, strict=False))
            found.append(Candidate(draw, replace(unit, images=(address,)), number, image, device))
    return heapq.nsmallest(most, found)
