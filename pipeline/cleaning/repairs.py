"""The pictures to repair, and the results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.cleaning.plan import digest
from pipeline.cleaning.policy import REPAIR_FAILED
from pipeline.io import layout, store
from pipeline.io.names import unescape_surrogates
from pipeline.io.tables import read_table
from pipeline.io.units import Address
from pipeline.io.webdataset import suffix_of
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.plan import load_units
from pipeline.records.marker import Marker

Texts = NDArray[np.object_]


@dataclass(frozen=True)
class ToRepair:
    """A picture for the restoration stages, under the name of its result."""

    sha256: str
    address: Address
    entry: store.Entry


def picture_of(row: Mapping[str, Any]) -> ToRepair:
    """The picture of a manifest row. Its name contains a digest of its origin, so that other bytes never share it."""
    origin = digest([row["object"], row["object_version"], row["offset"]])[:8]
    name = f"{row['sha256'][:2]}/{row['sha256']}-{origin}{suffix_of(row['format'])}"
    uri = unescape_surrogates(row["uri"])
    address = Address(name, uri, row["offset"], row["length"])
    return ToRepair(row["sha256"], address, store.Entry(uri, name, row["length"], row["sha256"]))


@dataclass(frozen=True)
class Repaired:
    """The result of a repair: its outcome and, if restored, the file and its sha256."""

    outcome: str
    path: str = ""
    sha256: str = ""


def read_results(
    output: str, ledger: Ledger, wanted: Mapping[str, ToRepair]
) -> Iterator[tuple[str, Repaired]]:
    """The results of these pictures, from records and markers; one that was read with other bytes has failed."""
    for planned in ledger.shards:
        if not wanted.keys() & {file.path for file in planned.shard.files}:
            continue
        for unit in load_units(output, planned.shard):
            marker = Marker.from_json(store.read_bytes(store.join(output, unit.marker_path)))
            data = store.read_bytes(store.join(output, unit.records_path))
            rows = read_table(data, ["kind", "member", "sha256", "outcome"]).to_pylist()
            for row in rows:
                name, path = row["member"], layout.image_path(row["member"])
                if row["kind"] != "image" or name not in wanted:
                    continue
                if row["sha256"] != wanted[name].sha256:
                    yield name, Repaired("failed")
                elif row["outcome"] == "restored":
                    yield name, Repaired("restored", path, marker.sha256[path])
                else:
                    yield name, Repaired(row["outcome"])


def with_repairs(rows: pa.Table, places: NDArray[np.int64], results: Sequence[Repaired]) -> pa.Table:
    """The rows with the results of the repairs at these indices.

    A picture whose repair failed is dropped; one without anything to restore is kept.
    """
    names = ("verdict", "reason", "repaired", "repaired_sha256")
    columns: dict[str, Texts] = {n: rows.column(n).to_numpy().copy() for n in names}
    for i, result in zip(places, results, strict=True):
        if result.outcome == "failed":
            columns["verdict"][i], columns["reason"][i] = "drop", REPAIR_FAILED
        elif result.outcome != "restored":
            columns["verdict"][i], columns["reason"][i] = "keep", "accepted"
        columns["repaired"][i], columns["repaired_sha256"][i] = result.path, result.sha256
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, pa.string()))
    return rows
