"""Trials for the calibration: a photograph is damaged, its face restored with every treatment, pasted and measured."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.datasets.faces import FaceAddress
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import Treatment
from pipeline.evaluation.calibration import LEFT, Candidate, draw
from pipeline.evaluation.delivered import Scorer, Values
from pipeline.evaluation.photographs import MOST_PIXELS, measured_face
from pipeline.evaluation.realworld import Pixels, damage
from pipeline.faces.colour import anchor_change
from pipeline.faces.detect import CenterFace
from pipeline.faces.gates import Bounds, Gates, Judged
from pipeline.faces.geometry import CropFrame, face_to_crop, inside_picture, paste_change, warp_crop
from pipeline.faces.identity import Embedder, Embedding
from pipeline.io import images
from pipeline.io.weights import resolve
from pipeline.metrics.suite import find_embedding
from pipeline.networks.presets import Preset, load_network
from pipeline.networks.unet import UNet
from pipeline.stages.restore import make_engine


@dataclass(frozen=True)
class Sample:
    """One damaged photograph, with the results of every treatment of its face."""

    delta: float
    # by candidate
    measured: Mapping[Candidate, Values]
    # by candidate, of those that change the face: the measurements of its gates, by gate
    gates: Mapping[Candidate, Mapping[str, float]]
    # by candidate: [128] of the face
    embeddings: Mapping[Candidate, Embedding]
    # by candidate: [S, S, 3] uint8 crop of the delivered face; and that of the ground truth
    pictures: Mapping[Candidate, Pixels]
    truth: Pixels


class Trial:
    """A preset's engine with a scorer for its results. Raises WeightsError for missing weights."""

    def __init__(
        self, preset: Preset, candidates: Sequence[Candidate], seed: int, weights_dir: str | None
    ) -> None:
        self._preset, self._candidates, self._seed = preset, candidates, seed
        self._frame = CropFrame.from_table(preset.side, preset.crop)
        self._schedule = make_schedule(preset.steps)
        estimator, prior = (
            load_network(s, resolve(s.file, s.url, s.sha256, weights_dir).path)
            for s in (preset.estimator, preset.prior)
        )
        assert isinstance(prior, UNet)
        self._engine = make_engine(
            preset, estimator, prior, self._schedule, "cpu", threads=os.cpu_count() or 1
        )
        self.scorer = Scorer(weights_dir)
        embedder = Embedder(find_embedding(weights_dir), self._frame)
        # every gate is measured, and none refuses
        self._gates = Gates(Bounds(((0.0, np.inf),), np.inf, np.inf, -np.inf), self._frame, embedder)
        self._embedder = embedder
        self._detector = CenterFace()

    def close(self) -> None:
        """Finish the submitted faces, then stop the engine."""
        self._engine.close()

    def samples(self, number: int, face: FaceAddress, draws: int) -> Iterator[Sample]:
        """`draws` damaged samples of photograph `number`; none without a measurable face."""
        try:
            truth = images.decode(face.read(), MOST_PIXELS).rgb
        except images.ImageError:
            return
        found = measured_face(truth, self._detector)
        if found is None:
            return
        true_embedding = self.scorer.embedding(truth, found.landmarks)
        for turn in range(draws):
            rng = np.random.default_rng([self._seed, 6, number, turn])
            how = draw(rng)
            picture = truth if how is None else damage(truth, how, rng)
            yield self._sample(picture, truth, found.landmarks, true_embedding, f"{number:08x}{turn:02x}")

    def _sample(
        self, picture: Pixels, truth: Pixels, landmarks: Any, true_embedding: Any, name: str
    ) -> Sample:
        """The results of every treatment of the face of one damaged picture."""
        to_crop, side = face_to_crop(landmarks, self._frame), self._frame.side
        crop = warp_crop(picture, to_crop, side, self._frame.resampling)
        inside = inside_picture(to_crop, side, *picture.shape[1::-1])
        key = noise_key(self._seed, name, 0)
        submitted = {
            c: self._engine.submit(FaceJob(crop, key, self._preset.eta, self._treatment(c), inside=inside))
            for c in self._candidates
        }
        measured, pictures, gates, embeddings, delta = {}, {}, {}, {}, 0.0
        came: Judged | None = None
        for candidate, future in submitted.items():
            result = future.result()
            delta = result.estimated_change
            delivered = picture.astype(np.float32)
            restored = anchor_change(crop, result.restored)
            came = came or self._gates.face(crop, anchor_change(crop, result.estimated))
            embeddings[candidate] = self._embedder(restored)
            if candidate != LEFT:
                gates[candidate] = self._gates.measure(came, restored).rounded
                paste_change(delivered, picture, crop, restored, to_crop)
            rounded = np.rint(delivered).clip(0, 255).astype(np.uint8)
            measured[candidate] = self.scorer(rounded, truth, landmarks, true_embedding)
            pictures[candidate] = warp_crop(rounded, to_crop, side, "fine")
        return Sample(delta, measured, gates, embeddings, pictures, warp_crop(truth, to_crop, side, "fine"))

    def _treatment(self, c: Candidate) -> Treatment:
        if c.way != "chain":
            return Treatment(c.way)  # type: ignore[arg-type]  # left or estimator
        chain = chain_from(self._schedule, c.start_step, self._preset.start_rule, c.calls)
        return Treatment("chain", chain, c.hold, c.eta)
