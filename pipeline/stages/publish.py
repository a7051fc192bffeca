"""Write what a unit delivers, then its marker: whole pictures or shards, records, samples, and last the mark.

Names depend on the unit alone and contents on the unit and the settings alone, so that writing twice is harmless.
"""

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.images import encode_png
from pipeline.records import (
    Address,
    FaceRecord,
    ImageRecord,
    Row,
    Unit,
    load_faces,
    load_images,
    restorable,
    unpack,
)
from pipeline.stages.failure import message, outline
from pipeline.stages.paste import paste_faces
from pipeline.stages.read import parquet_slice, read_unit
from pipeline.stages.record import make_marker, record_table
from pipeline.stages.sample import sample_strip


@dataclass(frozen=True)
class Publish:
    """Row with `restored` → tiny row with `unit` and `marker`."""

    output: str
    side: int
    image_column: str
    aligned: bool
    keep_detail: float | None
    max_pixels: int
    save_faces: bool
    # columns of the records that are the same for every row: eta, seed, model_sha256
    settings: dict[str, int | float | str]
    # what the faces are restored on, for the marker: results are equal bit for bit on one device type
    device: str = ""

    def __call__(self, row: Row) -> Row:
        if "restored" not in row:
            return row  # not begun: the run is stopping
        began = time.monotonic()
        unit = Unit.from_json(row["work"])
        records, faces = load_images(row), load_faces(row)
        crops = [unpack(row[c], self.side) for c in ("crops", "estimated", "restored")]
        delivered = self._deliver(unit, self.pasted(unit, records, faces, crops[0], crops[2]))
        outputs = [self._write(path, data) for path, data in delivered]
        outputs += [self._write(path, data) for path, data in self._extras(unit, records, faces, crops)]
        sums = json.loads(row["sums"]) | {"seconds_paste": time.monotonic() - began}
        marker = make_marker(unit, records, faces, sums, outputs) | {"device": self.device}
        text = json.dumps(marker, indent=1)
        store.write_bytes(store.join(self.output, unit.marker_path), text.encode())
        return {"unit": unit.name, "marker": text}

    def pasted(
        self,
        unit: Unit,
        records: list[ImageRecord],
        faces: list[FaceRecord],
        before: NDArray[np.uint8],
        after: NDArray[np.uint8],
    ) -> Iterator[tuple[Address, bytes | None]]:
        """Each image's address and the bytes delivered for it, settling its record; None: nothing to deliver."""
        for i, (address, data) in enumerate(read_unit(unit, self.image_column)):
            record = records[i]
            mine = [(f, before[j], after[j]) for j, f in enumerate(restorable(faces)) if f.image == i]
            if isinstance(data, store.StoreError):
                if record.outcome is None:
                    record.settle("failed", "unreadable", "paste", message(data), outline(data))
                yield address, None
                continue
            yield address, data if record.outcome else self._paste_one(record, data, mine)

    def _paste_one(
        self,
        record: ImageRecord,
        data: bytes,
        faces: list[tuple[FaceRecord, NDArray[np.uint8], NDArray[np.uint8]]],
    ) -> bytes:
        """The restored picture; where that fails, the original bytes and a record that says so."""
        broken = [f for f, _, _ in faces if f.error]
        if broken:
            record.settle("failed", "face failed", "restore", broken[0].error, broken[0].traceback)
        elif hashlib.sha256(data).hexdigest() != record.sha256:
            record.settle(
                "failed", "changed", "paste", f"{record.member} changed while it was being restored"
            )
        else:
            try:
                restored = paste_faces(data, faces, self.keep_detail, self.aligned, self.max_pixels)
            except Exception as error:  # one picture's encoder must not take its neighbours along
                said = f"{record.member}: {message(error)}"
                record.settle("failed", type(error).__name__, "paste", said, outline(error))
            else:
                record.settle("restored")
                return restored
        return data

    def _deliver(
        self, unit: Unit, pasted: Iterator[tuple[Address, bytes | None]]
    ) -> Iterator[tuple[str, bytes]]:
        """The unit's output objects: path below the output, and bytes."""
        if unit.kind == "folder":
            for address, data in pasted:
                if data is not None:
                    yield f"images/{address.member}", data
        elif unit.kind == "tar":
            yield (
                f"shards/{unit.name}.tar",
                self._tar(unit, {address.offset: data for address, data in pasted}),
            )
        else:
            yield f"shards/{unit.name}.parquet", self._parquet(unit, [data for _, data in pasted])

    def _tar(self, unit: Unit, pasted: dict[int, bytes | None]) -> bytes:
        """The unit's span of the input tar with its pictures replaced; sidecars pass as they are."""
        buffer = io.BytesIO()
        begin, end = unit.span
        with store.open_read(unit.source) as source, tarfile.open(fileobj=buffer, mode="w") as out:
            source.seek(begin)
            with tarfile.open(fileobj=source, mode="r:") as tar:
                for member in tar:
                    if member.offset >= end:
                        break
                    if not member.isfile():
                        continue
                    held = tar.extractfile(member)
                    data = pasted.get(member.offset_data) or (held.read() if held else b"")
                    member.size = len(data)
                    member.pax_headers = {}
                    out.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    def _parquet(self, unit: Unit, pasted: list[bytes | None]) -> bytes:
        """The unit's rows with the image column replaced; other columns pass as they are."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        table = parquet_slice(unit)
        column = table.column(self.image_column)
        cells = column.to_pylist()
        new = [
            cell if data is None else (cell | {"bytes": data} if isinstance(cell, dict) else data)
            for cell, data in zip(cells, pasted, strict=True)
        ]
        place = table.schema.get_field_index(self.image_column)
        table = table.set_column(place, table.schema.field(place), pa.array(new, type=column.type))
        pq.write_table(table, buffer)
        return buffer.getvalue()

    def _extras(
        self, unit: Unit, records: list[ImageRecord], faces: list[FaceRecord], crops: list[NDArray[np.uint8]]
    ) -> Iterator[tuple[str, bytes]]:
        """Records, samples for the contact sheet, and the aligned crops when they are wanted."""
        yield f"records/{unit.name}.parquet", record_table(unit, records, faces, self.settings)
        triples = list(zip(*crops, strict=True))
        if triples:
            yield f"report/samples/{unit.name}.jpg", sample_strip(triples)
        if self.save_faces:
            for face, (before, _, after) in zip(restorable(faces), triples, strict=True):
                stem = f"faces/{unit.name}/{face.image:04d}-{face.face:02d}"
                yield f"{stem}-before.png", encode_png(before)
                yield f"{stem}-after.png", encode_png(after)

    def _write(self, path: str, data: bytes) -> dict[str, str | int]:
        store.write_bytes(store.join(self.output, path), data)
        return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
