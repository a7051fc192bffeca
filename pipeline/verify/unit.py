"""The audit of one unit: its marker, every object that the marker lists, and its records."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.io import layout, store
from pipeline.io.delivered import (
    UNREADABLE,
    Hashed,
    delivered_name,
    is_held,
    parquet_pictures,
    tar_pictures,
)
from pipeline.io.images import is_image_name
from pipeline.io.tables import read_table
from pipeline.io.units import Unit
from pipeline.ledger.delivered import wrong_picture
from pipeline.ledger.findings import Finding, Kind, redoable
from pipeline.ledger.output import BROKEN, BY_COPY, Run
from pipeline.records.marker import Marker, Output
from pipeline.records.rows import OUTCOMES, Counts
from pipeline.records.verdicts import BadVerdicts
from pipeline.stages.publish import NOT_DELIVERED
from pipeline.stages.record import ADDED_LATER, SCHEMA, by_image, storable
from pipeline.stages.verdicts import UnitVerdicts, load_verdicts

# A record table by image: the image's row, then those of its faces.
Rows = list[list[dict[str, Any]]]


@dataclass(frozen=True, order=True)
class Candidate:
    """A restored picture that may be restored again. Ordered by `draw`, a random key."""

    draw: str
    # the unit with this one image
    unit: Unit = field(compare=False)
    # index of the image in the unit's delivered shard
    place: int = field(compare=False)
    # the image's record, then those of its faces
    rows: list[dict[str, Any]] = field(compare=False)
    # device type of the run, and its environment (networks/environment.py); empty where the marker has none
    device: str = field(compare=False)
    environment: Mapping[str, str] = field(compare=False)
    # on its faces
    verdicts: UnitVerdicts = field(compare=False, default=UnitVerdicts())


@dataclass
class UnitAudit:
    """The result for one unit, or for a shard whose units are unknown."""

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
    """Compare everything that a unit wrote with its marker, its records and the plan."""
    audited = UnitAudit(unit.name, len(unit.images))
    if marked:
        _Reading(run, unit, audited).read(sample, seed)
    if not audited.finished or audited.findings:
        # objects of a unit that will be redone are not stray
        audited.named += [hash(path) for path in unit.paths]
    return audited


class _Reading:
    """Reads one unit into its UnitAudit."""

    def __init__(self, run: Run, unit: Unit, audited: UnitAudit) -> None:
        self._run, self._unit, self._audited = run, unit, audited
        # the names under which the unit's images are delivered, and the places of these by path
        self._names: list[str] = []
        self._places: dict[str, int] = {}

    def read(self, sample: int, seed: str) -> None:
        unit, audited = self._unit, self._audited
        try:
            marker = Marker.from_json(store.read_bytes(store.join(self._run.output, unit.marker_path)))
            wrong = next(wrong_marker(unit, marker), "")
            if not wrong and (marker.checksum == "broken" or (unit.run and marker.checksum == "none")):
                wrong = "its checksum does not match its contents"
        except BROKEN as error:
            wrong = f"expected a complete marker, it cannot be read ({type(error).__name__}: {error})"
        if wrong:
            self._found("marker", unit.marker_path, wrong)
            return
        audited.finished = True
        verdicts = self._verdicts(marker)
        audited.counts = marker.counts
        audited.named += [hash(unit.marker_path), *(hash(path) for path in marker.sha256)]
        objects = {output.path: output for output in marker.outputs}
        rows = self._records(objects.pop(unit.records_path), marker)
        self._names = [a.member for a in unit.images]
        if rows is not None:
            self._names = [delivered_name(a.member, r[0]) for a, r in zip(unit.images, rows, strict=True)]
        self._places = {layout.image_path(name): place for place, name in enumerate(self._names)}
        if rows is not None and unit.kind == "folder":
            self._all_delivered(rows, objects)
        for written in objects.values():
            if written.path == unit.shard_path:
                self._shard(written, rows)
            else:
                self._object(written, rows)
        if rows is not None and not audited.findings:
            done = replace(unit, attempts=marker.attempts)
            audited.candidates = _draw(done, rows, marker, sample, seed, verdicts)

    def _verdicts(self, marker: Marker) -> UnitVerdicts:
        """The verdicts that the unit was done with; a finding where the ledger keeps others."""
        path = layout.verdicts_path(self._unit.name)
        try:
            found = UnitVerdicts(load_verdicts(self._run.output, self._unit.name))
        except (BadVerdicts, *BROKEN) as error:
            what = f"{path}: the verdicts on the unit's faces were expected, they cannot be read ({error}); {BY_COPY}"
            self._audited.findings.append(Finding("marker", path, what))
            return UnitVerdicts()
        if found.digest != marker.verdicts:
            gone = "; put them back from a copy" if not found.history else ""
            what = f"{path}: verdicts are not carried out{gone}; give them with --verdicts to the same restore command"
            self._audited.findings.append(Finding("unfinished" if not gone else "marker", path, what))
        return found

    def _found(self, kind: Kind, where: str, what: str) -> None:
        self._audited.findings.append(redoable(kind, where, what, self._unit.marker_path))

    def _unreadable(self, path: str, error: Exception) -> None:
        if not isinstance(error, store.StoreError) or store.exists(store.join(self._run.output, path)):
            self._found("unreadable", path, f"the object cannot be read ({error})")
        else:
            self._found("missing", path, "the marker lists this object, it does not exist")

    def _same(self, written: Output, size: int, sha256: str) -> bool:
        """Whether size and digest match the marker."""
        self._audited.objects += 1
        self._audited.bytes += size
        if (size, sha256) == (written.size, written.sha256):
            return True
        self._found(
            "altered",
            written.path,
            f"expected {written.size} bytes with sha256 {written.sha256[:16]}, "
            f"found {size} bytes with {sha256[:16]}",
        )
        return False

    def _read(self, written: Output) -> bytes | None:
        """The object's bytes; None where they differ from what was written."""
        try:
            data = store.read_bytes(store.join(self._run.output, written.path))
        except store.StoreError as error:
            self._unreadable(written.path, error)
            return None
        return data if self._same(written, len(data), hashlib.sha256(data).hexdigest()) else None

    def _records(self, written: Output, marker: Marker) -> Rows | None:
        """The record table by image; None where it has findings."""
        data = self._read(written)
        if data is None:
            return None
        try:
            table = read_table(data)
        except UNREADABLE as error:
            self._found("records", written.path, f"expected a record table, it does not open ({error})")
            return None
        wanted = [name for name in SCHEMA.names if name not in ADDED_LATER]
        missing = [name for name in wanted if name not in table.schema.names]
        if missing:
            self._found("records", written.path, f"columns {', '.join(missing)} are missing")
            return None
        rows = by_image(table.to_pylist())
        wrong = next(wrong_records(self._unit, rows, marker, self._run.settings), "")
        if wrong:
            self._found("records", written.path, wrong)
            return None
        return rows

    def _all_delivered(self, rows: Rows, objects: Mapping[str, Output]) -> None:
        for name, (image, *_) in zip(self._names, rows, strict=True):
            path = layout.image_path(name)
            if path not in objects and image["reason"] not in NOT_DELIVERED:
                what = f"{path} is recorded as {image['outcome']} and is not among its outputs"
                self._found("marker", self._unit.marker_path, what)

    def _object(self, written: Output, rows: Rows | None) -> None:
        """A picture in a file of its own, or an extra output."""
        path = written.path
        data = self._read(written)
        if data is None:
            return
        record = {"outcome": "restored"} if is_image_name(path) else {}
        if path in self._places:
            record = self._run.as_delivered(rows[self._places[path]][0]) if rows else {}
        wrong = wrong_picture(record, data, self._run.max_pixels) if record else ""
        if wrong:
            self._found("picture", path, wrong)

    def _shard(self, written: Output, rows: Rows | None) -> None:
        """The delivered shard: a tar is streamed once, a Parquet file is read as a whole."""
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
                self._unreadable(path, error)
                return
        for what in wrong:
            self._found("picture", path, what)

    def _wrong_pictures(self, pictures: Iterator[tuple[str, bytes]], rows: Rows | None) -> list[str]:
        """The faults of the pictures of a shard, as texts."""
        wrong = []
        held = [p for p, a in enumerate(self._unit.images) if not rows or is_held(a, rows[p][0])]
        wanted = [self._names[p] for p in held]
        if self._unit.kind == "parquet":
            wanted = [str(place) for place in range(len(wanted))]
        number = 0
        try:
            for number, (name, data) in enumerate(pictures, start=1):
                if number > len(wanted) or name != wanted[number - 1]:
                    return [f"expected the pictures in the plan's order, number {number} is {storable(name)}"]
                record = self._run.as_delivered(rows[held[number - 1]][0]) if rows else {}
                what = wrong_picture(record, data, self._run.max_pixels) if record else ""
                wrong += [f"{storable(name)}: {what}"] if what else []
        except UNREADABLE as error:
            return [f"expected a complete {self._unit.kind} shard, it does not open ({error})"]
        # a slice without any readable picture is delivered without rows
        lost = self._unit.kind == "parquet" and rows and all(r[0]["reason"] == "unreadable" for r in rows)
        if number != len(wanted) and not (lost and not number):
            return [f"expected {len(wanted)} pictures, found {number}"]
        return wrong


def wrong_marker(unit: Unit, marker: Marker) -> Iterator[str]:
    """Faults of a marker of this unit. Later checks rely on earlier ones: only the first fault is reliable."""
    if marker.run != unit.run:
        yield "expected a marker of this run, found one of another run"
    wanted = {"unit": unit.name, "shard": unit.shard, "part": unit.part, "last": unit.last}
    found = {name: getattr(marker, name) for name in wanted} | {"images": marker.counts.images}
    for name, value in (wanted | {"images": len(unit.images)}).items():
        if found[name] != value:
            yield f"expected {name} {value}, as in the plan, found {found[name]}"
    counts = marker.counts
    if set(counts.outcomes) != set(OUTCOMES) or not all(
        isinstance(n, int) for n in (counts.faces, *counts.outcomes.values())
    ):
        yield f"expected counts of faces and of {', '.join(OUTCOMES)}, found others"
    if not isinstance(marker.attempts, int):
        yield f"expected a number of attempts, found {marker.attempts!r}"
    if not counts.accounted:
        yield f"expected one outcome for each of {counts.images} images, found {sum(counts.outcomes.values())}"
    yield from _wrong_outputs(unit, marker)


def _wrong_outputs(unit: Unit, marker: Marker) -> Iterator[str]:
    """Faults of the outputs that a marker lists."""
    paths = [o.path for o in marker.outputs if isinstance(o.size, int) and len(o.sha256) == 64]
    possible, folders = set(unit.paths), (f"{unit.faces_folder}/", f"{unit.tiles_folder}/")
    unexpected = [p for p in paths if p not in possible and not (p.startswith(folders) and ".." not in p)]
    # a shard that became unreadable before its pictures were pasted is not delivered
    shard = unit.kind != "folder" and marker.counts.outcomes["failed"] < marker.counts.images
    required = [unit.records_path, *([unit.shard_path] if shard else [])]
    missing = [p for p in required if p not in paths]
    if unexpected:
        yield f"{storable(unexpected[0])} is not an output of this unit"
    if missing:
        yield f"{missing[0]} is missing among its outputs"
    if len(set(paths)) != len(marker.outputs):
        yield "expected each output once, with size and sha256"


def wrong_records(unit: Unit, rows: Rows, marker: Marker, settings: Mapping[str, Any]) -> Iterator[str]:
    """Faults of a unit's records against the plan, the marker and the settings; ordered as in `wrong_marker`."""
    if [[r["kind"] for r in image] for image in rows] != [
        ["image"] + ["face"] * (len(image) - 1) for image in rows
    ]:
        yield "expected a row for each image followed by its faces, found other rows"
    wanted, members = [storable(a.member) for a in unit.images], [image[0]["member"] for image in rows]
    if wanted != members:
        yield f"expected the {len(wanted)} images in the plan's order, {_first_difference(wanted, members)}"
    if {r["unit"] for image in rows for r in image} - {unit.name}:
        yield f"expected rows of unit {unit.name}, found others"
    attempts = {image[0]["attempts"] for image in rows} - {marker.attempts}
    if attempts:
        yield f"expected images of attempt {marker.attempts}, as in the marker, found {attempts.pop()}"
    outcomes = Counter(image[0]["outcome"] for image in rows)
    counted = {name: number for name, number in marker.counts.outcomes.items() if number}
    if dict(outcomes) != counted:
        yield (f"expected the outcomes of the marker ({_as_text(counted)}), found {_as_text(outcomes)}")
    faces = [r for image in rows for r in image[1:]]
    if len(faces) != marker.counts.faces:
        yield f"expected {marker.counts.faces} faces, as in the marker, found {len(faces)}"
    for name, value in settings.items():
        # one that is redone has what the verdict says
        redone = [r.get("verdict_settings") is not None for r in faces]
        own = [r["kept"] or r["error"] or again for r, again in zip(faces, redone, strict=True)]
        other = [r[name] for r, has in zip(faces, own, strict=True) if not has and r[name] != value]
        if other:
            yield f"expected the run's {name} {value} for every face, found {other[0]}"


def _as_text(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items())) or "none"


def _first_difference(wanted: Sequence[str], found: Sequence[str]) -> str:
    for number, (a, b) in enumerate(zip(wanted, found, strict=False), start=1):
        if a != b:
            return f"number {number} is {b} instead of {a}"
    return f"found {len(found)}"


def _draw(
    unit: Unit, rows: Rows, marker: Marker, most: int, seed: str, verdicts: UnitVerdicts
) -> list[Candidate]:
    """The unit's restored pictures with the smallest draws."""
    found = []
    for place, (address, image) in enumerate(zip(unit.images, rows, strict=True)):
        if most and image[0]["outcome"] == "restored":
            draw = hashlib.sha256(f"{seed}\0{unit.name}\0{place}".encode()).hexdigest()
            # index among the pictures in the delivered shard
            number = sum(is_held(a, r[0]) for a, r in zip(unit.images[:place], rows, strict=False))
            one = replace(unit, images=(address,))
            said = verdicts.of(place)
            found.append(Candidate(draw, one, number, image, marker.device, marker.environment, said))
    return heapq.nsmallest(most, found)
