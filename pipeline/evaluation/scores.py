"""Scores from the records of evaluation runs: means with intervals, paired differences, strata by severity.

A run's records have one row per face with the metrics of pipeline/metrics; here they are joined with the test set's
sheet.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.console.progress import WaitNotice
from pipeline.evaluation.testset import EvaluationSet
from pipeline.io import layout, store
from pipeline.metrics.directions import metric_info
from pipeline.metrics.distribution import frechet_distance
from pipeline.metrics.fidelity import psnr
from pipeline.metrics.suite import Face, Suite, parse_metrics

Numbers = NDArray[np.float64]
Pixels = NDArray[np.uint8]
# [F] mask over a set's faces
Faces = NDArray[np.bool_]
READERS = 16
# Record columns that are scored → their names in tables.
COLUMNS: Mapping[str, str] = {
    "psnr": "PSNR",
    "hole_psnr": "PSNR in the hole",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "ids": "IDS",
    "lmd_mesh": "LMD (mesh)",
    "lmd": "LMD (dlib 68)",
    "quality_after": "BRISQUE",
    "niqe": "NIQE",
}
FID = "FID"
# Names of scores where higher is better.
HIGHER = frozenset({"PSNR in the hole"} | {n for c, n in COLUMNS.items() if metric_info(c).better == "up"})
FEATURES = ("features", "features_truth")
STRATA = 5
# Half width of a 95 % interval in standard errors.
Z = 1.96
RESAMPLES = 20
# Smallest half width that is shown, as a share of the value.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Score:
    """A mean, or FID, with the half width of its 95 % interval (nan for a single face)."""

    value: float
    half: float
    faces: int

    def __str__(self) -> str:
        # below that it is rounding alone
        half = 0.0 if self.half < ROUNDING * abs(self.value) else self.half
        return f"{self.value:.4g} ± {half:.2g}"


@dataclass(frozen=True)
class Measured:
    """One row of the table: the measurements of each face, in the order of the test set's sheet."""

    name: str
    # column → [F] float64, nan where a face has no value
    values: Mapping[str, Numbers]
    # [F, 2048] of result and ground truth, of faces that have both; None where FID is not measured
    features: tuple[Numbers, Numbers] | None
    # known costs: seconds and network calls per face, total parameters
    cost: Mapping[str, float]

    @property
    def faces(self) -> int:
        """Number of faces in the set."""
        return len(next(iter(self.values.values())))

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Every score by its name in the table."""
        columns = [c for c in COLUMNS if c in self.values and np.isfinite(self.values[c]).any()]
        found = {COLUMNS[c]: mean(self.values[c]) for c in columns}
        if self.features:
            found[FID] = fid(*self.features)
        return found


def mean(values: Numbers) -> Score:
    """The mean of the finite values."""
    finite = values[np.isfinite(values)]
    half = Z * finite.std(ddof=1) / len(finite) ** 0.5 if len(finite) > 1 else float("nan")
    return Score(float(finite.mean()), float(half), len(finite))


def fid(restored: Numbers, truth: Numbers) -> Score:
    """FID of two sets of features, [F, D] each, with a bootstrap interval over pairs of faces.

    The half width is that of the resampled distances around their own mean: resampling is biased upwards.
    """
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(truth), size=len(truth)) for _ in range(RESAMPLES)]
    spread = np.std([frechet_distance(restored[d], truth[d]) for d in draws], ddof=1)
    return Score(frechet_distance(restored, truth), float(Z * spread), len(truth))


def read_run(output: str, names: Sequence[str], name: str, cost: Mapping[str, float]) -> Measured:
    """The row of one run. names: the test set's faces; a picture is called NAME.png in the run."""
    entries = [
        e.uri for e in store.list_files(store.join(output, layout.RECORDS)) if e.path.endswith(".parquet")
    ]
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(_faces_of, entries))
    rows = pa.concat_tables(tables, promote_options="permissive")
    place = {f"{n}.png": i for i, n in enumerate(names)}
    where = np.array([place[m] for m in rows["member"].to_pylist()], int)
    values: dict[str, Numbers] = {}
    for column in (c for c in rows.column_names if c in COLUMNS):
        values[column] = np.full(len(names), np.nan)
        values[column][where] = rows[column].cast(pa.float64()).to_numpy()
    return Measured(name, values, _features(rows), cost)


def _faces_of(uri: str) -> pa.Table:
    """A unit's rows of restored faces, with the scored columns."""
    file = pq.ParquetFile(pa.BufferReader(store.read_bytes(uri)), pre_buffer=False)
    wanted = {"kind", "member", "error", *COLUMNS, *FEATURES} & set(file.schema_arrow.names)
    rows = file.read(columns=sorted(wanted), use_threads=False)
    return rows.filter((pc.field("kind") == "face") & (pc.field("error") == ""))


def _features(rows: pa.Table) -> tuple[Numbers, Numbers] | None:
    """[F, D] of results and ground truths, of faces that have both."""
    if not set(FEATURES) <= set(rows.column_names):
        return None
    both = rows.filter(pc.field(FEATURES[0]).is_valid() & pc.field(FEATURES[1]).is_valid())
    if len(both) < 2:
        return None
    restored, truth = (np.array(both[name].to_pylist(), np.float64) for name in FEATURES)
    return restored, truth


def measure(
    name: str, pairs: Iterable[tuple[Pixels, Pixels]], metrics: str, weights_dir: str | None
) -> Measured:
    """The row of pictures without a run. pairs: picture and ground truth, [S, S, 3] each; metrics: as --metrics."""
    suite = Suite(parse_metrics(metrics, with_truth=True), "cpu", weights_dir)
    with WaitNotice(f"measuring {name}"):
        found = suite([Face(picture, picture, truth) for picture, truth in pairs])
    columns = dict.fromkeys(c for values in found.values for c in values if c in COLUMNS)
    values = {c: np.array([v.get(c, np.nan) for v in found.values]) for c in columns}
    features = None
    if found.features is not None and found.features_truth is not None and len(found.values) > 1:
        features = (found.features.astype(np.float64), found.features_truth.astype(np.float64))
    return Measured(name, values, features, {})


def hole_psnr(found: EvaluationSet, name: str, picture: Pixels) -> float:
    """PSNR of the pixels in the hole of one face of the set, dB. picture: [S, S, 3]."""
    hole = found.hole(name)
    ours, truth = (
        torch.from_numpy(p[hole]).T[None, :, None] for p in (picture, found.read(found.truth, name))
    )
    return float(psnr(ours.float() / 255, truth.float() / 255))


def difference(row: Measured, base: Measured) -> dict[str, Score]:
    """row - base, face by face; FID with the same resampled faces for both."""
    shared = [c for c in COLUMNS if c in row.values and c in base.values]
    found = {
        COLUMNS[c]: mean(gap) for c in shared if np.isfinite(gap := row.values[c] - base.values[c]).any()
    }
    if row.features and base.features and len(row.features[1]) == len(base.features[1]):
        found[FID] = fid_difference(row.features, base.features)
    return found


def fid_difference(row: tuple[Numbers, Numbers], base: tuple[Numbers, Numbers]) -> Score:
    """Difference of the FIDs of two sets to the same ground truth."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(row[1]), size=len(row[1])) for _ in range(RESAMPLES)]
    gaps = [frechet_distance(row[0][d], row[1][d]) - frechet_distance(base[0][d], base[1][d]) for d in draws]
    value = frechet_distance(*row) - frechet_distance(*base)
    return Score(value, float(Z * np.std(gaps, ddof=1)), len(row[1]))


def strata(sheet: pa.Table, kind: str = "error") -> dict[str, Faces]:
    """Faces by severity, mildest first: [F] masks by name. kind: a column of the sheet; numbers are cut into fifths."""
    column = np.asarray(sheet[kind].to_pylist())
    if column.dtype.kind not in "fi":
        return {str(name): column == name for name in dict.fromkeys(column.tolist())}
    rank = column.argsort(kind="stable").argsort()
    fifth = rank * STRATA // len(column)
    named: dict[str, Faces] = {}
    for part in range(min(STRATA, len(column))):
        inside = fifth == part
        if inside.any():
            named[f"{column[inside].min():.3g} - {column[inside].max():.3g}"] = inside
    return named


def by_stratum(row: Measured, groups: Mapping[str, Faces]) -> dict[str, dict[str, Score]]:
    """Name in the table → stratum → mean."""
    found: dict[str, dict[str, Score]] = {}
    for column in (c for c in COLUMNS if c in row.values):
        values = row.values[column]
        means = {g: mean(values[inside]) for g, inside in groups.items() if np.isfinite(values[inside]).any()}
        if means:
            found[COLUMNS[column]] = means
    return found


def nearest_to_ideal(points: Mapping[str, tuple[float, float]]) -> str:
    """The point nearest to the ideal of both axes, each scaled to the points' range. points: smaller is better."""
    values = np.array(list(points.values()))
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1)
    return list(points)[int(np.linalg.norm(scaled, axis=1).argmin())]
