"""What the rows of a table are measured on, and their measurements, stored in blocks so that a stopped one resumes."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.console.progress import WaitNotice
from pipeline.evaluation.crops import SIDE
from pipeline.evaluation.realworld import Pixels
from pipeline.evaluation.scores import Numbers
from pipeline.evaluation.sweep import Variant
from pipeline.evaluation.testset import PictureSet
from pipeline.io import images, store
from pipeline.io.tables import read_table
from pipeline.ledger.ledger import read_run

# Faces of one stored file of measurements.
BLOCK = 32
# Incremented when the same picture gives other values.
VERSION = 1
# Column → a value, or a vector.
Values = Mapping[str, float | Sequence[float]]


@dataclass(frozen=True)
class Pictures:
    """One row of a table: its crops, in the order of the set's sheet."""

    name: str
    # changes with the pictures
    version: str
    # number → [SIDE, SIDE, 3] uint8
    read: Callable[[int], Pixels]
    # known costs: parameters, network calls and seconds per face
    cost: Mapping[str, float]


def input_pictures(found: PictureSet, name: str) -> Pictures:
    """The row of the set itself."""
    return Pictures(name, "input", lambda number: found.read(found.degraded, found.names[number]), {})


def variant_pictures(found: PictureSet, variant: Variant) -> Pictures:
    """The row of a variant, after its restoration."""
    names = found.names
    version = read_run(variant.config.output.uri).digest
    return Pictures(
        variant.name, version, lambda n: _at_side(variant.picture(names[n])), variant.cost(len(names))
    )


def _at_side(picture: Pixels) -> Pixels:
    return picture if len(picture) == SIDE else images.resize(picture, SIDE)


class Measurements:
    """Measurements of rows over one set, below a folder.

    measure: the values of face `number` from its picture. method: everything else that affects a value.
    """

    def __init__(
        self, found: PictureSet, folder: str, method: Sequence[str], measure: Callable[[int, Pixels], Values]
    ) -> None:
        self._set, self._folder, self._measure = found, folder, measure
        self._method = list(method)
        # of the current row
        self._faces_done = 0

    def of(self, pictures: Pictures) -> pa.Table:
        """A row of values for each face, in the sheet's order. Raises StoreError where a picture is missing."""
        inputs = [VERSION, store.name_of(self._set.uri), pictures.version, *self._method]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
        slug = "".join(c if c.isalnum() or c in "=.-" else "_" for c in pictures.name)
        place = store.join(self._folder, f"{slug}-{digest}")
        count = len(self._set.names)
        starts = range(0, count, BLOCK)
        self._faces_done = 0
        with WaitNotice(f"measuring {pictures.name}", (lambda: self._faces_done, f"of {count} faces")):
            blocks = [self._block(place, pictures, range(s, min(s + BLOCK, count))) for s in starts]
        return pa.concat_tables(blocks, promote_options="permissive")

    def _block(self, place: str, pictures: Pictures, numbers: range) -> pa.Table:
        uri = store.join(place, f"{numbers.start:06d}.parquet")
        if not store.exists(uri):
            rows: list[dict[str, Any]] = []
            for number in numbers:
                rows.append({"number": number} | dict(self._measure(number, pictures.read(number))))
                self._faces_done = number + 1
            columns = dict.fromkeys(name for row in rows for name in row)
            table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            store.write_bytes(uri, buffer.getvalue())
        return read_table(store.read_bytes(uri))


def column(table: pa.Table, name: str) -> Numbers:
    """[F] of a measured column; nan where a face has no value."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)


def vectors(table: pa.Table, name: str) -> Numbers:
    """[F, D] of a measured column of vectors; nan in the rows of faces without."""
    found = table[name].to_pylist()
    length = max((len(v) for v in found if v), default=0)
    nothing = [np.nan] * length
    return np.array([v or nothing for v in found], np.float64).reshape(len(found), length)
