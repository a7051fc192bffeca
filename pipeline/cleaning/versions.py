"""Versions of a cleaned dataset: a manifest of all pictures, the parent version, and the changes since.

`versions/NNNN.json` describes a version and names its manifest, a Parquet file with its digest in its name. The JSON
file is written last, by a conditional write, and neither is ever overwritten: a version is complete or does not exist.
Both depend on the dataset, the policy and the parent alone, without timestamps, so that a repeated run writes the same
bytes.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import Refusal
from pipeline.cleaning.checks import Measures
from pipeline.io import store
from pipeline.io.names import escape_surrogates
from pipeline.io.tables import read_table

VERSIONS = "versions"

# Address and measurements of a picture.
_ADDRESS = [
    (
        "name",
        pa.string(),
    ),  # unique and readable: path below the input, then the member of a tar or row of a Parquet file
    ("object", pa.string()),  # the file's path below the input
    ("object_size", pa.int64()),
    ("object_version", pa.string()),  # ETag, or size and time of a local file
    ("uri", pa.string()),  # the file
    ("member", pa.string()),
    ("offset", pa.int64()),  # bytes [offset, offset + length) of the file; for Parquet the row number and 0
    ("length", pa.int64()),
    ("sha256", pa.string()),  # of the picture's own bytes; empty where they could not be read
    ("format", pa.string()),
    ("problem", pa.string()),  # why it could not be read, as a slug; empty if it could
    ("detail", pa.string()),  # the same as a sentence
]
_TYPES = {int: pa.int64(), float: pa.float64()}
_MEASURED = [
    (f.name, pa.uint64() if f.name == "phash" else _TYPES[f.type])  # type: ignore[index]  # types, not strings
    for f in fields(Measures)
]
MEASURED = pa.schema(_ADDRESS + _MEASURED)
# Its verdict.
_VERDICT = [
    (
        "verdict",
        pa.string(),
    ),  # keep, repair, drop; deleted: it was in the parent and is no longer in the input
    ("reason", pa.string()),
    ("repeats", pa.string()),  # name of the picture that a duplicate repeats
    ("repaired", pa.string()),  # path of the repaired picture below the output
    ("repaired_sha256", pa.string()),
    ("since", pa.int64()),  # the first version that has this picture with these bytes
]
MANIFEST = pa.schema(list(MEASURED) + [pa.field(*column) for column in _VERDICT])
# Columns that are equal when nothing has changed about a picture.
IDENTITY = ("name", "sha256", "verdict", "reason", "repeats", "repaired_sha256")


@dataclass(frozen=True)
class Version:
    """The contents of `versions/NNNN.json`."""

    number: int
    # the version that this one was made from, and the sha256 of its JSON file; 0 and empty for the first
    parent: int
    parent_sha256: str
    input: str
    # digest of the input's listing: paths, sizes and versions of its files
    listing: str
    # digests of the settings that affect verdicts and repaired pixels, and of those that affect measurements
    settings: str
    measuring: str
    policy: Mapping[str, Any]
    # digest of the repair method; empty where nothing was repaired
    repair: str
    # path of the manifest below the output, and its sha256
    manifest: str
    manifest_sha256: str
    # pictures by verdict and by reason: all, and those new in this version
    images: int
    verdicts: Mapping[str, int]
    reasons: Mapping[str, int]
    # the dropped ones by reason
    dropped: Mapping[str, int]
    new_images: int
    new_verdicts: Mapping[str, int]
    new_reasons: Mapping[str, int]
    # pictures of the parent that are no longer in the input
    deleted: int

    @property
    def path(self) -> str:
        """Path below the output."""
        return f"{VERSIONS}/{self.number:04d}.json"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


class DamagedVersion(Refusal, ValueError):
    """A version that cannot be read; the command exits with code 2."""


def last_version(output: str) -> Version | None:
    """The newest version of an output; None before the first. Raises StoreError, DamagedVersion."""
    folder = store.join(output, VERSIONS)
    names = [e.path for e in store.list_files(folder)] if store.exists(folder) else []
    numbers = [int(n.removesuffix(".json")) for n in names if n.removesuffix(".json").isdecimal()]
    return read_version(output, max(numbers)) if numbers else None


def read_version(output: str, number: int) -> Version:
    """A version by its number. Raises StoreError, DamagedVersion."""
    uri = store.join(output, VERSIONS, f"{number:04d}.json")
    try:
        return Version(**json.loads(store.read_bytes(uri)))
    except (ValueError, TypeError) as error:
        raise DamagedVersion(
            f"{uri} is not a version written by this program ({error}); restore it from a copy"
        ) from error


def read_manifest(output: str, version: Version) -> pa.Table:
    """The rows of a version, by name. Raises StoreError, and DamagedVersion on a wrong digest."""
    uri = store.join(output, version.manifest)
    data = store.read_bytes(uri)
    if hashlib.sha256(data).hexdigest() != version.manifest_sha256:
        raise DamagedVersion(
            f"{uri} is not the manifest that version {version.number} was made with; restore it from a copy"
        )
    return read_table(data)


def write_version(output: str, version: Version, manifest: bytes) -> bool:
    """Write a version, its manifest first; False if another start has written that number. Raises StoreError."""
    store.write_bytes(store.join(output, version.manifest), manifest)
    uri = store.join(output, version.path)
    return store.create_bytes(uri, version.to_json()) or store.read_bytes(uri) == version.to_json()


def table_bytes(table: pa.Table) -> bytes:
    """The table as Parquet; the same rows give the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def manifest_path(number: int, digest: str) -> str:
    """Path of the manifest with this sha256: concurrent starts write different files."""
    return f"{VERSIONS}/{number:04d}-{digest[:16]}.parquet"


def listing_digest(entries: Sequence[store.Entry]) -> str:
    """Digest of the input's listing: changes when a file is added, removed or changed."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.size}\0{entry.version}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def rows_of(table: pa.Table, entries: Sequence[store.Entry]) -> pa.Table:
    """The rows of files in the listing that are unchanged."""
    there = pa.array([_key(*e) for e in ((plain(e.path), e.size, e.version) for e in entries)], pa.string())
    size = table.column("object_size").cast(pa.string())
    keys = pc.binary_join_element_wise(table.column("object"), size, table.column("object_version"), "\t")
    return table.filter(pc.is_in(keys, there))


def _key(path: str, size: int, version: str) -> str:
    return f"{path}\t{size}\t{version}"


def plain(name: str) -> str:
    """A name for the manifest: bytes that are not UTF-8 are escaped, as \\udce9."""
    return escape_surrogates(name)


def tombstones(parent: pa.Table, table: pa.Table) -> pa.Table:
    """The parent's pictures that the table no longer has, as rows of verdict `deleted`."""
    living = parent.filter(pc.not_equal(parent.column("verdict"), "deleted"))
    gone = living.filter(pc.invert(pc.is_in(living.column("name"), table.column("name").combine_chunks())))
    columns = {
        "verdict": "deleted",
        "reason": "deleted",
        "repeats": "",
        "repaired": "",
        "repaired_sha256": "",
    }
    for name, value in columns.items():
        place = gone.schema.get_field_index(name)
        gone = gone.set_column(
            place, gone.schema.field(place), pa.array([value] * gone.num_rows, pa.string())
        )
    return gone


def same_pictures(one: pa.Table, other: pa.Table) -> bool:
    """Whether two manifests have the same pictures with the same verdicts, wherever they are stored."""
    return one.num_rows == other.num_rows and all(one.column(n).equals(other.column(n)) for n in IDENTITY)


def counts(names: pa.ChunkedArray) -> dict[str, int]:
    """How many rows have each value, by name."""
    counted = pc.value_counts(names).to_pylist()
    return dict(sorted((pair["values"], pair["counts"]) for pair in counted))
