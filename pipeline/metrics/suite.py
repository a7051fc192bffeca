"""All metrics of a restored face, by name, and the object that computes them.

A metric whose package or weights are missing is left out, with the reason; a face for which a metric is undefined has
no value of it. A value depends on the face alone: networks take one face at a time on a CPU and batches of a fixed size
on a GPU.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.faces.geometry import CropFrame
from pipeline.faces.identity import Embedder, Network, angle
from pipeline.io.weights import WeightsError, resolve_metric
from pipeline.metrics.distribution import DIMENSIONS, InceptionFeatures
from pipeline.metrics.fidelity import LPIPS, psnr, ssim
from pipeline.metrics.landmarks import FFHQ, LandmarkReader, find_models, landmark_distance
from pipeline.metrics.quality import Brisque, find_brisque
from pipeline.networks.face_embedding import load_embedding

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


# metrics/directions.py says which direction is better.
METRICS: Mapping[str, Metric] = {
    "identity": Metric(("identity_kept",)),
    "landmarks": Metric(("landmark_shift",)),
    "quality": Metric(("quality_before", "quality_after")),
    "features": Metric(()),
    "psnr": Metric(("psnr",), True),
    "ssim": Metric(("ssim",), True),
    "lpips": Metric(("lpips",), True),
    "ids": Metric(("ids",), True),
    "lmd": Metric(("lmd",), True),
}


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """The record columns of these metrics, in the order of METRICS."""
    return tuple(column for name, metric in METRICS.items() if name in names for column in metric.columns)


def parse_metrics(text: str, with_truth: bool) -> tuple[str, ...]:
    """The metrics of a comma-separated list of names, `all` or `none`, in the order of METRICS.

    `all` leaves out those that need a ground truth where there is none. Raises ValueError for an unknown name, and for
    one that needs a ground truth where there is none.
    """
    if text == "none":
        return ()
    if text == "all":
        return tuple(name for name, metric in METRICS.items() if with_truth or not metric.needs_truth)
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
    # [F, DIMENSIONS] float16 of the restored and the true faces, nan in rows without; None: not requested
    features: NDArray[np.float16] | None = None
    features_truth: NDArray[np.float16] | None = None


class Suite:
    """The metrics of these names whose weights are available. Not thread-safe.

    device: of torch's networks; embedding, dlib and the statistics run on the CPU. frame: that of the crops.
    """

    def __init__(
        self,
        names: Sequence[str],
        device: str = "cpu",
        weights_dir: str | None = None,
        frame: CropFrame | None = None,
    ) -> None:
        self._frame = frame or FFHQ
        self._device = torch.device(device)
        # why a requested metric is not measured, by name
        self.left_out: dict[str, str] = {}
        self._paired: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        self._landmark_reader: LandmarkReader | None = None
        self._embedder: Embedder | None = None
        self._brisque: Brisque | None = None
        self._inception: InceptionFeatures | None = None
        makers: dict[str, Callable[[], None]] = {
            "identity": lambda: self._load_embedder(weights_dir),
            "landmarks": self._load_landmarks,
            "ids": lambda: self._load_embedder(weights_dir),
            "lmd": self._load_landmarks,
            "quality": lambda: self._load_brisque(weights_dir),
            "features": self._load_inception,
            "psnr": lambda: self._paired.update(psnr=psnr),
            "ssim": self._add_ssim,
            "lpips": lambda: self._add_lpips(weights_dir),
        }
        for name in names:
            try:
                makers[name]()
            except (WeightsError, ImportError, FileNotFoundError, ValueError) as error:
                self.left_out[name] = str(error)
        self.names = tuple(name for name in names if name not in self.left_out)

    def _load_embedder(self, weights_dir: str | None) -> None:
        self._embedder = self._embedder or Embedder(find_embedding(weights_dir), self._frame)

    def _load_landmarks(self) -> None:
        self._landmark_reader = self._landmark_reader or LandmarkReader(find_models(), self._frame)

    def _load_brisque(self, weights_dir: str | None) -> None:
        self._brisque = Brisque(find_brisque(weights_dir).path)

    def _load_inception(self) -> None:
        self._inception = InceptionFeatures().to(self._device)

    def _add_ssim(self) -> None:
        if find_spec("torchmetrics") is None:
            raise ImportError("SSIM needs the package torchmetrics")
        self._paired["ssim"] = ssim

    def _add_lpips(self, weights_dir: str | None) -> None:
        found = resolve_metric("lpips", weights_dir)
        self._paired["lpips"] = LPIPS(found.path, str(self._device))

    def __call__(self, faces: Sequence[Face]) -> Measured:
        """The measurements of these faces; the crops of one face have the same side."""
        values: list[Values] = [self._unpaired(face) for face in faces]
        for place, found in self._paired_values(faces):
            values[place] |= found
        finite = [{k: float(np.float32(v)) for k, v in one.items() if np.isfinite(v)} for one in values]
        if self._inception is None:
            return Measured(finite)
        truths = [face.truth for face in faces]
        return Measured(finite, self._features([face.after for face in faces]), self._features(truths))

    def _unpaired(self, face: Face) -> Values:
        """The metrics that take one face at a time; a metric that raises is left out for this face."""
        values: Values = {}
        for measure in (self._quality, self._identity, self._landmarks):
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

    def _landmarks(self, face: Face) -> Values:
        others = {"landmark_shift": face.before} if "landmarks" in self.names else {}
        others |= {"lmd": face.truth} if "lmd" in self.names and face.truth is not None else {}
        reader = self._landmark_reader
        if reader is None or not others:
            return {}
        ours = reader.landmarks(face.after)
        return {c: landmark_distance(reader.landmarks(other), ours) for c, other in others.items()}

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
