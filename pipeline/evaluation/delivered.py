"""Measurements of delivered photographs against the ground truth, at full size.

The pixels of the box around the head (photographs.head_box) are compared, and the identity in a crop by the landmarks
of the ground truth. Measurements are stored as Parquet and reused.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.console.progress import counted
from pipeline.evaluation.photographs import MOST_THREADS, PhotographSet, head_box
from pipeline.evaluation.realworld import Pixels
from pipeline.evaluation.scores import Numbers
from pipeline.faces.identity import CHIP, Embedder, Embedding, angle
from pipeline.io import images, layout, store
from pipeline.io.tables import read_table
from pipeline.io.weights import WeightsError, resolve_metric
from pipeline.ledger.ledger import read_run
from pipeline.metrics.fidelity import LPIPS, ssim
from pipeline.metrics.suite import find_embedding

log = logging.getLogger(__name__)

# Incremented when the same picture gives other values.
VERSION = 2
# Column → its name in tables.
METRICS: Mapping[str, str] = {"psnr": "PSNR", "angle": "angle", "lpips": "LPIPS", "ssim": "SSIM"}
# Lower bound of the mean squared error, on the 0..1 scale: equal pictures have a finite PSNR, 68 dB.
LEAST_ERROR = (0.1 / 255) ** 2

# that of a face without one
NO_EMBEDDING: Embedding = np.empty(0)
# column → its value of one picture
Values = dict[str, float]


def psnr(picture: Pixels, truth: Pixels) -> float:
    """PSNR in dB of two pictures of one shape, at most 68."""
    error = np.square(picture.astype(np.float64) - truth).mean() / 255**2
    return float(-10 * np.log10(max(error, LEAST_ERROR)))


class Scorer:
    """Measures single pictures. Thread-safe."""

    def __init__(self, weights_dir: str | None) -> None:
        self._weights_dir = weights_dir
        # why a metric is not measured, by its column
        self.left_out: dict[str, str] = {}
        self._lpips: LPIPS | None = None
        self._embedder: Embedder | None = None
        loads: dict[str, Callable[[], None]] = {
            "ssim": self._load_structure, "lpips": self._load_lpips, "angle": self._load_embedder
        }  # fmt: skip
        for name, load in loads.items():
            try:
                load()
            except (WeightsError, ImportError, FileNotFoundError, ValueError) as error:
                self.left_out[name] = str(error)
        self.names = tuple(name for name in METRICS if name not in self.left_out)

    def _load_structure(self) -> None:
        if find_spec("torchmetrics") is None:
            raise ImportError("SSIM needs the package torchmetrics")

    def _load_lpips(self) -> None:
        self._lpips = LPIPS(resolve_metric("lpips", self._weights_dir).path)

    def _load_embedder(self) -> None:
        self._embedder = Embedder(find_embedding(self._weights_dir), CHIP)

    def embedding(self, picture: Pixels, landmarks: NDArray[np.floating]) -> Embedding:
        """The embedding of the face with these landmarks, [128]; NO_EMBEDDING if unavailable."""
        if self._embedder is None:
            return NO_EMBEDDING
        return self._embedder.of_picture(picture, landmarks)

    def __call__(
        self, picture: Pixels, truth: Pixels, landmarks: NDArray[np.floating], true_embedding: Embedding
    ) -> Values:
        """The metrics of one picture against its ground truth, [H, W, 3] both; true_embedding: of the ground truth."""
        x0, y0, x1, y1 = head_box(landmarks, *truth.shape[:2])
        ours, theirs = picture[y0:y1, x0:x1], truth[y0:y1, x0:x1]
        found = {"psnr": psnr(ours, theirs)}
        pair = [torch.from_numpy(p.transpose(2, 0, 1)[None].copy()).float() / 255 for p in (ours, theirs)]
        if "ssim" in self.names:
            found["ssim"] = float(ssim(*pair))
        if self._lpips is not None:
            found["lpips"] = float(self._lpips(*pair))
        if len(true_embedding) and len(mine := self.embedding(picture, landmarks)):
            found["angle"] = angle(true_embedding, mine)
        return found


class Delivered:
    """Measurements of a set's photographs and of runs over them, cached in a folder."""

    def __init__(self, found: PhotographSet, folder: str, weights_dir: str | None) -> None:
        self._set, self._folder = found, folder
        self._scorer = Scorer(weights_dir)

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why a metric is not measured, by its column."""
        return self._scorer.left_out

    @cached_property
    def came(self) -> Mapping[str, Numbers]:
        """Column → [R] of the damaged photographs, in the sheet's order; nan where undefined."""
        return self._measured("input", "", self._set.degraded)

    def of_run(self, output: str) -> Mapping[str, Numbers]:
        """The same of what the run of this output delivered. Raises StoreError where a picture is missing."""
        run = read_run(output)
        return self._measured(store.name_of(output), run.digest, store.join(output, layout.IMAGES))

    def _measured(self, name: str, run: str, folder: str) -> Mapping[str, Numbers]:
        uri = self._place(name, run)
        if not store.exists(uri):
            known = self._embeddings
            jobs = [(rows, folder, known[rows[0][1]["number"]]) for rows in self._set.photographs()]
            found = {i: values for part in self._spread(self._measure_photograph, jobs) for i, values in part}
            rows = [found[i] for i in range(len(found))]
            columns = {m: pa.array([row.get(m) for row in rows], pa.float64()) for m in self._scorer.names}
            _write(uri, pa.table({"name": self._set.names} | columns))
        table = _read(uri)
        return {m: table[m].to_numpy() for m in self._scorer.names}

    def _measure_photograph(
        self, rows: Sequence[tuple[int, dict[str, Any]]], folder: str, true_embedding: Embedding
    ) -> list[tuple[int, Values]]:
        """Index and measurements of each row of one photograph, at all its levels."""
        first = rows[0][1]
        truth = self._set.read(self._set.truth, first["truth"])
        landmarks = np.reshape(first["landmarks"], (5, 2))
        pictures = ((i, images.decode_rgb(_bytes(folder, row["name"]))) for i, row in rows)
        return [(i, self._scorer(picture, truth, landmarks, true_embedding)) for i, picture in pictures]

    @cached_property
    def _embeddings(self) -> Mapping[int, Embedding]:
        """Photograph's number → embedding of its ground truth."""
        uri = self._place("truth", "")
        if not store.exists(uri):
            firsts = [rows[0][1] for rows in self._set.photographs()]
            numbers = [row["number"] for row in firsts]
            found = [list(e) for e in self._spread(self._embed_truth, [(row,) for row in firsts])]
            embeddings = pa.array(found, pa.list_(pa.float64()))
            _write(uri, pa.table({"number": numbers, "embedding": embeddings}))
        table = _read(uri)
        return {row["number"]: np.array(row["embedding"], np.float64) for row in table.to_pylist()}

    def _embed_truth(self, row: Mapping[str, Any]) -> Embedding:
        truth = self._set.read(self._set.truth, row["truth"])
        return self._scorer.embedding(truth, np.reshape(row["landmarks"], (5, 2)))

    def _spread(self, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results of the jobs, in order; one thread per job, each with one torch thread."""
        if not jobs:
            return []
        before = torch.get_num_threads()
        try:
            threads = min(os.cpu_count() or 1, MOST_THREADS)
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                done = pool.map(lambda job: work(*job), jobs)
                return counted(done, "measuring", len(jobs), "photographs")
        finally:
            torch.set_num_threads(before)

    def _place(self, name: str, run: str) -> str:
        """URI of the measurements of a run; its name contains a digest of everything that affects them."""
        inputs = [VERSION, store.name_of(self._set.uri), run, *self._scorer.names]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
        return store.join(self._folder, f"{name}-{digest}.parquet")


def _bytes(folder: str, name: str) -> bytes:
    return store.read_bytes(store.join(folder, f"{name}.png"))


def _write(uri: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    store.write_bytes(uri, buffer.getvalue())


def _read(uri: str) -> pa.Table:
    return read_table(store.read_bytes(uri))
