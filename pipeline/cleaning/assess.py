"""Measure a unit's pictures for cleaning: read, hash, decode, detect faces; one Parquet file, without verdicts."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.cleaning.checks import Measures, measure, usable
from pipeline.cleaning.versions import MEASURED, plain, table_bytes
from pipeline.console.work_counts import Report, WorkCounts, ignore
from pipeline.faces.detect import Selection
from pipeline.faces.search import search
from pipeline.io import images, store
from pipeline.io.errors import message
from pipeline.io.readers import Read, Unreadable, read_unit
from pipeline.io.stop import is_stopping
from pipeline.io.units import Address, Unit
from pipeline.records.rows import Row
from pipeline.stages.align import KILLED, DetectorChoice, load_detector
from pipeline.stages.isolate import Died, call_apart

# Problem of a picture that could not be read from the storage: the next start reads it again.
UNREAD = "unread"
# Counts every face that a restoration might process.
SELECTION = Selection(min_face=16.0, max_faces=4096)
NOTHING: Mapping[str, Any] = {f.name: None for f in fields(Measures)}
MISSING: Mapping[str, Any] = {**NOTHING, "sha256": "", "format": "", "problem": "", "detail": ""}

Measured = dict[str, Any]


@dataclass(frozen=True)
class AssessUnit:
    """Row with `unit`, `work`, `files`, `known` → small row with counts and `seconds`; writes OUTPUT/UNIT.parquet.

    files: path, size and version of each file with pictures of the unit, by URI. known: rows of an earlier version, by
    member; a picture with the same bytes is not decoded again. A unit with unread pictures is not written: its rows are
    returned as `table`, and the next start reads them again. A row without `images`: the unit was not started, or
    `undelivered` is the reason why it could not be written.
    """

    output: str
    side: int
    detector: DetectorChoice
    max_pixels: int
    image_column: str
    # while this object exists no further unit is started
    stop_uri: str
    # measure each picture in a process of its own: the unit has killed workers
    careful: bool = False
    # receives the work counts
    report: Report = ignore

    def __call__(self, row: Row) -> Row:
        if is_stopping(self.stop_uri):
            return {"unit": row["unit"]}
        began = time.monotonic()
        unit, files, known = Unit.from_json(row["work"]), json.loads(row["files"]), json.loads(row["known"])
        rows, size = [], 0
        for address, data in read_unit(unit, self.image_column, self.max_pixels):
            size += len(data) if isinstance(data, bytes) else 0
            values = self._from_bytes(address, data, known.get(address.member))
            rows.append({**MISSING} | place(address, files[address.uri]) | values)
            self.report(WorkCounts(pictures=1, faces=rows[-1]["faces"] or 0))
        body = table_bytes(pa.Table.from_pylist(rows, schema=MEASURED))
        unread = sum(r["problem"] == UNREAD for r in rows)
        if not unread:
            try:
                store.write_bytes(store.join(self.output, f"{row['unit']}.parquet"), body)
            except store.StoreError as error:
                return {"unit": row["unit"], "undelivered": message(error)}
        return {
            "unit": row["unit"],
            "images": len(rows),
            "faces": sum(r["faces"] or 0 for r in rows),
            "unreadable": sum(bool(r["problem"]) for r in rows),
            "bytes": size,
            "seconds": time.monotonic() - began,
            "table": body if unread else b"",
        }

    def _from_bytes(self, address: Address, data: Read, before: Measured | None) -> Measured:
        """The measurements of a picture, from its bytes."""
        if isinstance(data, store.StoreError):
            problem = data.reason if isinstance(data, Unreadable) else UNREAD
            return {"problem": problem, "detail": plain(message(data))}
        digest = {"sha256": hashlib.sha256(data).hexdigest()}
        if before is not None and before["sha256"] == digest["sha256"]:
            return {n: before[n] for n in ("format", "problem", "detail", *NOTHING)} | digest
        if plain(address.member) != address.member:
            why = "expected a name in UTF-8, as a manifest cannot store others; rename it"
            return digest | {"problem": "name not UTF-8", "detail": f"{plain(address.member)}: {why}"}
        return digest | self._from_pixels(address, data)

    def _from_pixels(self, address: Address, data: bytes) -> Measured:
        """The measurements of a picture, or its problem."""
        look = partial(measure_picture, data, self.detector, self.side, self.max_pixels)
        try:
            return call_apart(look) if self.careful else look()
        except Died as error:
            problem, detail = KILLED, message(error)
        except images.ImageError as error:
            problem, detail = error.reason, message(error)
        except Exception as error:  # a picture that crashes a library must not fail its unit
            problem, detail = type(error).__name__, message(error)
        return {"problem": problem, "detail": plain(f"{address.member}: {detail}")}


def measure_picture(data: bytes, detector: DetectorChoice, side: int, max_pixels: int) -> Measured:
    """The format and numbers of a picture. Raises ImageError."""
    picture = images.decode(data, max_pixels)
    found = search(load_detector(detector), picture.rgb, SELECTION)
    faces = [f.face for f in found if not f.left and usable(f.face, side)]
    return {"format": picture.format} | asdict(measure(picture.rgb, faces, side))


def place(address: Address, file: tuple[str, int, str]) -> Measured:
    """The address columns of a picture."""
    path, size, version = file
    member = plain(address.member)
    name = plain(path) if member == plain(path) else f"{plain(path)}/{member}"
    where = {"uri": plain(address.uri), "member": member, "offset": address.offset, "length": address.length}
    return {"name": name, "object": plain(path), "object_size": size, "object_version": version} | where
