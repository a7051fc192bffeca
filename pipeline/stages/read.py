"""The bytes of a unit's pictures, from files, tar members or Parquet rows."""

from collections.abc import Iterator

from pipeline import store
from pipeline.records import Address, Unit


def read_unit(unit: Unit, image_column: str) -> Iterator[tuple[Address, bytes | store.StoreError]]:
    """Each image's address and bytes, in order; an image that cannot be read gives its error instead."""
    if unit.kind == "parquet":
        yield from _parquet_rows(unit, image_column)
        return
    for address in unit.images:
        try:
            yield address, store.read_range(address.uri, address.offset, address.length)
        except store.StoreError as error:
            yield address, error


def _parquet_rows(unit: Unit, image_column: str) -> Iterator[tuple[Address, bytes | store.StoreError]]:
    """The rows of one Parquet unit; only the row groups that hold them are read."""
    if not unit.images:
        return
    try:
        cells = parquet_slice(unit, [image_column]).column(image_column).to_pylist()
    except (OSError, ValueError, store.StoreError) as error:
        failure = store.StoreError(f"{unit.source}: rows could not be read: {error}")
        yield from ((address, failure) for address in unit.images)
        return
    for address, cell in zip(unit.images, cells, strict=True):
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if isinstance(data, bytes):
            yield address, data
        else:
            what = "nothing" if data is None else type(data).__name__
            yield (
                address,
                store.StoreError(
                    f"row {address.member} of {address.uri}: image bytes wanted in column {image_column!r}, got {what}"
                ),
            )


def parquet_slice(unit: Unit, columns: "list[str] | None" = None):  # type: ignore[no-untyped-def]  # pyarrow is untyped
    """The unit's rows as a pyarrow Table; a unit without any gives the empty table of its file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, last = (unit.images[0].offset, unit.images[-1].offset + 1) if unit.images else (0, 0)
    parts = []
    with store.open_read(unit.source) as source:
        parquet = pq.ParquetFile(source)
        start = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if start < last and start + rows > first:
                table = parquet.read_row_group(group, columns=columns)
                parts.append(table.slice(max(first - start, 0), min(last, start + rows) - max(first, start)))
            start += rows
        return pa.concat_tables(parts) if parts else parquet.schema_arrow.empty_table()
