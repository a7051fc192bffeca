"""The actor that keeps estimator and prior loaded and feeds their engine with the faces of many units."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.console.work_counts import Report, WorkCounts, ignore
from pipeline.diffusion.method import Method
from pipeline.diffusion.noise import NoiseKey, noise_key
from pipeline.diffusion.request import FaceJob, FaceResult
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.sided_engine import AnyEngine, SidedEngine
from pipeline.diffusion.task import BLIND, Task
from pipeline.diffusion.treatment import Treatment, Treatments
from pipeline.faces.colour import anchor_change, anchor_colour
from pipeline.faces.error_features import ErrorModel
from pipeline.faces.gates import Bounds, Gates
from pipeline.faces.geometry import CropFrame, inside_picture
from pipeline.faces.identity import Embedder
from pipeline.faces.sharpness import sharpness
from pipeline.io.errors import message, outline
from pipeline.io.masks import Hole
from pipeline.io.stop import is_stopping
from pipeline.io.weights import resolve, resolve_metric
from pipeline.networks.environment import environment
from pipeline.networks.face_embedding import load_embedding
from pipeline.networks.precision import number_type
from pipeline.networks.presets import NetworkSpec, Preset, load_network
from pipeline.networks.unet import UNet
from pipeline.records.rows import (
    LEFT_TEXTS,
    FaceRecord,
    ImageRecord,
    LeftFor,
    Row,
    crop_sides,
    dump_records,
    load_faces,
    load_images,
    pack,
    unpack,
    with_crops,
)
from pipeline.records.verdicts import Verdict
from pipeline.stages.engines import engine_maker, estimator_engine_maker
from pipeline.stages.ladder import Climb, Ladder
from pipeline.stages.sampling import Sampling, slot_sums
from pipeline.stages.verdicts import UnitVerdicts

# Share of a crop's pixel, of 255, from which it is a hole. One that is less of a hole was filled from around it already
# (align.py), and what it shows of the rest is worth more to the network.
HOLE_LEVEL = 128
# Measurements that add, by name.
Sums = dict[str, float]


@dataclass(frozen=True)
class RestoreSettings:
    """What an engine actor needs to know."""

    preset: Preset
    weights_dir: str | None
    method: Method
    # leave the restored face the chain's own colours
    free_colour: bool
    # what is pasted is the change of the crop, not the crop
    pastes_change: bool
    device: str
    precision: str
    # faces in flight; 0: what memory and cores carry
    slots: int
    threads: int
    # while this object exists no further unit is begun, however many were read ahead
    stop_uri: str
    task: Task = BLIND
    # what a restored face may differ from the one that came; None: whatever comes out is delivered
    bounds: Bounds | None = None
    # chains of each face that has one; of several the one nearest to their mean is delivered, else the first
    samples: int = 1
    takes_nearest: bool = True
    # identity spread of the samples, degrees, above which a face counts as invented; None: unknown
    invented: float | None = None
    # what predicts the error of an estimate; None: nothing does
    error_model: ErrorModel | None = None
    # is given what happens to networks and faces
    report: Report = ignore


def make_gates(bounds: Bounds | None, frame: CropFrame, weights_dir: str | None) -> Gates | None:
    """The gates of these bounds; None where none is asked."""
    if bounds is None:
        return None
    embedder = None
    if bounds.identity is not None:
        embedder = Embedder(load_embedding(resolve_metric("identity", weights_dir).path), frame)
    return Gates(bounds, frame, embedder)


class RestoreFaces:
    """Row with `crops` → row with `estimated`, `restored`, `spreads`, `environment`.

    Several threads may call one instance at once.
    """

    def __init__(self, settings: RestoreSettings) -> None:
        s = self._settings = settings
        s.report(WorkCounts(loading=1))
        schedule = s.method.schedule
        self._treatment = s.method.treatments(schedule)
        # by side of the crop: least δ of a face that is not left as it was
        self._left_below = {r["side"]: r["left_below"] for r in s.preset.sides if "left_below" in r}
        self._engine = SidedEngine(self._engine_maker(schedule), s.preset.every_side)
        frame = CropFrame.from_table(s.preset.side, s.preset.crop)
        self._gates = make_gates(s.bounds, frame, s.weights_dir)
        self._sampling = Sampling(s.samples, s.takes_nearest, s.invented, frame, self._gates)
        self._ladder = Ladder(
            self._engine,
            partial(s.method.ladder, side=s.preset.side),
            self._gates,
            self._finish,
            self._sampling.choose,
            lambda number: s.report(WorkCounts(further=number)),
        )
        s.report(WorkCounts(ready=1))

    def _engine_maker(self, schedule: Schedule) -> Callable[[int], AnyEngine]:
        s = self._settings
        estimator = self._load(s.preset.estimator)
        if s.method.without_prior:
            return estimator_engine_maker(s.preset, estimator, s.device, s.precision, s.threads)
        prior = self._load(s.preset.prior)
        assert isinstance(prior, UNet)
        return engine_maker(
            s.preset, estimator, prior, schedule, s.device, s.precision, s.slots, s.threads, s.report
        )

    def _load(self, spec: NetworkSpec) -> nn.Module:
        return load_network(spec, resolve(spec.file, spec.url, spec.sha256, self._settings.weights_dir).path)

    def __call__(self, row: Row) -> Row:
        if row.get("crops") is None or is_stopping(self._settings.stop_uri):
            # not begun: its plan could not be read, or the run is stopping
            return {"unit": row["unit"], "undelivered": row.get("undelivered")}
        began = time.monotonic()
        images, every = load_images(row), load_faces(row)
        faces = with_crops(every)
        sides = crop_sides(faces, self._settings.preset.side)
        crops = unpack(row["crops"], sides)
        holes: Sequence[Hole | None] = [None] * len(crops)
        if row.get("holes"):
            holes = [hole[..., 0] >= HOLE_LEVEL for hole in unpack(row["holes"], sides)]
        results, maps, rungs, spent = self._restored(row, images, faces, crops, holes)
        UnitVerdicts.from_json(row.get("verdicts")).note(every)
        sums = {"seconds_restore": time.monotonic() - began} | spent
        return row | {
            "faces": dump_records(every),
            "estimated": pack([results[i].estimated for i in range(len(faces))]),
            "restored": pack([results[i].restored for i in range(len(faces))]),
            "rungs": pack([crop for i in sorted(rungs) for crop in rungs[i]]),
            "spreads": pack([maps[i] for i in range(len(faces))]) if self._settings.samples > 1 else b"",
            "sums": json.dumps(json.loads(row["sums"]) | sums),
            "environment": json.dumps(self.environment),
        }

    def _restored(
        self,
        row: Row,
        images: Sequence[ImageRecord],
        faces: Sequence[FaceRecord],
        crops: Sequence[NDArray[np.uint8]],
        holes: Sequence[Hole | None],
    ) -> tuple[dict[int, FaceResult], dict[int, NDArray[np.uint8]], dict[int, list[NDArray[np.uint8]]], Sums]:
        """Every face by its index: its result, how far its samples differ, and all results of one that had several.

        Last come the sums of what the engine did.
        """
        verdicts = UnitVerdicts.from_json(row.get("verdicts"))
        said = [verdicts.deciding(f.image, f.face) for f in faces]
        results: dict[int, FaceResult] = {}
        maps: dict[int, NDArray[np.uint8]] = {}
        rungs: dict[int, list[NDArray[np.uint8]]] = {}
        for i, verdict in enumerate(said):
            if verdict is not None and verdict.verdict == "reject":
                results[i] = reject(faces[i], crops[i], verdict)
                maps[i] = np.zeros(crops[i].shape[:2], np.uint8)
        asked = [i for i in range(len(faces)) if i not in results]
        jobs = [self._job(images[faces[i].image], faces[i], crops[i], holes[i], said[i]) for i in asked]
        keys = [self._further_keys(images[faces[i].image], faces[i]) for i in asked]
        ungated = [n for n, i in enumerate(asked) if (verdict := said[i]) and verdict.changes_chain]
        torch.set_num_threads(1)  # the gates' network; the engine's threads have their own number
        spent = slot_sums([])
        for n, climb in self._ladder.restore(jobs, keys, ungated):
            self._settings.report(WorkCounts(restored=1))
            i = asked[n]
            results[i] = self._note(faces[i], climb)
            maps[i] = self._sampling.note(faces[i], climb)
            rungs[i] = climb.seen if len(climb.seen) > 1 else []
            for name, value in (slot_sums(climb.results) | self._sampling.drawn(climb.results)).items():
                spent[name] = spent.get(name, 0.0) + value
        return results, maps, rungs, spent

    @property
    def environment(self) -> dict[str, str]:
        """What the bits of its faces depend on beside the settings."""
        place, engine = torch.device(self._settings.device), self._engine
        dtype = number_type(self._settings.precision, place.type == "cpu")
        prior = getattr(engine.first, "prior", None)
        is_compiled = getattr(prior, "is_compiled", False)
        return environment(place, dtype, engine.batch, is_compiled, engine.slots_agree)

    def _finish(self, came: NDArray[np.uint8], restored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The restored crop with the colours of the picture, unless it keeps its own."""
        if self._settings.free_colour or not self._settings.task.is_blind:
            return restored
        anchor = anchor_change if self._settings.pastes_change else anchor_colour
        return anchor(came, restored)

    def _note(self, face: FaceRecord, climb: Climb) -> FaceResult:
        """Put into the record what became of a face; its result, of a failed one the crop as it came."""
        face.tried = [tried.to_json() for tried in climb.tried]
        if climb.outcome is None:
            error = climb.error or RuntimeError("the face has no outcome")
            face.error, face.traceback = f"{type(error).__name__}: {message(error)}", outline(error)
            crop = climb.job.crop
            return FaceResult(crop, crop, Treatment("left"), 0.0)
        result = climb.outcome
        what = result.treatment
        face.treatment, face.estimated_change = what.kind, result.estimated_change
        if (model := self._settings.error_model) is not None:
            change, inside = result.estimated_change, climb.job.inside
            face.predicted_error = model.error(climb.job.crop, result.estimated, change, face.scale, inside)
        face.start_step = result.start_step
        if what.chain is not None:
            face.calls, face.hold, face.eta = what.steps, what.hold, what.eta
            if face.eta is None and climb.job.eta != self._settings.method.eta:
                face.eta = climb.job.eta  # of a face that is redone
        if what.kind == "left":
            face.left_for, face.kept = self._why_left(climb)
        else:
            face.rung = climb.tried[-1].rung
        face.sharpness_after = sharpness(result.restored)
        face.distance = float(np.abs(result.restored.astype(np.float32) - result.estimated).mean())
        return result

    def _why_left(self, climb: Climb) -> tuple[LeftFor, str]:
        """The kind of reason for which a face was left, and the reason as a sentence."""
        first = climb.tried[0] if climb.tried else None
        if first is None or first.failed in (None, "gain"):
            change = climb.results[-1].estimated_change
            why = f"the face has nothing to gain: the estimator changes it by {change:.2f} levels in the mean"
            bounds = [row["above"] for row in self._settings.method.treatment if row.get("way") != "left"]
            if first is not None:
                why += f", and the result gains {first.measured['gain']:.2f}, below {first.bound:g}"
            elif bounds and change < (least := max(bounds[0], self._left_below.get(len(climb.job.crop), 0))):
                why += f", below {least:g}"
            return "sharp", why
        gate = cast(LeftFor, first.failed)
        why = f"restored as asked, {LEFT_TEXTS[gate]}"
        if first.bound is not None:
            why += f" ({gate} {first.measured[gate]:.3g}, at most {first.bound:.3g} is allowed)"
        more = len(climb.tried) - 1
        return gate, why + (f"; {more} gentler treatments did not pass either" if more else "")

    def _job(
        self,
        image: ImageRecord,
        face: FaceRecord,
        crop: NDArray[np.uint8],
        hole: Hole | None,
        verdict: Verdict | None,
    ) -> FaceJob:
        """verdict: where it is a redo, the face is treated as it says."""
        s = self._settings
        method, treatment = s.method, self._treatment
        if verdict is not None:
            method = s.method.adjusted(verdict.settings)
            treatment = method.treatments(method.schedule)
            face.seed = verdict.settings.get("seed")
            face.strength = float(verdict.settings.get("strength", face.strength))
        if isinstance(treatment, Treatments) and (least := self._left_below.get(len(crop))):
            treatment = treatment.leaving_below(least)
        known = s.task.constraint(crop, hole, face.scale)
        key = noise_key(method.seed, image.sha256, face.face)
        to_crop = np.array(face.affine).reshape(2, 3)
        inside = inside_picture(to_crop, len(crop), image.width, image.height)
        colourless = s.task.name == "colourise"
        return FaceJob(crop, key, method.eta, treatment, method.solver, known, hole, inside, colourless)

    def _further_keys(self, image: ImageRecord, face: FaceRecord) -> tuple[NoiseKey, ...]:
        """Of a face's samples after the first: those of runs with the seeds that follow."""
        seed = self._settings.method.seed if face.seed is None else face.seed
        return tuple(noise_key(seed + k, image.sha256, face.face) for k in range(1, self._settings.samples))


def reject(face: FaceRecord, crop: NDArray[np.uint8], verdict: Verdict) -> FaceResult:
    """The result of a face that a person has rejected: the crop as it came."""
    face.treatment, face.left_for, face.kept = "left", "rejected", verdict.line
    face.sharpness_after = face.sharpness_before
    return FaceResult(crop, crop, Treatment("left"), 0.0)
