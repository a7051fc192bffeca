"""What was decided of the measured face of each picture of a set, from the records of a run."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.faces.detect import overlaps
from pipeline.io import layout, store
from pipeline.records.rows import LEFT_TEXTS, RUNG_TEXTS

READERS = 16
# boxes with a smaller IoU are of different faces
SAME_BOX = 0.3
NOT_FOUND, FAILED = "not found", "failed"
LEFT: Mapping[str, str] = {name: f"left: {text}" for name, text in LEFT_TEXTS.items()}
# every decision, in the order of tables
DECISIONS = (*RUNG_TEXTS.values(), *LEFT.values(), "left", FAILED, NOT_FOUND)
COLUMNS = ("kind", "member", "box", "error", "kept", "left_for", "rung")

Record = dict[str, Any]


def read_decisions(
    output: str, names: Sequence[str], boxes: Sequence[Sequence[float]] | None = None
) -> list[str]:
    """One of DECISIONS for each picture, which is called NAME.png in the run.

    boxes: x0, y0, x1, y1 of the measured face of each picture, pixels; None where each picture is the crop of a face.
    A face of the run is the measured one where their boxes have an IoU of at least SAME_BOX.
    """
    folder = store.join(output, layout.RECORDS)
    uris = [e.uri for e in store.list_files(folder) if e.path.endswith(".parquet")]
    found: dict[str, list[Record]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for rows in pool.map(_read_faces, uris):
            for row in rows:
                found.setdefault(row["member"], []).append(row)
    faces = [found.get(f"{name}.png", []) for name in names]
    if boxes is None:
        chosen = [rows[0] if rows else None for rows in faces]
    else:
        chosen = [_nearest(rows, box) for rows, box in zip(faces, boxes, strict=True)]
    return [NOT_FOUND if row is None else decision(row) for row in chosen]


def decision(row: Record) -> str:
    """What was decided of a face, by its record."""
    if row["error"]:
        return FAILED
    if row["kept"]:
        return LEFT.get(row.get("left_for") or "", "left")
    return RUNG_TEXTS.get(row.get("rung") or "asked", RUNG_TEXTS["asked"])


def _nearest(rows: Sequence[Record], box: Sequence[float]) -> Record | None:
    """The face whose box is most like this one; None where none is."""
    known = [row for row in rows if row["box"]]
    if not known:
        return None
    shared = overlaps(np.array(box, np.float64), np.array([row["box"] for row in known], np.float64))
    best = int(shared.argmax())
    return known[best] if shared[best] >= SAME_BOX else None


def _read_faces(uri: str) -> list[Record]:
    """The rows of faces of a unit."""
    file = pq.ParquetFile(pa.BufferReader(store.read_bytes(uri)), pre_buffer=False)
    there = [name for name in COLUMNS if name in file.schema_arrow.names]
    rows: list[Record] = file.read(columns=there, use_threads=False).to_pylist()
    return [row for row in rows if row["kind"] == "face"]
