"""Several restorations of one face: which is delivered, and what is recorded of how far they differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.request import FaceResult
from pipeline.faces.gates import Gates
from pipeline.faces.geometry import CropFrame
from pipeline.faces.spread import Region, face_region, measure_spread, nearest_to_mean
from pipeline.records.rows import FaceRecord
from pipeline.stages.ladder import Climb


@dataclass(frozen=True)
class Sampling:
    """Chooses among the samples of a face, and records their spread."""

    # samples of a face
    number: int
    # deliver the one nearest to their mean, else the first
    takes_nearest: bool
    # identity spread, degrees, above which a face counts as invented; None: unknown
    invented: float | None
    frame: CropFrame
    # whose embedder says how far identities differ
    gates: Gates | None

    def choose(self, samples: Sequence[NDArray[np.uint8]]) -> int:
        """Index of the sample that is delivered."""
        return nearest_to_mean(samples, self._region(samples[0])) if self.takes_nearest else 0

    def _region(self, crop: NDArray[np.uint8]) -> Region:
        """Where the face lies in a crop."""
        return face_region(self.frame.of(len(crop)))

    def note(self, face: FaceRecord, climb: Climb) -> NDArray[np.uint8]:
        """Put into the record how far the samples of the delivered treatment differ.

        Returns the map of faces/spread.py, [S, S] uint8; 0 for a face without several.
        """
        nothing = np.zeros(climb.job.crop.shape[:2], np.uint8)
        if climb.outcome is None or climb.outcome.treatment.chain is None:
            return nothing
        face.samples = len(climb.samples)
        if face.samples == 1:
            return nothing
        embedder = self.gates.embedder if self.gates is not None else None
        region = self._region(climb.job.crop)
        found = measure_spread(climb.samples, climb.chosen, region, embedder)
        face.spread, face.spread_identity = found.mean, found.identity
        if self.invented is not None and found.identity is not None:
            face.invented = found.identity > self.invented
        return found.picture

    def drawn(self, results: Sequence[FaceResult]) -> dict[str, float]:
        """How many chains were drawn, as a marker's sums have it; nothing where a face has one."""
        chains = float(sum(r.treatment.chain is not None for r in results))
        return {"chains_drawn": chains} if self.number > 1 else {}


def slot_sums(results: Sequence[FaceResult]) -> dict[str, float]:
    """What some results took of the engine, as a marker's sums have it."""
    return {
        "slot_steps": float(sum(r.steps for r in results)),
        "slot_capacity": sum(r.capacity for r in results),
        "slot_steps_pressed": float(sum(r.steps_saturated for r in results)),
        "slot_capacity_pressed": sum(r.capacity_saturated for r in results),
    }
