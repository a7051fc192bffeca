"""The actor that keeps estimator and prior loaded and feeds their engine with the faces of many units."""

import json
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.diffusion.engine import Engine, FaceJob, FaceResult
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.schedule import StartRule, chain_from, make_schedule
from pipeline.faces.colour import anchor_colour
from pipeline.metrics.sharpness import sharpness
from pipeline.networks.zoo import Preset, load_network
from pipeline.records import Row, dump_records, load_faces, load_images, pack, restorable, unpack
from pipeline.weights import resolve


@dataclass(frozen=True)
class RestoreSettings:
    """What an engine actor needs to know."""

    preset: Preset
    weights_dir: str | None
    eta: float
    start_step: int
    steps: str
    start_rule: StartRule
    seed: int
    # leave the restored face the chain's own colours
    free_colour: bool
    device: str
    slots: int
    threads: int
    # while this object exists no further unit is begun, however many were read ahead
    stop_uri: str


class RestoreFaces:
    """Row with `crops` → row with `estimated`, `restored`. Several threads may call one instance at once."""

    def __init__(self, settings: RestoreSettings) -> None:
        self._settings = settings
        preset = settings.preset
        device = torch.device(settings.device)
        on_cpu = device.type == "cpu"
        if on_cpu:
            torch.set_num_threads(1)  # the engine shares the cores out between its calls; see there
        specs = (preset.estimator, preset.prior)
        estimator, prior = (
            load_network(s, resolve(s.file, s.url, s.sha256, settings.weights_dir).path).to(device)
            for s in specs
        )
        schedule = make_schedule(settings.steps)
        self._chain = chain_from(schedule, settings.start_step, settings.start_rule)
        lanes = preset.lanes_cpu if on_cpu else preset.lanes_gpu
        threads = settings.threads if on_cpu else 1
        self._engine = Engine(estimator, prior, schedule, preset.side, lanes, settings.slots, device, threads)

    def __call__(self, row: Row) -> Row:
        if "crops" not in row or store.exists(self._settings.stop_uri):
            return {"unit": row["unit"]}  # not begun: the run is stopping
        began = time.monotonic()
        images, every = load_images(row), load_faces(row)
        faces = restorable(every)
        crops = unpack(row["crops"], self._settings.preset.side)
        waiting = [
            self._submit(images[f.image].sha256, f.face, crop) for f, crop in zip(faces, crops, strict=True)
        ]
        results = []
        for face, crop, future in zip(faces, crops, waiting, strict=True):
            try:
                result = future.result()
            except Exception as error:  # the face fails, not the unit
                face.error = f"{type(error).__name__}: {error}"
                result = FaceResult(crop, crop)
            if not self._settings.free_colour:
                result = replace(result, restored=anchor_colour(crop, result.restored))
            face.sharpness_after = sharpness(result.restored)
            face.distance = float(np.abs(result.restored.astype(np.float32) - result.estimated).mean())
            results.append(result)
        sums = {
            "seconds_restore": time.monotonic() - began,
            "slot_steps": float(sum(r.steps for r in results)),
            "slot_capacity": sum(r.room for r in results),
        }
        return row | {
            "faces": dump_records(every),
            "estimated": pack([r.estimated for r in results]),
            "restored": pack([r.restored for r in results]),
            "sums": json.dumps(json.loads(row["sums"]) | sums),
        }

    def _submit(self, sha256: str, face: int, crop: NDArray[np.uint8]) -> "Future[FaceResult]":
        key = noise_key(self._settings.seed, sha256, face)
        return self._engine.submit(FaceJob(crop, key, self._settings.eta, self._chain))
