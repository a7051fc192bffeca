"""A unit from its plan, and the bytes of its pictures, from files, tar members or Parquet rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Literal

from pipeline.io import store
from pipeline.io.errors import message
from pipeline.io.images import MAX_PIXELS, most_bytes
from pipeline.io.units import Address, Unit, units_from_json

# Why an address holds no picture that could be read: outcome of the image, and message.
REFUSED: dict[str, tuple[Literal["skipped", "failed"], str]] = {
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
BATCH_ROWS = 8
MOST_UNIT_BYTES = 2 << 30
# read at once of a column
BUFFER_BYTES = 1 << 20


def load_units(uri: str) -> list[Unit]:
    """The units of a shard's plan file, in order. Raises StoreError, or one of Python's own for a damaged file."""
    return units_from_json(store.read_bytes(uri))


class Unreadable(store.StoreError):
    """An image without bytes; `reason` is one of REFUSED."""

    def __init__(self, address: Address, reason: str, what: str = "") -> None:
        super().__init__(f"{address.member}: {what or REFUSED[reason][1]}")
        self.reason = reason


Read = bytes | store.StoreError


def read_unit(unit: Unit, image_column: str, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Address, Read]]:
    """Each image's address and bytes, in order; an image that cannot be read gives its error instead."""
    for source, images in groupby(unit.images, key=_rows_of):
        if source:
            rows = replace(unit, source=source, images=tuple(images))
            yield from _parquet_rows(rows, image_column, most_bytes(max_pixels))
        else:
            yield from _spans(images, max_pixels)


def _rows_of(address: Address) -> str:
    """The Parquet file that an image is a row of; empty for one that is a span of bytes."""
    return address.uri if address.uri.lower().endswith(".parquet") else ""


def _spans(images: Iterable[Address], max_pixels: int) -> Iterator[tuple[Address, Read]]:
    """Images that are files or members of a tar."""
    for address in images:
        try:
            reason = address.refused or ("too many bytes" if address.length > most_bytes(max_pixels) else "")
            if reason:
                raise Unreadable(address, reason)
            yield address, store.read_range(address.uri, address.offset, address.length)
        except store.StoreError as error:
            yield address, error


def _parquet_rows(unit: Unit, image_column: str, most: int) -> Iterator[tuple[Address, Read]]:
    """Some rows of a file, in its order; only the row groups that hold them are read, and few rows are held at once."""
    place = 0
    lost: Callable[[Address], store.StoreError] = partial(Unreadable, reason="unreadable")
    try:
        for number, cell in enumerate(_cells(unit, image_column), start=unit.images[0].offset):
            if number == unit.images[place].offset:
                yield unit.images[place], _image_bytes(unit.images[place], image_column, cell, most)
                place += 1
    except Exception as error:  # pyarrow's errors share no ancestor
        what = f"rows of {unit.source} could not be read: {message(error)}"
        lost = partial(Unreadable, reason="unreadable", what=what)
        if isinstance(error, store.StoreError):  # which may pass
            lost = partial(_not_read, what)
    for address in unit.images[place:]:
        yield address, lost(address)


def _not_read(what: str, address: Address) -> store.StoreError:
    return store.StoreError(f"{address.member}: {what}")


def _cells(unit: Unit, column: str) -> Iterator[Any]:
    """One column from the unit's first row to its last."""
    for batch in _batches(unit, [column]):
        yield from batch.column(0).to_pylist()


def _image_bytes(address: Address, image_column: str, cell: Any, most: int) -> Read:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        return data if len(data) <= most else Unreadable(address, "too many bytes")
    found = "nothing" if data is None else type(data).__name__
    what = f"row of {address.uri}: image bytes wanted in column {image_column!r}, got {found}"
    return Unreadable(address, "unreadable", what)


def parquet_slice(unit: Unit, columns: list[str] | None = None) -> Any:
    """The unit's rows as a pyarrow Table; a unit without any gives the empty table of its file.

    Raises ValueError when they take more than MOST_UNIT_BYTES.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with store.open_read(unit.source) as source:
        empty = pq.ParquetFile(source).schema_arrow.empty_table()
    pieces = list(_batches(unit, columns))
    return pa.Table.from_batches(pieces, empty.schema) if pieces else empty


def _batches(unit: Unit, columns: list[str] | None) -> Iterator[Any]:
    """The unit's rows, a few at a time as pyarrow RecordBatches. Raises ValueError as `parquet_slice`."""
    import pyarrow.parquet as pq

    if not unit.images:
        return
    first, last = unit.images[0].offset, unit.images[-1].offset + 1
    size = 0
    with store.open_read(unit.source) as source:
        # read piece by piece: a row group may be the whole file, and what lies behind the unit's rows is not wanted
        parquet = pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
        start = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if start < last and start + rows > first:
                place = start
                for batch in parquet.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                ):
                    piece = batch.slice(max(first - place, 0), max(last - max(place, first), 0))
                    size += piece.nbytes
                    if size > MOST_UNIT_BYTES:
                        raise ValueError(
                            f"they take more than {MOST_UNIT_BYTES >> 20} MiB; lower --unit-images"
                        )
                    if piece.num_rows:
                        yield piece
                    place += batch.num_rows
                    if place >= last:
                        break
            start += rows
