"""What a benchmark measures: a preset's networks and method, and faces to restore."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from pipeline.console.options import UsageError, option
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.treatment import Treatment
from pipeline.evaluation.plain_loop import PlainLoop
from pipeline.io.weights import WeightsError, resolve
from pipeline.networks.drawn import drawn_network
from pipeline.networks.precision import number_type
from pipeline.networks.presets import NetworkSpec, load_network
from pipeline.networks.unet import UNet
from pipeline.restoration.config import BLIND_PRESET, RestoreConfig
from pipeline.restoration.method import choose_method
from pipeline.stages.engines import engine_maker

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class BenchConfig:
    """The options of one benchmark."""

    preset: str = option(BLIND_PRESET, help="preset whose networks are measured", group="what")
    faces: int = option(16, help="faces restored in each measurement", group="what")
    start_step: int = option(
        40,
        help="N; every face's chain has the calls and the hold that jobs.restore gives it with this --start-step; a "
        "short chain is as representative as a long one",
        group="what",
    )
    slots: str = option("1,auto", help="numbers of slots to measure, separated by commas", group="what")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number type of the engine's networks", group="what"
    )
    plain_batches: str = option(
        "1",
        help="batches of the plain loop, separated by commas; one face in float32 is always measured",
        group="what",
    )
    plain_precisions: str = option(
        "float32",
        help=f"number types of the plain loop, separated by commas: {', '.join(PRECISIONS)}",
        group="what",
    )
    repeats: int = option(3, help="repeats of each measurement; the spread is printed", group="what")
    pipeline: bool = option(
        False,
        help="also restore the faces as a job with Ray, storage and records around the engine",
        group="what",
    )
    levers: bool = option(
        False,
        help="measure one network call instead: eager, compiled, folded, in other layouts",
        group="what",
    )
    soak: int = option(
        0, help="restore this many faces with one engine instead, and report the memory", group="what"
    )
    device: str = option("cpu", help="cpu or cuda", group="what")
    output: str | None = option(
        None, help="write the measurements to this JSON file", group="what", metavar="FILE"
    )

    def __post_init__(self) -> None:
        if not all(s == "auto" or (s.isdecimal() and int(s) > 0) for s in self.slots.split(",")):
            raise UsageError(f"--slots must be auto or numbers above 0, got {self.slots}")
        if not all(b.isdecimal() and int(b) > 0 for b in self.plain_batches.split(",")):
            raise UsageError(f"--plain-batches must be numbers above 0, got {self.plain_batches}")
        if not set(self.plain_precisions.split(",")) <= set(PRECISIONS):
            raise UsageError(
                f"--plain-precisions must be among {', '.join(PRECISIONS)}, got {self.plain_precisions}"
            )
        if min(self.faces, self.repeats) < 1:
            raise UsageError(f"--faces and --repeats must be at least 1, got {self.faces}, {self.repeats}")

    @property
    def restoration(self) -> dict[str, str | int]:
        """The options of jobs.restore, by flag, that do the engine's work; it judges no face."""
        names = ("preset", "start_step", "device", "precision")
        return {"gate": "off"} | {name: getattr(self, name) for name in names}

    @property
    def plain_variants(self) -> list[tuple[str, int]]:
        """Number type and batch of every plain loop; first the official program's as it is used."""
        batches = [int(batch) for batch in self.plain_batches.split(",")]
        chosen = [(dtype, batch) for dtype in self.plain_precisions.split(",") for batch in batches]
        return list(dict.fromkeys([("float32", 1), *chosen]))


class Subject:
    """The measured preset: its networks, its method as jobs.restore has it, and faces to restore."""

    def __init__(self, config: BenchConfig) -> None:
        self.config = config
        self.preset, self.method = choose_method(RestoreConfig.of("", "", **config.restoration))
        self.schedule = self.method.schedule
        treatment = self.method.treatments(self.schedule)
        # one and the same for every face, because N is given
        assert isinstance(treatment, Treatment)
        self.treatment = treatment
        self.cores = os.cpu_count() or 1
        self.precision = number_type(config.precision, config.device == "cpu")
        self.estimator, prior = (network(s) for s in (self.preset.estimator, self.preset.prior))
        assert isinstance(prior, UNet)
        self.prior = prior.to(config.device)
        self.estimator.to(config.device)
        rng = np.random.default_rng(0)
        side = self.preset.side
        self.crops = rng.integers(0, 256, (min(config.faces, 64), side, side, 3), dtype=np.uint8)

    def job(self, number: int) -> FaceJob:
        crop = self.crops[number % len(self.crops)]
        key = noise_key(self.method.seed, f"{number:08x}", 0)
        return FaceJob(crop, key, self.method.eta, self.treatment, self.method.solver)

    def jobs(self, faces: int) -> list[FaceJob]:
        return [self.job(number) for number in range(faces)]

    def engine(self, slots: str) -> Engine:
        c = self.config
        count = 0 if slots == "auto" else int(slots)
        return engine_maker(
            self.preset, self.estimator, self.prior, self.schedule, c.device, c.precision, count, self.cores
        )(self.preset.side)

    def plain_loops(self) -> Iterator[tuple[str, PlainLoop]]:
        """Every plain loop by its name."""
        for name, batch in self.config.plain_variants:
            dtype = getattr(torch, name)
            loop = PlainLoop(self.estimator, self.prior, self.schedule, self.config.device, dtype, batch)
            yield f"plain, {name}, batch {batch}", loop


def network(spec: NetworkSpec) -> nn.Module:
    """The network with its weights, or with random ones where the file is not available: they take the same time."""
    try:
        return load_network(spec, resolve(spec.file, None, spec.sha256).path)
    except WeightsError:
        return drawn_network(spec)
