"""The pictures inside what a unit delivered."""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from pipeline.io import images, layout, store
from pipeline.io.names import is_hidden
from pipeline.io.units import Address, Unit

PIECE = 1 << 20
# What opening and walking a damaged shard raises; pyarrow's errors are among them.
UNREADABLE = (OSError, ValueError, EOFError, tarfile.TarError)


class Hashed:
    """A stream that knows size and sha256 of what was read from it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int = PIECE) -> bytes:
        data = self._source.read(size)
        self._sha256.update(data)
        self.size += len(data)
        return data

    def drain(self) -> tuple[int, str]:
        """Size and sha256 of the whole, after reading what is left."""
        while self.read():
            pass
        return self.size, self._sha256.hexdigest()


def tar_pictures(source: Any) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of a tar's pictures in order, read front to back; one is held at a time."""
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            is_picture = images.is_image_name(member.name) and not is_hidden(member.name)
            if is_picture and member.isfile() and not member.issparse():
                held = tar.extractfile(member)
                yield member.name, held.read() if held else b""
            tar.members = []  # type: ignore[attr-defined]  # untyped; the index of a large tar is not kept


def parquet_pictures(data: bytes, image_column: str) -> Iterator[tuple[str, bytes]]:
    """Row numbers, from 0, and image bytes of a Parquet shard; an empty cell gives no bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).iter_batches(
        16, columns=[image_column], use_threads=False
    ):
        for cell in batch.column(0).to_pylist():
            held = cell.get("bytes") if isinstance(cell, dict) else cell
            yield str(number), held if isinstance(held, bytes) else b""
            number += 1


def delivered_name(member: str, record: Mapping[str, Any]) -> str:
    """The name of the input under which an image was delivered: its own, or with a suffix for what it became.

    record: its row, which has the name as Parquet can hold it.
    """
    converted = record.get("delivered")
    return f"{member}{PurePosixPath(converted).suffix}" if converted else member


def delivered_picture(
    output: str, unit: Unit, place: int, image_column: str, record: Mapping[str, Any]
) -> bytes:
    """What the run delivered for the only image of `unit`, which was number `place` in the unit of the plan.

    record: the image's row. Raises StoreError, LookupError, or one of UNREADABLE.
    """
    if unit.kind == "folder":
        name = delivered_name(unit.images[0].member, record)
        return store.read_bytes(store.join(output, layout.image_path(name)))
    uri = store.join(output, unit.shard_path)
    if unit.kind == "tar":
        with store.open_read(uri) as source:
            return _nth(tar_pictures(source), place)
    return _nth(parquet_pictures(store.read_bytes(uri), image_column), place)


def _nth(pictures: Iterator[tuple[str, bytes]], place: int) -> bytes:
    for number, (_, data) in enumerate(pictures):
        if number == place:
            return data
    raise LookupError(f"there is no picture number {place}")


def is_held(address: Address, record: Mapping[str, Any]) -> bool:
    """Whether a delivered shard holds the image as a picture of its own."""
    return not address.refused and (address.length == 0 or record["reason"] != "too many bytes")
