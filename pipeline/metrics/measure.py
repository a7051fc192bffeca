"""The actor that measures restored faces, against their inputs and against the ground truth where there is one.

A separate stage, so that its networks are loaded once and engines never wait for it. It changes no pixels.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame
from pipeline.io.units import Unit
from pipeline.metrics.suite import Crop, Face, Measured, Suite
from pipeline.metrics.truth import read_truths, truth_crop
from pipeline.networks.precision import fix_kernels
from pipeline.records.rows import (
    FEATURE_COLUMNS,
    FaceRecord,
    Row,
    crop_sides,
    dump_records,
    load_faces,
    load_images,
    unpack,
    with_crops,
)


@dataclass(frozen=True)
class MeasureSettings:
    """The settings of a measuring actor."""

    # names in metrics/suite.py
    metrics: tuple[str, ...]
    # where the ground truth is, as --truth; None without
    truth: str | None
    frame: CropFrame
    # each picture is one face's crop
    aligned: bool
    max_pixels: int
    weights_dir: str | None
    device: str = "cpu"


class MeasureFaces:
    """Row with `restored` → row with the measured values in its `faces`, and the requested feature columns."""

    def __init__(self, settings: MeasureSettings) -> None:
        self._settings = settings
        # engines use the other cores, and one thread sums in the same order everywhere
        torch.set_num_threads(1)
        fix_kernels(torch.device(settings.device))
        self._suite = Suite(
            settings.metrics,
            settings.device,
            settings.weights_dir,
            settings.frame,
            with_truth=settings.truth is not None,
        )

    def __call__(self, row: Row) -> Row:
        if row.get("restored") is None:
            return row  # not started
        began = time.monotonic()
        every = load_faces(row)
        faces = with_crops(every)
        sides = crop_sides(faces, self._settings.frame.side)
        before, after = (unpack(row[name], sides) for name in ("crops", "restored"))
        truths = self._truths(row, faces)
        # a failed face has its input in place of the restoration: it must not be measured
        good = [i for i, face in enumerate(faces) if not face.error]
        measured = self._suite([Face(before[i], after[i], truths[i]) for i in good])
        for i, values in zip(good, measured.values, strict=True):
            faces[i].measured = values
        sums = {"seconds_measure": time.monotonic() - began}
        if self._settings.truth is not None:
            sums["truths_missing"] = float(sum(truths[i] is None for i in good))
        return (
            row
            | {"faces": dump_records(every), "sums": json.dumps(json.loads(row["sums"]) | sums)}
            | self._features(measured, good, len(faces))
        )

    def _truths(self, row: Row, faces: Sequence[FaceRecord]) -> list[Crop | None]:
        """The ground-truth crop of each face, or None."""
        s = self._settings
        crops: list[Crop | None] = [None] * len(faces)
        if s.truth is None:
            return crops
        images, unit = load_images(row), Unit.from_json(row["work"])
        for place, truth in read_truths(s.truth, unit, {f.image for f in faces}, s.max_pixels):
            for i, face in enumerate(faces):
                if face.image == place:
                    crops[i] = truth_crop(truth, images[place], face, s.frame.of(face.side), s.aligned)
        return crops

    def _features(self, measured: Measured, good: Sequence[int], count: int) -> Row:
        """The feature columns, [F, D] with nan in the rows of faces without features."""
        found: Row = {}
        for name in FEATURE_COLUMNS:
            features: NDArray[np.float16] | None = getattr(measured, name)
            if features is not None:
                rows = np.full((count, features.shape[1]), np.nan, np.float16)
                rows[list(good)] = features
                found[name] = rows.tobytes()
        return found
