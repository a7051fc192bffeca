"""Trials for the prediction of errors: photographs at the levels of the real-world grid, with known errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from pipeline.datasets.faces import FaceAddress
from pipeline.diffusion.treatment import ESTIMATOR as ESTIMATE
from pipeline.diffusion.treatment import estimated_change
from pipeline.evaluation.calibration import LEFT, Candidate
from pipeline.evaluation.delivered import Values
from pipeline.evaluation.error_fit import ErrorSample
from pipeline.evaluation.realworld import LEVELS, damaged_file, decode_jpeg, draw_damage, enlarged, generator
from pipeline.evaluation.trial import DamagedFace, Trial
from pipeline.faces.colour import anchor_change
from pipeline.faces.error_features import error_features
from pipeline.faces.geometry import crop_scale, inside_picture
from pipeline.io.images import jpeg_quality


def person_of(face: FaceAddress) -> str:
    """The person of a photograph: its name without the number at its end, as LFW has it (`First_Last_0001.jpg`)."""
    return re.sub(r"_\d+$", "", PurePosixPath(face.member or face.shard).stem)


@dataclass(frozen=True)
class _Case:
    """A face at one level, as it is stored or enlarged."""

    level: str
    damaged: DamagedFace
    # the file of the damaged picture as it is stored; None where it was enlarged
    data: bytes | None


class ErrorTrial(Trial):
    """A preset's engine with a scorer, and errors of its estimates."""

    def errors(
        self, number: int, face: FaceAddress, candidates: Sequence[Candidate]
    ) -> Iterator[ErrorSample]:
        """Photograph `number` at every level, enlarged and as it is stored; nothing without a measurable face.

        candidates: the treatments whose results are measured, of pictures that were enlarged.
        """
        for case in self._cases(number, face):
            error, features = self._measured(case)
            measured = {} if case.data else {c.name: self._delivered(case.damaged, c) for c in candidates}
            stored = case.data is not None
            yield ErrorSample(number, person_of(face), case.level, stored, error, features, measured)

    def _cases(self, number: int, face: FaceAddress) -> Iterator[_Case]:
        if (found := self._measurable(face)) is None:
            return
        truth, landmarks, embedding = found
        height, width = truth.shape[:2]
        for place, (level, middle) in enumerate(LEVELS.items()):
            name = f"{number:08x}{place:02x}"
            picture = small = truth
            data = face.read()
            if middle is not None:
                rng = generator(self._seed, number, level)
                how = draw_damage(middle, rng)
                data = damaged_file(truth, how, rng)
                small = decode_jpeg(data)
                picture = enlarged(small, how, height, width)
            yield _Case(level, DamagedFace(picture, truth, landmarks, embedding, name, self._frame), None)
            shrunk = np.array(small.shape[1::-1]) / (width, height)
            points = (landmarks + 0.5) * shrunk - 0.5  # pixel centres
            yield _Case(level, DamagedFace(small, truth, points, embedding, name, self._frame), data)

    def _measured(self, case: _Case) -> tuple[float, Mapping[str, float]]:
        """The error of a face's estimate, levels, and its measurements without the truth."""
        damaged, side = case.damaged, self._frame.side
        result = self._engine.submit(self._job(damaged, ESTIMATE)).result()
        to_crop, picture = damaged.to_crop, damaged.picture
        inside = inside_picture(to_crop, side, *picture.shape[1::-1])
        quality = None if case.data is None else jpeg_quality(case.data)
        features = error_features(
            damaged.crop, result.estimated, result.estimated_change, crop_scale(to_crop), quality, inside
        )
        if picture is damaged.truth:  # the error is δ, of which the rounded estimate shows nothing
            return result.estimated_change, features
        estimated = result.estimated.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        return estimated_change(damaged.true_crop, estimated, inside), features

    def _delivered(self, damaged: DamagedFace, candidate: Candidate) -> Values:
        """What is measured of the picture that a treatment delivers."""
        if candidate == LEFT:
            return self._score(damaged, damaged.picture)
        result = self._engine.submit(self._job(damaged, self._treatment(candidate))).result()
        return self._score(damaged, damaged.pasted(anchor_change(damaged.crop, result.restored)))
