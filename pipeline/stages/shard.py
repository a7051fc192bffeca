"""The tar or Parquet shard that a unit delivers: the input's, with the pictures replaced."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.io import store
from pipeline.io.errors import message, outline
from pipeline.io.images import most_bytes
from pipeline.io.readers import parquet_slice
from pipeline.io.tar_parts import Replacement, tar_part
from pipeline.io.units import Unit
from pipeline.records.rows import ImageRecord


def tar_shard(unit: Unit, pictures: Sequence[Replacement], max_pixels: int) -> bytes:
    """The unit's span of the input tar with its pictures replaced; everything else passes as it is.

    Raises StoreError.
    """
    size = store.stat(unit.source).size
    with store.open_read(unit.source) as source:
        return tar_part(source, size, unit, pictures, most_bytes(max_pixels))


def parquet_shard(
    unit: Unit, records: Sequence[ImageRecord], pictures: Sequence[Replacement], image_column: str
) -> bytes:
    """The unit's rows with the image column replaced; other columns pass as they are.

    Where that is impossible, all rows count as failed, and those that can not be read are left out.
    """
    import pyarrow as pa

    table = parquet_slice(replace(unit, images=()))
    try:
        table = parquet_slice(unit)
        column = table.column(image_column)
        if any(new.data is not None for new in pictures):
            pairs = zip(column.to_pylist(), unit.images, pictures, strict=True)
            cells = [_cell(cell, address.member, new) for cell, address, new in pairs]
            place = table.schema.get_field_index(image_column)
            changed = pa.array(cells, type=column.type)
            return parquet_bytes(table.set_column(place, table.schema.field(place), changed))
    except Exception as error:  # pyarrow's errors share no ancestor
        reason = "unwritable" if table.num_rows else "unreadable"
        for record in records:
            record.settle("failed", reason, "paste", f"{unit.source}: {message(error)}", outline(error))
    return parquet_bytes(table)


def _cell(cell: Any, member: str, new: Replacement) -> Any:
    """The cell with other bytes; the path beside them gets the suffix of what they became."""
    if new.data is None:
        return cell
    if not isinstance(cell, dict):
        return new.data
    path = cell.get("path")
    if new.name is not None and isinstance(path, str):
        cell = cell | {"path": path + new.name[len(member) :]}
    return cell | {"bytes": new.data}


def parquet_bytes(table: Any) -> bytes:
    """A pyarrow table as a Parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
