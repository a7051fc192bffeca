"""The benchmark at 512 px: clean faces as aligned crops, damaged by the paper's grid and by the real-world grid."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.datasets.degradation import degrade, grid_degradation
from pipeline.datasets.faces import FaceAddress
from pipeline.evaluation.crops import Reason, cut_face, finish, folder_digest, key_of, left_out_of
from pipeline.evaluation.photographs import damaged, for_each
from pipeline.evaluation.realworld import LEVELS, Pixels
from pipeline.evaluation.rows import Values, column, vectors
from pipeline.evaluation.scores import COLUMNS, FEATURES, Faces, Measured
from pipeline.evaluation.testset import PictureSet
from pipeline.faces.detect import CenterFace
from pipeline.io import images, store
from pipeline.metrics.suite import Face, Suite

# Incremented when the same settings give another set.
VERSION = 1
# The level of the paper's grid, beside those of the real-world grid.
PAPER = "paper"
# A crop of 512 px is not made of a face that would have to be enlarged by more than this.
MOST_ENLARGED = 1.25
SHEET = pa.schema(
    {
        "name": pa.string(),
        # of the face, and the name of its ground truth
        "number": pa.int64(),
        "truth": pa.string(),
        "level": pa.string(),
        # of its photograph, without the suffix
        "source": pa.string(),
        # the damage as JSON, its fields as in datasets/degradation.py and realworld.py
        "damage": pa.string(),
    }
)


@dataclass(frozen=True)
class BenchmarkSet(PictureSet):
    """Aligned crops at every level: `degraded` holds NUMBER-LEVEL.png, `truth` NUMBER.png."""

    seed: int
    levels: tuple[str, ...]

    @property
    def contents(self) -> str:
        """Its contents in words."""
        return f"{len(set(self.sheet['number'].to_pylist()))} faces of 512 px at {len(self.levels)} levels"

    @cached_property
    def rows_of(self) -> dict[str, Faces]:
        """Level → mask over the sheet's rows."""
        column = np.array(self.sheet["level"].to_pylist())
        return {level: column == level for level in self.levels}

    def true(self, place: int) -> Pixels:
        """The ground truth of row `place` of the sheet."""
        return self.read(self.truth, self.sheet["truth"][place].as_py())


def place_benchmark(
    faces: Sequence[FaceAddress], seed: int, levels: Sequence[str], around: str
) -> BenchmarkSet:
    """The set of these photographs below `around`, written or not. levels: of the real-world grid."""
    middles = {level: middle and asdict(middle) for level in levels for middle in (LEVELS[level],)}
    inputs = [VERSION, seed, middles, MOST_ENLARGED, folder_digest(faces)]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    return BenchmarkSet(store.join(around, f"512-{digest}"), seed, (PAPER, *levels))


def write_benchmark(found: BenchmarkSet, faces: Sequence[FaceAddress]) -> dict[Reason, int]:
    """Write the set unless it exists; returns how many photographs are left out. Raises SampleError without a face."""
    if not found.is_whole:

        def written(number: int, detector: CenterFace) -> list[dict[str, Any]] | Reason:
            cuts = cut_face(faces[number].read(), detector, MOST_ENLARGED)
            if isinstance(cuts, str):
                return cuts
            return _write_face(found, number, cuts[0].crop, key_of(faces[number]))

        finish(found, for_each(faces, written), SHEET)
    return left_out_of(found)


def _write_face(found: BenchmarkSet, number: int, clean: Pixels, source: str) -> list[dict[str, Any]]:
    """Write one face and its damaged copies. Returns its rows of the sheet."""
    truth = f"{number:06d}"
    store.write_bytes(store.join(found.truth, f"{truth}.png"), images.encode_png(clean))
    rows = []
    for level in found.levels:
        picture, how = damaged_crop(clean, found.seed, number, level)
        name = f"{truth}-{level}"
        store.write_bytes(store.join(found.degraded, f"{name}.png"), images.encode_png(picture))
        row = {"name": name, "number": number, "truth": truth, "level": level, "source": source}
        rows.append(row | {"damage": json.dumps(how)})
    return rows


def damaged_crop(clean: Pixels, seed: int, number: int, level: str) -> tuple[Pixels, dict[str, Any]]:
    """Crop `number` of a set at a level, [S, S, 3], and its damage; PAPER as `jobs.evaluate --grid paper` does it."""
    if level != PAPER:
        return damaged(clean, seed, number, level)
    how = grid_degradation(number, seed)
    return degrade(clean, how, np.random.default_rng([seed, 4, number]))[0], asdict(how)


class TruthScorer:
    """Measures the crops of a set against their ground truth."""

    def __init__(self, found: BenchmarkSet, suite: Suite) -> None:
        self._set, self._suite = found, suite

    def __call__(self, place: int, picture: Pixels) -> Values:
        """The values of row `place` of the sheet."""
        measured = self._suite([Face(picture, picture, self._set.true(place))])
        found: dict[str, float | Sequence[float]] = {
            k: v for k, v in measured.values[0].items() if k in COLUMNS
        }
        for name in FEATURES:
            features = getattr(measured, name)
            if features is not None:
                found[name] = features[0].astype(float).tolist()
        return found


def measured_row(name: str, table: pa.Table, cost: Mapping[str, float]) -> Measured:
    """The row of the report, from what TruthScorer measured of every picture."""
    values = {c: column(table, c) for c in COLUMNS if c in table.column_names}
    features = None
    if set(FEATURES) <= set(table.column_names):
        features = (vectors(table, FEATURES[0]), vectors(table, FEATURES[1]))
    return Measured(name, values, features, cost)


def part_of(row: Measured, inside: Faces) -> Measured:
    """The row over some of its pictures."""
    features = (
        None
        if row.features is None or inside.sum() < 2
        else (row.features[0][inside], row.features[1][inside])
    )
    return replace(row, values={c: v[inside] for c, v in row.values.items()}, features=features)
