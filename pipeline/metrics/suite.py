"""All metrics of a restored face, by name, and the object that computes them.

A metric whose package or weights are missing is left out, with the reason; a face for which a metric is undefined has
no value of it. A value depends on the face alone: networks take one face at a time on a CPU and batches of a fixed size
on a GPU.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.faces.geometry import CropFrame
from pipeline.faces.identity import ARCFACE_CHIP, Embedder, Network, angle, cosine
from pipeline.io.weights import resolve_metric
from pipeline.metrics.distribution import DIMENSIONS, InceptionFeatures
from pipeline.metrics.dists import Dists
from pipeline.metrics.fidelity import LPIPS, psnr, ssim
from pipeline.metrics.landmarks import (
    Dlib68Landmarks,
    LandmarkReader,
    MeshLandmarks,
    find_dlib_models,
    landmark_distance,
)
from pipeline.metrics.no_reference import MISSING, NO_REFERENCE, load_metric
from pipeline.metrics.quality import Brisque, find_brisque
from pipeline.networks.adaface import load_adaface
from pipeline.networks.face_embedding import load_embedding
from pipeline.networks.face_mesh import load_mesh

log = logging.getLogger(__name__)

Crop = NDArray[np.uint8]
Values = dict[str, float]

# faces per network call on a GPU
BATCH = 16


@dataclass(frozen=True)
class Metric:
    """One name of --metrics."""

    # record columns, one value per face
    columns: tuple[str, ...]
    # needs the ground truth
    needs_truth: bool = False
    # slow, or by weights that are large or brought by the user: measured only where it is named
    only_named: bool = False
    # what restricts the use of its model, a clause; such a metric, too, is measured only where it is named
    terms: str = ""


DLIB68_TERMS = (
    "its model, dlib's shape_predictor_68_face_landmarks, was trained on iBUG 300-W, whose licence excludes "
    "commercial use"
)
# metrics/directions.py says which direction is better. Each model of landmarks has columns of its own: values of two
# models never mix in one.
METRICS: Mapping[str, Metric] = {
    "identity": Metric(("identity_kept",)),
    "landmarks": Metric(("landmark_shift_mesh",)),
    "quality": Metric(("quality_before", "quality_after")),
    "adaface": Metric(("adaface_kept",), only_named=True),
    **{name: Metric((name,), only_named=name != "niqe") for name in NO_REFERENCE},
    "features": Metric(()),
    "psnr": Metric(("psnr",), True),
    "ssim": Metric(("ssim",), True),
    "lpips": Metric(("lpips",), True),
    "dists": Metric(("dists",), True, only_named=True),
    "ids": Metric(("ids",), True),
    "lmd": Metric(("lmd_mesh",), True),
    "landmarks-dlib68": Metric(("landmark_shift",), terms=DLIB68_TERMS),
    "lmd-dlib68": Metric(("lmd",), True, terms=DLIB68_TERMS),
}


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """The record columns of these metrics, in the order of METRICS."""
    return tuple(column for name, metric in METRICS.items() if name in names for column in metric.columns)


def parse_metrics(text: str, with_truth: bool) -> tuple[str, ...]:
    """The metrics of a comma-separated list of names, `all` or `none`, in the order of METRICS.

    `all` leaves out those that are measured only by name, and those that need a ground truth where there is none.
    Raises ValueError for an unknown name, and for one that needs a ground truth where there is none.
    """
    if text == "none":
        return ()
    if text == "all":
        common = (name for name, metric in METRICS.items() if not (metric.only_named or metric.terms))
        return tuple(name for name in common if with_truth or not METRICS[name].needs_truth)
    wanted = {name.strip() for name in text.split(",")}
    if unknown := sorted(wanted - METRICS.keys()):
        raise ValueError(f"expected all, none, or some of {', '.join(METRICS)}, got {', '.join(unknown)}")
    without_truth = [
        name for name in METRICS if name in wanted and METRICS[name].needs_truth and not with_truth
    ]
    if without_truth:
        raise ValueError(f"{', '.join(without_truth)} compare with the ground truth; give it with --truth")
    return tuple(name for name in METRICS if name in wanted)


def find_embedding(weights_dir: str | None) -> Network:
    """The face embedding. Raises WeightsError or CheckpointError."""
    return load_embedding(resolve_metric("identity", weights_dir).path)


@dataclass(frozen=True)
class Face:
    """The crops of one face: [S, S, 3] uint8 RGB each."""

    before: Crop
    after: Crop
    truth: Crop | None = None


@dataclass(frozen=True)
class Measured:
    """The measurements of some faces."""

    # of each face, by column, without undefined ones
    values: list[Values]
    # [F, DIMENSIONS] float16 of the restored faces, the true ones and those that came, nan in rows without; None: not
    # requested
    features: NDArray[np.float16] | None = None
    features_truth: NDArray[np.float16] | None = None
    features_before: NDArray[np.float16] | None = None


class Suite:
    """The metrics of these names whose weights are available. Not thread-safe.

    device: of torch's networks; embedding, dlib and the statistics run on the CPU. frame: that of the crops.
    with_truth: the features of true faces are measured, else those of the faces as they came.
    """

    def __init__(
        self,
        names: Sequence[str],
        device: str = "cpu",
        weights_dir: str | None = None,
        frame: CropFrame | None = None,
        with_truth: bool = True,
    ) -> None:
        self._frame, self._with_truth = frame or CropFrame(512), with_truth
        self._device = torch.device(device)
        # why a requested metric is not measured, by name
        self.left_out: dict[str, str] = {}
        self._paired: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        self._mesh: LandmarkReader | None = None
        self._dlib68: LandmarkReader | None = None
        self._embedder: Embedder | None = None
        self._brisque: Brisque | None = None
        self._adaface: Embedder | None = None
        # of the no-reference metrics
        self._no_reference: list[Callable[[Face], Values]] = []
        self._inception: InceptionFeatures | None = None
        makers: dict[str, Callable[[], None]] = {
            "identity": lambda: self._load_embedder(weights_dir),
            "landmarks": lambda: self._load_mesh(weights_dir),
            "ids": lambda: self._load_embedder(weights_dir),
            "lmd": lambda: self._load_mesh(weights_dir),
            "landmarks-dlib68": self._load_dlib68,
            "lmd-dlib68": self._load_dlib68,
            "quality": lambda: self._load_brisque(weights_dir),
            "features": self._load_inception,
            "psnr": lambda: self._paired.update(psnr=psnr),
            "ssim": self._add_ssim,
            "lpips": lambda: self._add_lpips(weights_dir),
            "dists": lambda: self._add_dists(weights_dir),
            "adaface": lambda: self._load_adaface(weights_dir),
        }
        makers |= {name: partial(self._load_no_reference, name, weights_dir) for name in NO_REFERENCE}
        for name in names:
            try:
                makers[name]()
            except MISSING as error:
                self.left_out[name] = str(error)
        self.names = tuple(name for name in names if name not in self.left_out)

    def _load_embedder(self, weights_dir: str | None) -> None:
        self._embedder = self._embedder or Embedder(find_embedding(weights_dir), self._frame)

    def _load_mesh(self, weights_dir: str | None) -> None:
        self._mesh = self._mesh or MeshLandmarks(
            load_mesh(resolve_metric("landmarks", weights_dir).path), self._frame
        )

    def _load_dlib68(self) -> None:
        self._dlib68 = self._dlib68 or Dlib68Landmarks(find_dlib_models(), self._frame)

    def _load_brisque(self, weights_dir: str | None) -> None:
        self._brisque = Brisque(find_brisque(weights_dir).path)

    def _load_adaface(self, weights_dir: str | None) -> None:
        network = load_adaface(resolve_metric("adaface", weights_dir).path)
        self._adaface = Embedder(network, self._frame, ARCFACE_CHIP)

    def _load_no_reference(self, name: str, weights_dir: str | None) -> None:
        measure = load_metric(name, weights_dir, str(self._device))
        self._no_reference.append(lambda face: {name: measure(face.after)})

    def _load_inception(self) -> None:
        self._inception = InceptionFeatures().to(self._device)

    def _add_ssim(self) -> None:
        if find_spec("torchmetrics") is None:
            raise ImportError("SSIM needs the package torchmetrics")
        self._paired["ssim"] = ssim

    def _add_lpips(self, weights_dir: str | None) -> None:
        found = resolve_metric("lpips", weights_dir)
        self._paired["lpips"] = LPIPS(found.path, str(self._device))

    def _add_dists(self, weights_dir: str | None) -> None:
        self._paired["dists"] = Dists(resolve_metric("dists", weights_dir).path, str(self._device))

    def __call__(self, faces: Sequence[Face]) -> Measured:
        """The measurements of these faces; the crops of one face have the same side."""
        values: list[Values] = [self._unpaired(face) for face in faces]
        for place, found in self._paired_values(faces):
            values[place] |= found
        finite = [{k: float(np.float32(v)) for k, v in one.items() if np.isfinite(v)} for one in values]
        if self._inception is None:
            return Measured(finite)
        restored = self._features([face.after for face in faces])
        if self._with_truth:
            return Measured(finite, restored, self._features([face.truth for face in faces]))
        return Measured(finite, restored, None, self._features([face.before for face in faces]))

    def _unpaired(self, face: Face) -> Values:
        """The metrics that take one face at a time; a metric that raises is left out for this face."""
        values: Values = {}
        of_face = (self._quality, self._identity, self._landmarks, self._adaface_kept)
        for measure in (*of_face, *self._no_reference):
            try:
                values |= measure(face)
            except Exception as error:  # one face must not fail its unit
                log.warning("a face could not be measured: %s: %s", type(error).__name__, error)
        return values

    def _quality(self, face: Face) -> Values:
        if self._brisque is None:
            return {}
        return {"quality_before": self._brisque(face.before), "quality_after": self._brisque(face.after)}

    def _identity(self, face: Face) -> Values:
        others = {"identity_kept": face.before} if "identity" in self.names else {}
        others |= {"ids": face.truth} if "ids" in self.names and face.truth is not None else {}
        if self._embedder is None or not others:
            return {}
        ours = self._embedder(face.after)
        return {column: angle(self._embedder(other), ours) for column, other in others.items()}

    def _adaface_kept(self, face: Face) -> Values:
        if self._adaface is None:
            return {}
        return {"adaface_kept": cosine(self._adaface(face.before), self._adaface(face.after))}

    def _landmarks(self, face: Face) -> Values:
        values: Values = {}
        for reader, shift, lmd in (
            (self._mesh, "landmarks", "lmd"),
            (self._dlib68, "landmarks-dlib68", "lmd-dlib68"),
        ):
            others = {shift: face.before, lmd: face.truth}
            wanted = {name: crop for name, crop in others.items() if name in self.names and crop is not None}
            if reader is None or not wanted:
                continue
            ours = reader(face.after)
            for name, crop in wanted.items():
                values[METRICS[name].columns[0]] = landmark_distance(reader(crop), ours)
        return values

    def _paired_values(self, faces: Sequence[Face]) -> Iterator[tuple[int, Values]]:
        """Index and full-reference metrics of the faces that have a ground truth."""
        paired = [(i, face.after, face.truth) for i, face in enumerate(faces) if face.truth is not None]
        for places, batch in self._batches([(i, np.stack([a, t])) for i, a, t in paired]):
            if not self._paired:
                return
            scaled = batch.float() / 255
            after, truth = scaled[:, 0], scaled[:, 1]
            found = {name: compare(after, truth).tolist() for name, compare in self._paired.items()}
            for row, place in enumerate(places):
                yield place, {name: values[row] for name, values in found.items()}

    def _features(self, crops: Sequence[Crop | None]) -> NDArray[np.float16]:
        assert self._inception is not None
        features = np.full((len(crops), DIMENSIONS), np.nan, np.float16)
        for places, batch in self._batches([(i, c[None]) for i, c in enumerate(crops) if c is not None]):
            found = self._inception(batch[:, 0])
            features[places] = found[: len(places)].cpu().numpy().astype(np.float16)
        return features

    def _batches(self, items: Sequence[tuple[int, Crop]]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices and [B, K, 3, S, S] uint8 of items [K, S, S, 3]; on a GPU B is BATCH, padded with the last item."""
        size = 1 if self._device.type == "cpu" else BATCH
        ordered = sorted(items, key=lambda item: item[1].shape)
        of_a_side = [list(group) for _, group in groupby(ordered, key=lambda item: item[1].shape)]
        for part in (group[i : i + size] for group in of_a_side for i in range(0, len(group), size)):
            filled = [crops for _, crops in part] + [part[-1][1]] * (size - len(part))
            batch = torch.from_numpy(np.stack(filled)).to(self._device)
            yield [place for place, _ in part], batch.permute(0, 1, 4, 2, 3).contiguous()
