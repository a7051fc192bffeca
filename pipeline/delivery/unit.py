"""One unit of a run, packaged: its files copied or signed, its PREMIS written, and its receipt."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pipeline.delivery.bag import Altered, Bag, File, Receipt
from pipeline.delivery.media_types import signable
from pipeline.delivery.premis import Delivered, Program, changed_faces, described, premis_of
from pipeline.delivery.signing import Claim, Signer
from pipeline.io import layout, store
from pipeline.io.delivered import UNREADABLE, delivered_name
from pipeline.io.tables import read_table
from pipeline.io.units import Address, Unit
from pipeline.ledger.output import BROKEN, Run
from pipeline.ledger.retries import Retries
from pipeline.records.marker import Marker, Output
from pipeline.records.verdicts import BadVerdicts, digest
from pipeline.stages.record import by_image
from pipeline.stages.verdicts import load_verdicts

# Folders of an output that are delivered.
DELIVERED = (f"{layout.IMAGES}/", f"{layout.SHARDS}/", f"{layout.RECORDS}/", f"{layout.REPORT}/")
PREMIS = "premis"

Rows = list[list[dict[str, Any]]]


class Packaged(NamedTuple):
    """What became of a unit."""

    unit: str
    images: int
    # whether it is in the bag
    whole: bool = True
    # files that were copied or signed now, and those that can not be signed
    written: int = 0
    signed: int = 0
    unsigned: int = 0
    wrong: str = ""


@dataclass(frozen=True)
class PackageUnit:
    """Unit → the unit in the bag. Raises nothing that is about the unit alone: that is in `Packaged.wrong`."""

    run: Run
    bag: Bag
    program: Program
    retries: Retries
    premis: bool = False
    signer: Signer | None = None
    # what the receipts say of the two above
    how: str = field(default="")

    def __call__(self, unit: Unit) -> Packaged:
        try:
            return self._package(unit)
        except (Altered, store.StoreError, BadVerdicts, *UNREADABLE, *BROKEN) as error:
            said = str(error) if isinstance(error, Altered | store.StoreError) else f"{unit.name}: {error}"
            return Packaged(unit.name, len(unit.images), whole=False, wrong=said)

    def _package(self, unit: Unit) -> Packaged:
        data = store.read_bytes(store.join(self.run.output, unit.marker_path))
        marker = Marker.from_json(data)
        if wrong := self._not_done(unit, marker):
            return Packaged(unit.name, len(unit.images), whole=False, wrong=wrong)
        listed = hashlib.sha256(data).hexdigest()
        before = self.bag.receipt(unit.name)
        if (
            before is not None
            and (before.listed, before.how) == (listed, self.how)
            and self.bag.keeps(before)
        ):
            return Packaged(unit.name, len(unit.images))
        self.bag.open()
        return self._deliver(unit, marker, listed, before)

    def _not_done(self, unit: Unit, marker: Marker) -> str:
        """Why a unit with a marker is not what is to be delivered; empty where it is."""
        if marker.run != unit.run or marker.checksum == "broken":
            return f"{unit.marker_path}: a marker of this run was wanted; jobs.verify names all that is wrong"
        if self.retries.wait_for(unit.name, marker.attempts):
            return f"{unit.name} is to be done again; run the restore command to its end first"
        if digest(load_verdicts(self.run.output, unit.name)) != marker.verdicts:
            return f"{unit.name}: verdicts are not carried out; run the restore command to its end first"
        return ""

    def _deliver(self, unit: Unit, marker: Marker, listed: str, before: Receipt | None) -> Packaged:
        outputs = [output for output in marker.outputs if output.path.startswith(DELIVERED)]
        needs_rows = self.premis or self.signer is not None
        rows = self._rows(unit, marker) if needs_rows else []
        files: dict[str, File] = {}
        signed_at: dict[str, str] = {}
        unsigned = 0
        names = (
            [delivered_name(a.member, r[0]) for a, r in zip(unit.images, rows, strict=True)] if rows else []
        )
        places = {layout.image_path(name): place for place, name in enumerate(names)}
        for output in outputs:
            place = places.get(output.path) if unit.kind == "folder" else None
            if self.signer is None or place is None or not _is_changed(rows[place][0], output.sha256):
                files[output.path] = self._copy(output)
                continue
            at = datetime.now(UTC).isoformat(timespec="seconds")
            signed = self._signed(self.signer, output, unit.images[place], rows[place], marker)
            if signed is None:
                files[output.path], unsigned = self._copy(output), unsigned + 1
            else:
                files[output.path], signed_at[output.path] = signed, at
        every = list(files.values())
        if self.premis:
            document = self._premis(unit, rows, files, marker, signed_at)
            every.append(self.bag.write(f"{PREMIS}/{unit.name}.xml", document))
        self.bag.write_receipt(Receipt(unit.name, listed, self.how, tuple(every)), before)
        return Packaged(unit.name, len(unit.images), True, len(every), len(signed_at), unsigned)

    def _copy(self, output: Output) -> File:
        uri = store.join(self.run.output, output.path)
        return self.bag.copy(uri, output.path, output.sha256, output.size)

    def _rows(self, unit: Unit, marker: Marker) -> Rows:
        data = store.read_bytes(store.join(self.run.output, unit.records_path))
        if hashlib.sha256(data).hexdigest() != marker.sha256.get(unit.records_path):
            raise Altered(
                f"{unit.records_path} is not what its marker says; jobs.verify names all that is wrong"
            )
        rows = by_image(read_table(data).to_pylist())
        if len(rows) != len(unit.images):
            raise Altered(f"{unit.records_path}: {len(unit.images)} images were wanted, it has {len(rows)}")
        return rows

    def _signed(
        self, signer: Signer, output: Output, address: Address, rows: Sequence[dict[str, Any]], marker: Marker
    ) -> File | None:
        """The picture with a signature; None where its kind carries none. Raises Altered or StoreError."""
        data = store.read_bytes(store.join(self.run.output, output.path))
        if hashlib.sha256(data).hexdigest() != output.sha256:
            raise Altered(f"{output.path} is not what its marker says; jobs.verify names all that is wrong")
        if signable(data) is None:
            return None
        source = store.read_bytes(address.uri)
        if hashlib.sha256(source).hexdigest() != rows[0]["sha256"]:
            raise Altered(
                f"{address.uri}: the picture that was restored was wanted, to sign what became of it; another is there"
            )
        if signable(source) is None:  # a picture that was converted from a kind that is no ingredient
            return None
        claim = Claim(
            delivered_name(address.member, rows[0])
            .rpartition("/")[2]
            .encode(errors="backslashreplace")
            .decode(),
            self._boxes(rows),
            described(rows[1:], self.program.preset),
            _time(marker),
            self.program.version,
        )
        try:
            signed = signer.sign(data, source, claim)
        except ValueError as error:
            raise Altered(f"{output.path}: {error}") from error
        return self.bag.write(output.path, signed, unsigned=output.sha256)

    def _boxes(self, rows: Sequence[dict[str, Any]]) -> list[list[float]]:
        """The changed faces in the delivered picture, which may be larger than the one that came."""
        image = rows[0]
        width = self.run.as_delivered(image)["width"]
        times = width / image["width"] if image["width"] else 1.0
        ends = [image["width"], image["height"]] * 2
        return [
            [round(min(max(v, 0), end) * times, 2) for v, end in zip(face["box"], ends, strict=True)]
            for face in changed_faces(rows[1:])
        ]

    def _premis(
        self, unit: Unit, rows: Rows, files: dict[str, File], marker: Marker, signed_at: dict[str, str]
    ) -> bytes:
        inside = unit.kind != "folder"
        pictures = []
        paths = [
            layout.image_path(delivered_name(a.member, r[0])) for a, r in zip(unit.images, rows, strict=True)
        ]
        for own, image in zip(paths, rows, strict=True):
            path = unit.shard_path if inside else own
            file = files.get(path)
            changed = self.run.as_delivered(image[0])["outcome"] == "restored" and file is not None
            if file is not None and not inside:
                changed = _is_changed(image[0], file.unsigned or file.sha256)
            at = signed_at.get(path, "")
            pictures.append(Delivered(image, file, inside, bool(changed), _time(marker), at))
        others = [file for path, file in files.items() if inside or path not in paths]
        return premis_of(unit.name, pictures, others, self.program)


def _is_changed(image: dict[str, Any], sha256: str) -> bool:
    """Whether a picture was restored into these bytes; one that failed is whatever lay at its place in the end."""
    return bool(image["outcome"] != "failed" and image["sha256"] != sha256)


def _time(marker: Marker) -> str:
    return datetime.fromtimestamp(marker.finished_at, UTC).isoformat(timespec="seconds")
