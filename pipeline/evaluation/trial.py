"""Trials for the calibration: a photograph is damaged, its face restored with every treatment, pasted and measured."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.faces import FaceAddress
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import Treatment, Treatments
from pipeline.evaluation.calibration import LEFT, Candidate, draw
from pipeline.evaluation.delivered import Scorer, Values
from pipeline.evaluation.photographs import MOST_PIXELS, measured_face
from pipeline.evaluation.realworld import Pixels, damage
from pipeline.evaluation.spread_fit import Sampled
from pipeline.faces.colour import anchor_change
from pipeline.faces.detect import CenterFace
from pipeline.faces.gates import Bounds, Gates, Judged
from pipeline.faces.geometry import CropFrame, face_to_crop, inside_picture, resize_crop, warp_crop
from pipeline.faces.identity import Embedder, Embedding
from pipeline.faces.pasting import paste_change
from pipeline.faces.spread import face_region, measure_spread, nearest_to_mean
from pipeline.io import images
from pipeline.io.weights import resolve
from pipeline.metrics.suite import find_embedding
from pipeline.networks.presets import Preset, load_network
from pipeline.networks.unet import UNet
from pipeline.stages.engines import engine_maker
from pipeline.stages.ladder import samples_of


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


@dataclass(frozen=True)
class DamagedFace:
    """A damaged photograph with its face."""

    picture: Pixels
    truth: Pixels
    landmarks: NDArray[np.floating]
    true_embedding: Embedding
    # what its noise depends on
    name: str
    frame: CropFrame

    @cached_property
    def to_crop(self) -> NDArray[np.float64]:
        """The 2x3 similarity from picture to crop."""
        return face_to_crop(self.landmarks, self.frame)

    @cached_property
    def crop(self) -> Pixels:
        """[S, S, 3] uint8 of the damaged face."""
        return warp_crop(self.picture, self.to_crop, self.frame.side, self.frame.resampling)

    @cached_property
    def true_crop(self) -> Pixels:
        """[S, S, 3] uint8 of the true face, also where the damaged picture has another size than the true one."""
        (height, width), (h, w) = self.truth.shape[:2], self.picture.shape[:2]
        to_crop = resize_crop(self.to_crop, width / w, height / h)
        return warp_crop(self.truth, to_crop, self.frame.side, "fine")

    def pasted(self, restored: Pixels) -> Pixels:
        """The picture with its face restored."""
        canvas = self.picture.astype(np.float32)
        paste_change(canvas, self.picture, self.crop, restored, self.to_crop)
        return np.rint(canvas).clip(0, 255).astype(np.uint8)

    def cut(self, picture: Pixels) -> Pixels:
        """The face of a picture, finely sampled."""
        return warp_crop(picture, self.to_crop, self.frame.side, "fine")


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
        self._engine = engine_maker(
            preset, estimator, prior, self._schedule, "cpu", threads=os.cpu_count() or 1
        )(preset.side)
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
        return map(self._sample, self._damaged(number, face, draws))

    def sampled(
        self, number: int, face: FaceAddress, draws: int, rows: Sequence[Mapping[str, Any]], count: int
    ) -> Iterator[Sampled]:
        """The same faces by `count` chains each, where a preset's [[treatment]] rows give them one."""
        treatments = Treatments(tuple((row["above"], self._treatment(Candidate.of_row(row))) for row in rows))
        for damaged in self._damaged(number, face, draws):
            found = self._sampled(number, damaged, treatments, count)
            if found is not None:
                yield found

    def _damaged(self, number: int, face: FaceAddress, draws: int) -> Iterator[DamagedFace]:
        """Photograph `number` with `draws` degrees of damage; nothing without a measurable face."""
        if (found := self._measurable(face)) is None:
            return
        truth, landmarks, embedding = found
        for turn in range(draws):
            rng = np.random.default_rng([self._seed, 6, number, turn])
            how = draw(rng)
            picture = truth if how is None else damage(truth, how, rng)
            yield DamagedFace(picture, truth, landmarks, embedding, f"{number:08x}{turn:02x}", self._frame)

    def _measurable(self, face: FaceAddress) -> tuple[Pixels, NDArray[np.floating], Embedding] | None:
        """A photograph, and landmarks and embedding of the face that is measured; None without one."""
        try:
            truth = images.decode(face.read(), MOST_PIXELS).rgb
        except images.ImageError:
            return None
        found = measured_face(truth, self._detector)
        if found is None:
            return None
        return truth, found.landmarks, self.scorer.embedding(truth, found.landmarks)

    def _job(self, damaged: DamagedFace, treatment: Treatment | Treatments) -> FaceJob:
        inside = inside_picture(damaged.to_crop, self._frame.side, *damaged.picture.shape[1::-1])
        key = noise_key(self._seed, damaged.name, 0)
        return FaceJob(damaged.crop, key, self._preset.eta, treatment, inside=inside)

    def _sampled(
        self, number: int, damaged: DamagedFace, treatments: Treatments, count: int
    ) -> Sampled | None:
        """A face by several chains, of which the nearest to their mean is delivered; None where it has no chain."""
        first = self._engine.submit(self._job(damaged, treatments)).result()
        keys = [noise_key(self._seed + k, damaged.name, 0) for k in range(1, count)]
        more = samples_of(self._job(damaged, first.treatment), keys)[1:]
        if not more:
            return None
        results = [first, *(future.result() for future in [self._engine.submit(job) for job in more])]
        crops = [anchor_change(damaged.crop, result.restored) for result in results]
        region = face_region(self._frame)
        chosen = nearest_to_mean(crops, region)
        spread = measure_spread(crops, chosen, region, self._embedder)
        against = self._score(damaged, damaged.pasted(crops[chosen]))
        if spread.identity is None or "angle" not in against:
            return None
        delta = first.estimated_change
        return Sampled(number, delta, spread.mean, spread.identity, against["angle"], against["psnr"])

    def _score(self, damaged: DamagedFace, delivered: Pixels) -> Values:
        return self.scorer(delivered, damaged.truth, damaged.landmarks, damaged.true_embedding)

    def _sample(self, damaged: DamagedFace) -> Sample:
        """The results of every treatment of the face of one damaged picture."""
        crop = damaged.crop
        submitted = {c: self._engine.submit(self._job(damaged, self._treatment(c))) for c in self._candidates}
        measured, pictures, gates, embeddings, delta = {}, {}, {}, {}, 0.0
        came: Judged | None = None
        for candidate, future in submitted.items():
            result = future.result()
            delta = result.estimated_change
            restored = anchor_change(crop, result.restored)
            came = came or self._gates.face(crop, anchor_change(crop, result.estimated))
            embeddings[candidate] = self._embedder(restored)
            if candidate != LEFT:
                gates[candidate] = self._gates.measure(came, restored).rounded
            delivered = damaged.picture if candidate == LEFT else damaged.pasted(restored)
            measured[candidate] = self._score(damaged, delivered)
            pictures[candidate] = damaged.cut(delivered)
        return Sample(delta, measured, gates, embeddings, pictures, damaged.cut(damaged.truth))

    def _treatment(self, c: Candidate) -> Treatment:
        if c.way != "chain":
            return Treatment(c.way)  # type: ignore[arg-type]  # left or estimator
        chain = chain_from(
            self._schedule, c.start_step, self._preset.start_rule, c.calls, self._preset.last_step
        )
        return Treatment("chain", chain, c.hold, c.eta)
