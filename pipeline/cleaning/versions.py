"""Versions of a cleaned dataset: a manifest of every picture, its parent, and what came and went.

`versions/NNNN.json` says what a version is and names its manifest, a Parquet file whose name holds its digest. The JSON
file is written last, by a conditional write, and neither is ever written again: a version is there whole, or not at
all. Both depend on the dataset, the policy and the parent alone, and hold no time, so that a killed run, done again,
makes the same bytes.
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

# What was measured of a picture, and where it lies.
_ADDRESS = [
    (
        "name",
        pa.string(),
    ),  # unique for people: path below the input, then the member of a tar or row of a Parquet file
    ("object", pa.string()),  # the file's path below the input
    ("object_size", pa.int64()),
    ("object_version", pa.string()),  # ETag, or size and time of a local file
    ("uri", pa.string()),  # the file
    ("member", pa.string()),
    ("offset", pa.int64()),  # bytes [offset, offset + length) of the file; for Parquet the row number and 0
    ("length", pa.int64()),
    ("sha256", pa.string()),  # of the picture's own bytes; empty where they could not be read
    ("format", pa.string()),
    ("problem", pa.string()),  # why it could not be read, as a slug; empty for most
    ("detail", pa.string()),  # the same as a sentence
]
_TYPES = {int: pa.int64(), float: pa.float64()}
_MEASURED = [
    (f.name, pa.uint64() if f.name == "phash" else _TYPES[f.type])  # type: ignore[index]  # types, no texts
    for f in fields(Measures)
]
MEASURED = pa.schema(_ADDRESS + _MEASURED)
# What became of it.
_JUDGED = [
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
MANIFEST = pa.schema(list(MEASURED) + [pa.field(*column) for column in _JUDGED])
# What makes one picture of an input the same one as before.
IDENTITY = ("name", "sha256", "verdict", "reason", "repeats", "repaired_sha256")


@dataclass(frozen=True)
class Version:
    """What `versions/NNNN.json` says."""

    number: int
    # the version that this one was made from, and the sha256 of its JSON file; 0 and empty for the first
    parent: int
    parent_sha256: str
    input: str
    # digest of the input's listing: paths, sizes and versions of its files
    listing: str
    # digest of everything that decides about verdicts and repaired pixels, and of what decides about measurements
    settings: str
    measuring: str
    policy: Mapping[str, Any]
    # digest that names the method of repair; empty where nothing was repaired
    repair: str
    # path of the manifest below the output, and its sha256
    manifest: str
    manifest_sha256: str
    # pictures by verdict and by reason: of all, and of those that this version has first
    images: int
    verdicts: Mapping[str, int]
    reasons: Mapping[str, int]
    # the dropped ones by reason
    dropped: Mapping[str, int]
    new_images: int
    new_verdicts: Mapping[str, int]
    new_reasons: Mapping[str, int]
    # pictures of the parent that are gone
    deleted: int

    @property
    def path(self) -> str:
        """Where it lies below the output."""
        return f"{VERSIONS}/{self.number:04d}.json"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


class DamagedVersion(Refusal, ValueError):
    """A version that can not be read; the command exits with code 2."""


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
            f"{uri} is no version that this program wrote ({error}); restore it from a copy"
        ) from error


def read_manifest(output: str, version: Version) -> pa.Table:
    """The rows of a version, by name. Raises StoreError, and DamagedVersion where they are not what it says."""
    uri = store.join(output, version.manifest)
    data = store.read_bytes(uri)
    if hashlib.sha256(data).hexdigest() != version.manifest_sha256:
        raise DamagedVersion(
            f"{uri} is not the manifest that version {version.number} was made with; restore it from a copy"
        )
    return read_table(data)


def write_version(output: str, version: Version, manifest: bytes) -> bool:
    """Write a version, its manifest first; False when another start made that number meanwhile. Raises StoreError."""
    store.write_bytes(store.join(output, version.manifest), manifest)
    uri = store.join(output, version.path)
    return store.create_bytes(uri, version.to_json()) or store.read_bytes(uri) == version.to_json()


def table_bytes(table: pa.Table) -> bytes:
    """The table as Parquet; the same rows give the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def manifest_path(number: int, digest: str) -> str:
    """Where a manifest of this sha256 lies: a start that was overtaken writes beside it, not over it."""
    return f"{VERSIONS}/{number:04d}-{digest[:16]}.parquet"


def listing_digest(entries: Sequence[store.Entry]) -> str:
    """Changes when a file of the input comes, goes or changes."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.size}\0{entry.version}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def rows_of(table: pa.Table, entries: Sequence[store.Entry]) -> pa.Table:
    """The rows whose file is in the listing, unchanged."""
    there = pa.array([_key(*e) for e in ((plain(e.path), e.size, e.version) for e in entries)], pa.string())
    size = table.column("object_size").cast(pa.string())
    keys = pc.binary_join_element_wise(table.column("object"), size, table.column("object_version"), "\t")
    return table.filter(pc.is_in(keys, there))


def _key(path: str, size: int, version: str) -> str:
    return f"{path}\t{size}\t{version}"


def plain(name: str) -> str:
    """A name as a manifest takes it: bytes that are no UTF-8 are escaped, as \\udce9."""
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
    """Whether two manifests say the same of the same pictures, wherever and whenever these were written."""
    return one.num_rows == other.num_rows and all(one.column(n).equals(other.column(n)) for n in IDENTITY)


def counts(names: pa.ChunkedArray) -> dict[str, int]:
    """How many rows have each value, by name."""
    counted = pc.value_counts(names).to_pylist()
    return dict(sorted((pair["values"], pair["counts"]) for pair in counted))
