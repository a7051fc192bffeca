"""Measurements of a face without ground truth: no-reference metrics, its embedding, and its Inception features."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluation.challenge import ADAFACE, DLIB, FID, TERMS, IdentityRule
from pipeline.evaluation.crops import FRAME
from pipeline.evaluation.realworld import Pixels
from pipeline.evaluation.rows import Values
from pipeline.faces.identity import ARCFACE_CHIP, Embedder
from pipeline.io.weights import WeightsError, resolve_metric
from pipeline.metrics.distribution import InceptionFeatures
from pipeline.metrics.no_reference import MISSING, NO_REFERENCE, load_no_reference
from pipeline.metrics.suite import find_embedding
from pipeline.networks.adaface import load_adaface

# Columns of vectors, and the metrics in the table's order: the challenge's, then the others.
EMBEDDING, FEATURES = "embedding", "features"
METRICS = (*(n for n in TERMS if n in NO_REFERENCE), *(n for n in NO_REFERENCE if n not in TERMS))


class RealFaceMetrics:
    """The metrics whose weights are there, of crops of crops.FRAME. Not thread-safe.

    device: of torch's networks. has_reference: whether there are statistics for FID.
    """

    def __init__(self, weights_dir: str | None, device: str, has_reference: bool) -> None:
        self._metrics, self.left_out = load_no_reference(METRICS, weights_dir, device)
        self._device = device
        # the rule of the embedding; None where there is no embedding
        self.rule: IdentityRule | None = None
        self._embed: Callable[[Pixels], NDArray[np.floating]] | None = None
        self._load_embedding(weights_dir)
        self._inception: InceptionFeatures | None = None
        if not has_reference:
            self.left_out[FID] = "it needs statistics of sharp faces; give them with --reference"
            return
        try:
            self._inception = InceptionFeatures().to(device)
        except WeightsError as error:
            self.left_out[FID] = str(error)

    def _load_embedding(self, weights_dir: str | None) -> None:
        """AdaFace's where its weights are there, else dlib's."""
        try:
            network = load_adaface(resolve_metric("adaface", weights_dir).path)
            self._embed, self.rule = Embedder(network, FRAME, ARCFACE_CHIP), ADAFACE
            return
        except MISSING as error:
            self.left_out[ADAFACE.network] = str(error)
        try:
            self._embed, self.rule = Embedder(find_embedding(weights_dir), FRAME), DLIB
        except MISSING as error:
            self.left_out[DLIB.network] = str(error)

    @property
    def method(self) -> list[str]:
        """What affects the values: the metrics and the embedding by name, and the device's kind."""
        features = [FEATURES] if self._inception else []
        return [*self._metrics, *features, self.rule.network if self.rule else "", self._device]

    def __call__(self, picture: Pixels) -> Values:
        """The values of one crop, [512, 512, 3]; a metric that is undefined for it has none."""
        found: dict[str, float | list[float]] = {}
        for name, measure in self._metrics.items():
            value = measure(picture)
            found |= {name: value} if np.isfinite(value) else {}
        if self._embed is not None:
            found[EMBEDDING] = np.asarray(self._embed(picture), np.float64).tolist()
        if self._inception is not None:
            batch = torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()).to(self._device)
            # as stored in records and for references
            found[FEATURES] = (
                self._inception(batch)[0].cpu().numpy().astype(np.float16).astype(float).tolist()
            )
        return found
