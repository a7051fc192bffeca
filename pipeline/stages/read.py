"""The bytes of a unit's pictures, from files, tar members or Parquet rows."""

from collections.abc import Iterator
from typing import Any

from pipeline import store
from pipeline.images import MAX_PIXELS, most_bytes
from pipeline.records import Address, Outcome, Unit
from pipeline.stages.failure import message

# Why an address holds no picture that could be read: outcome of the image, and what to tell.
REFUSED: dict[str, tuple[Outcome, str]] = {
    "not a file": ("skipped", "a plain file was wanted, the member is a link, a folder or a device"),
    "sparse file": ("skipped", "a plain file was wanted, the member is stored with holes; store it whole"),
    "damaged shard": ("failed", "the tar file can not be read from here on; what may follow is not restored"),
    "too many bytes": (
        "failed",
        "more bytes than any picture within --max-pixels has; raise it to accept them",
    ),
    "unreadable": ("failed", "it can not be read"),
}
# Rows of a Parquet file that are decoded at once, and what the images of one unit may take.
BATCH_ROWS = 16
MOST_UNIT_BYTES = 4 << 30


class Unreadable(store.StoreError):
    """An image without bytes; `reason` is one of REFUSED."""

    def __init__(self, address: Address, reason: str, what: str = "") -> None:
        super().__init__(f"{address.member}: {what or REFUSED[reason][1]}")
        self.reason = reason


Read = bytes | store.StoreError


def read_unit(unit: Unit, image_column: str, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Address, Read]]:
    """Each image's address and bytes, in order; an image that cannot be read gives its error instead."""
    if unit.kind == "parquet":
        yield from _parquet_rows(unit, image_column, most_bytes(max_pixels))
        return
    for address in unit.images:
        try:
            reason = address.refused or ("too many bytes" if address.length > most_bytes(max_pixels) else "")
            if reason:
                raise Unreadable(address, reason)
            yield address, store.read_range(address.uri, address.offset, address.length)
        except store.StoreError as error:
            yield address, error


def _parquet_rows(unit: Unit, image_column: str, most: int) -> Iterator[tuple[Address, Read]]:
    """The rows of one Parquet unit; only the row groups that hold them are read."""
    if not unit.images:
        return
    try:
        cells = parquet_slice(unit, [image_column]).column(image_column).to_pylist()
    except Exception as error:  # pyarrow's errors share no ancestor
        what = f"rows of {unit.source} could not be read: {message(error)}"
        yield from ((address, Unreadable(address, "unreadable", what)) for address in unit.images)
        return
    for address, cell in zip(unit.images, cells, strict=True):
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if isinstance(data, bytes):
            yield address, data if len(data) <= most else Unreadable(address, "too many bytes")
            continue
        found = "nothing" if data is None else type(data).__name__
        what = f"image bytes wanted in column {image_column!r} of {address.uri}, got {found}"
        yield address, Unreadable(address, "unreadable", f"row {what}")


def parquet_slice(unit: Unit, columns: list[str] | None = None) -> Any:
    """The unit's rows as a pyarrow Table; a unit without any gives the empty table of its file.

    A row group is decoded piece by piece, and no further than its rows are wanted. Raises ValueError when they take
    more than MOST_UNIT_BYTES.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, last = (unit.images[0].offset, unit.images[-1].offset + 1) if unit.images else (0, 0)
    parts: list[Any] = []
    with store.open_read(unit.source) as source:
        parquet = pq.ParquetFile(source)
        start = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if start < last and start + rows > first:
                place = start
                for batch in parquet.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                ):
                    piece = batch.slice(max(first - place, 0), max(last - max(place, first), 0))
                    parts += [pa.Table.from_batches([piece])] if piece.num_rows else []
                    if sum(p.get_total_buffer_size() for p in parts) > MOST_UNIT_BYTES:
                        raise ValueError(
                            f"they take more than {MOST_UNIT_BYTES >> 20} MiB; lower --unit-images"
                        )
                    place += batch.num_rows
                    if place >= last:
                        break
            start += rows
        return pa.concat_tables(parts) if parts else parquet.schema_arrow.empty_table()
