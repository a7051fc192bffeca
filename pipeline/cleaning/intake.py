"""Incremental input: the units still to measure, and the rows of all pictures, new or from an earlier version."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cleaning.assess import UNREAD, Measured
from pipeline.cleaning.versions import MEASURED, plain, rows_of
from pipeline.io import store
from pipeline.io.shards import cut_units, make_shards
from pipeline.io.tables import read_table
from pipeline.io.units import Kind, Unit
from pipeline.records.rows import Row

READERS = 32
# Address of a picture; a hard link in a tar has that of its target.
PLACE = ("object", "offset", "member")
# units of one virtual shard of a folder
SHARD_UNITS = 16


class Intake:
    """An input and the measurements of it so far.

    Measurements are files in `folder`, one per unit, named after the unit's files and their versions, until a version
    includes them.
    """

    def __init__(
        self, folder: str, kind: Kind, entries: Sequence[store.Entry], earlier: pa.Table | None
    ) -> None:
        """earlier: rows of the last version, if it was measured with the same settings."""
        self._folder, self._kind, self._entries = folder, kind, entries
        self._earlier = MEASURED.empty_table() if earlier is None else _living(earlier).select(MEASURED.names)
        # pictures that could not be read are read again
        read = self._earlier.filter(pc.not_equal(self._earlier.column("problem"), UNREAD))
        self.carried = rows_of(read, entries)

    def pending(self, unit_images: int, image_column: str) -> list[Row]:
        """Rows for AssessUnit: the unmeasured units of new and changed files. Raises InputError."""
        measured = self._measured() if self._kind == "folder" else []
        known = _objects([self.carried, *(rows_of(t, self._entries) for t in measured)])
        new = [e for e in self._entries if plain(e.path) not in known]
        shards = make_shards(self._kind, new, unit_images * SHARD_UNITS)
        with ThreadPoolExecutor(READERS) as pool:
            cut = list(pool.map(lambda shard: cut_units(shard, unit_images, image_column), shards))
        units = [unit for some in cut for unit in some if unit.images]
        changed = self._before(new)
        rows = (self._row(unit, changed) for unit in units)
        there = set(self._names())
        return [row for row in rows if row["unit"] not in there]

    def _row(self, unit: Unit, changed: dict[tuple[str, str], Measured]) -> Row:
        files = {a.uri: self._by_uri[a.uri] for a in unit.images}
        places = [(a.member, a.offset, a.length, *files[a.uri]) for a in unit.images]
        known = {
            a.member: row
            for a in unit.images
            if (row := changed.get((plain(files[a.uri][0]), plain(a.member))))
        }
        return {
            "unit": hashlib.sha256(json.dumps(places).encode()).hexdigest()[:32],
            "work": unit.to_json(),
            "files": json.dumps(files),
            "known": json.dumps(known),
        }

    @cached_property
    def _by_uri(self) -> dict[str, tuple[str, int, str]]:
        return {e.uri: (e.path, e.size, e.version) for e in self._entries}

    def _before(self, new: Sequence[store.Entry]) -> dict[tuple[str, str], Measured]:
        """Earlier rows of the pictures in changed files, by file and member."""
        changed = pa.array([plain(e.path) for e in new], pa.string())
        rows = self._earlier.filter(pc.is_in(self._earlier.column("object"), changed)).to_pylist()
        return {(row["object"], row["member"]): row for row in rows if row["sha256"]}

    def table(self, unread: Iterable[bytes] = ()) -> pa.Table:
        """The rows of every picture of the input, ordered by file and position.

        unread: tables of units with unread pictures, which have no file.
        """
        tables = [self.carried, *self._measured(), *map(read_table, unread)]
        rows = rows_of(pa.concat_tables(tables), self._entries)
        rows = rows.sort_by([(name, "ascending") for name in PLACE]).combine_chunks()
        return _distinct(rows)

    def take_in(self) -> None:
        """Delete the measurement files, once a version includes them."""
        with ThreadPoolExecutor(READERS) as pool, suppress(store.StoreError):  # files left behind do no harm
            list(
                pool.map(
                    lambda name: store.delete(store.join(self._folder, f"{name}.parquet")), self._names()
                )
            )

    def measured(self) -> tuple[int, int]:
        """Units and pictures that were measured and are in no version yet."""
        tables = self._measured()
        return len(tables), sum(table.num_rows for table in tables)

    def _names(self) -> list[str]:
        """The measured units."""
        if not store.exists(self._folder):
            return []
        return [PurePosixPath(e.path).stem for e in store.list_files(self._folder)]

    def _measured(self) -> list[pa.Table]:
        uris = [store.join(self._folder, f"{name}.parquet") for name in self._names()]
        with ThreadPoolExecutor(READERS) as pool:
            return [read_table(data) for data in pool.map(store.read_bytes, uris)]


def _living(table: pa.Table) -> pa.Table:
    """The rows of pictures that are not deleted."""
    return table.filter(pc.not_equal(table.column("verdict"), "deleted"))


def _objects(tables: Iterable[pa.Table]) -> set[str]:
    """The files with rows."""
    return {name for table in tables for name in pc.unique(table.column("object")).to_pylist()}


def _distinct(rows: pa.Table) -> pa.Table:
    """Sorted rows without repeated addresses; pictures with a name that occurred before get '@offset' appended."""
    if not rows.num_rows:
        return rows
    again = np.ones(rows.num_rows, np.bool_)
    again[0] = False
    for column in (rows.column(name).to_numpy() for name in PLACE):
        again[1:] &= column[1:] == column[:-1]
    rows = rows.filter(pa.array(~again))
    names = rows.column("name").to_pylist()
    if len(set(names)) == len(names):
        return rows
    seen: set[str] = set()
    for i, (name, offset) in enumerate(zip(names, rows.column("offset").to_pylist(), strict=True)):
        names[i] = f"{name}@{offset}" if name in seen else name
        seen.add(names[i])
    place = rows.schema.get_field_index("name")
    return rows.set_column(place, rows.schema.field(place), pa.array(names, pa.string()))
