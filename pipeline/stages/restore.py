"""The actor that keeps estimator and prior loaded and feeds their engine with the faces of many units."""

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.diffusion.direct import DirectEngine
from pipeline.diffusion.engine import Engine, FaceJob, FaceResult
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.sampler import Solver
from pipeline.diffusion.schedule import Chain, Schedule, StartRule, chain_from, contraction, make_schedule
from pipeline.diffusion.start import StartChoice
from pipeline.faces.colour import anchor_colour
from pipeline.memory import bytes_per_slot, fitting_slots, free_bytes
from pipeline.metrics.sharpness import sharpness
from pipeline.networks.folded import FoldedUNet
from pipeline.networks.unet import UNet
from pipeline.networks.zoo import NetworkSpec, Preset, load_network, takes_mask
from pipeline.records import FaceRecord, Row, dump_records, load_faces, load_images, pack, restorable, unpack
from pipeline.stages.failure import message, outline
from pipeline.stages.mask import Hole
from pipeline.stages.stop import is_stopping
from pipeline.stages.task import BLIND, Task
from pipeline.weights import resolve

# Network calls that a GPU works on at once: while one waits for memory another computes.
CALLS_ON_GPU = 2


@dataclass(frozen=True)
class RestoreSettings:
    """What an engine actor needs to know."""

    preset: Preset
    weights_dir: str | None
    eta: float
    # N, or where there are bounds to each face's own N that of a typical face
    start_step: int
    start_bounds: list[int] | None
    steps: str
    start_rule: StartRule
    # network calls a face makes; None: one at every kept step
    calls: int | None
    solver: Solver
    seed: int
    # leave the restored face the chain's own colours
    free_colour: bool
    device: str
    precision: str
    # faces in flight; 0: what memory and cores carry
    slots: int
    threads: int
    # while this object exists no further unit is begun, however many were read ahead
    stop_uri: str
    task: Task = BLIND
    # "estimator": its picture is the restored face, and the prior is not loaded
    method: Literal["difface", "estimator"] = "difface"


def make_engine(
    preset: Preset, estimator: nn.Module, prior: UNet, schedule: Schedule, device: str, precision: str = "auto",
    slots: int = 0, threads: int = 1,
) -> Engine:  # fmt: skip
    """The engine of a preset's networks on a device. slots: 0 takes what memory and cores carry."""
    place = torch.device(device)
    on_cpu = place.type == "cpu"
    dtype = number_type(precision, on_cpu)
    fix_kernels(place)
    steps = [int(t) for t in schedule.t if t <= preset.max_step]
    lanes = preset.lanes_cpu if on_cpu else preset.lanes_gpu
    useful = lanes * (threads if on_cpu else CALLS_ON_GPU)
    share = min(threads / (os.cpu_count() or 1), 1) if on_cpu else 1
    if not slots:
        each = bytes_per_slot(preset.prior, preset.side, dtype)
        slots = fitting_slots(useful, each, int(free_bytes(place) * share))
    return Engine(
        in_precision(estimator.to(place), place, dtype),
        FoldedUNet(prior.to(place), steps, dtype),
        schedule,
        preset.side,
        lanes,
        slots,
        place,
        threads,
        estimator_lanes=estimator_lanes(preset, on_cpu),
        takes_mask=takes_mask(preset.estimator),
    )


def make_direct(
    preset: Preset, estimator: nn.Module, device: str, precision: str = "auto", threads: int = 1
) -> DirectEngine:
    """What gives the estimator's picture alone, in the bits that `make_engine`'s engine diffuses."""
    place = torch.device(device)
    on_cpu = place.type == "cpu"
    fix_kernels(place)
    return DirectEngine(
        in_precision(estimator.to(place), place, number_type(precision, on_cpu)),
        preset.side,
        estimator_lanes(preset, on_cpu),
        place,
        threads if on_cpu else CALLS_ON_GPU,
        takes_mask(preset.estimator),
    )


def fix_kernels(device: torch.device) -> None:
    """On a GPU, the same kernels every time, and float32 that is float32."""
    if device.type != "cpu":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def estimator_lanes(preset: Preset, on_cpu: bool) -> int:
    """Faces of one call of the estimator; on a CPU one at a time is as fast as many."""
    return 1 if on_cpu else max(preset.lanes_gpu // 4, 1)


def number_type(precision: str, on_cpu: bool) -> torch.dtype:
    """The number type that `--precision` means on this device."""
    if precision == "auto":
        return torch.float32 if on_cpu else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def in_precision(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The network, its matrix products and convolutions in `dtype`."""
    if dtype == torch.float32:
        return network

    def call(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            y: Tensor = network(x)
        return y

    return call


def choose_start(
    preset: Preset,
    schedule: Schedule,
    typical: int,
    bounds: Sequence[int],
    rule: StartRule,
    calls: int | None,
) -> StartChoice:
    """What gives each face its own N within the bounds: `typical` for a face with the preset's typical error."""
    auto = preset.auto_start
    kappa = contraction(schedule.ab)[schedule.index_of(typical)]
    contracted = float(kappa) * auto["typical_error"] ** 2
    return StartChoice(schedule, rule, calls, (bounds[0], bounds[1]), contracted, tuple(auto["weights"]))


class RestoreFaces:
    """Row with `crops` → row with `estimated`, `restored`. Several threads may call one instance at once."""

    def __init__(self, settings: RestoreSettings) -> None:
        s = self._settings = settings
        estimator = self._load(s.preset.estimator)
        self._engine: Engine | DirectEngine
        self._chain: Chain | StartChoice = Chain(0, ())
        if s.method == "estimator":
            self._engine = make_direct(s.preset, estimator, s.device, s.precision, s.threads)
            return
        prior = self._load(s.preset.prior)
        assert isinstance(prior, UNet)
        schedule = make_schedule(s.steps)
        self._chain = chain_from(schedule, s.start_step, s.start_rule, s.calls)
        if s.start_bounds is not None:
            self._chain = choose_start(
                s.preset, schedule, s.start_step, s.start_bounds, s.start_rule, s.calls
            )
        self._engine = make_engine(
            s.preset, estimator, prior, schedule, s.device, s.precision, s.slots, s.threads
        )

    def _load(self, spec: NetworkSpec) -> nn.Module:
        return load_network(spec, resolve(spec.file, spec.url, spec.sha256, self._settings.weights_dir).path)

    def __call__(self, row: Row) -> Row:
        if row.get("crops") is None or is_stopping(self._settings.stop_uri):
            # not begun: its plan could not be read, or the run is stopping
            return {"unit": row["unit"], "undelivered": row.get("undelivered")}
        began = time.monotonic()
        images, every = load_images(row), load_faces(row)
        faces = restorable(every)
        crops = unpack(row["crops"], self._settings.preset.side)
        holes: list[Hole | None] = [None] * len(crops)
        if row.get("holes"):
            holes = [hole.any(axis=2) for hole in unpack(row["holes"], self._settings.preset.side)]
        waiting = [
            self._submit(images[f.image].sha256, f, crop, hole)
            for f, crop, hole in zip(faces, crops, holes, strict=True)
        ]
        results = []
        for face, crop, future in zip(faces, crops, waiting, strict=True):
            try:
                result = future.result()
                face.start_step = result.start_step
            except Exception as error:  # the face fails, not the unit
                face.error, face.traceback = f"{type(error).__name__}: {message(error)}", outline(error)
                result = FaceResult(crop, crop, start_step=0)
            except BaseException:  # the unit is given up: its faces need no slots
                for one in waiting:
                    one.cancel()
                raise
            if not self._settings.free_colour and self._settings.task.is_blind:
                result = replace(result, restored=anchor_colour(crop, result.restored))
            face.sharpness_after = sharpness(result.restored)
            face.distance = float(np.abs(result.restored.astype(np.float32) - result.estimated).mean())
            results.append(result)
        sums = {
            "seconds_restore": time.monotonic() - began,
            "slot_steps": float(sum(r.steps for r in results)),
            "slot_capacity": sum(r.room for r in results),
            "slot_steps_pressed": float(sum(r.steps_pressed for r in results)),
            "slot_capacity_pressed": sum(r.room_pressed for r in results),
        }
        return row | {
            "faces": dump_records(every),
            "estimated": pack([r.estimated for r in results]),
            "restored": pack([r.restored for r in results]),
            "sums": json.dumps(json.loads(row["sums"]) | sums),
        }

    def _submit(
        self, sha256: str, face: FaceRecord, crop: NDArray[np.uint8], hole: Hole | None
    ) -> "Future[FaceResult]":
        s = self._settings
        known = s.task.constraint(crop, hole, face.scale)
        key = noise_key(s.seed, sha256, face.face)
        return self._engine.submit(FaceJob(crop, key, s.eta, self._chain, s.solver, known, hole))
