"""Benchmark of the engine and the pipeline on this machine."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from torch import nn

from pipeline.console.commands import OK
from pipeline.console.options import UsageError, option
from pipeline.diffusion.difface import face_noise, restore
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import Treatment
from pipeline.io import images, layout
from pipeline.io.weights import WeightsError, resolve
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.precision import number_type
from pipeline.networks.presets import NetworkSpec, build, find_preset, load_network
from pipeline.networks.roofline import CallCost, Ceilings, count_call, measure_ceilings, rate
from pipeline.networks.unet import UNet
from pipeline.records.marker import Marker
from pipeline.restoration.config import BLIND_PRESET
from pipeline.stages.restore import make_engine

UNIT_IMAGES = 8
LEVER_SECONDS = 3.0


@dataclass(frozen=True)
class BenchConfig:
    """The options of one benchmark."""

    preset: str = option(BLIND_PRESET, help="preset whose networks are measured", group="what")
    faces: int = option(16, help="faces restored in each measurement", group="what")
    start_step: int = option(40, help="N; a short chain is as representative as a long one", group="what")
    slots: str = option("1,auto", help="numbers of slots to measure, separated by commas", group="what")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number type of the engine's networks; the plain loop is always float32", group="what"
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
        if min(self.faces, self.repeats) < 1:
            raise UsageError(f"--faces and --repeats must be at least 1, got {self.faces}, {self.repeats}")


class Subject:
    """The measured preset: its networks, and faces to restore."""

    def __init__(self, config: BenchConfig) -> None:
        self.config = config
        self.preset = find_preset(config.preset)
        self.schedule = make_schedule(self.preset.steps)
        self.chain = chain_from(self.schedule, config.start_step, self.preset.start_rule)
        self.cores = os.cpu_count() or 1
        self.precision = number_type(config.precision, config.device == "cpu")
        torch.manual_seed(0)
        self.estimator, prior = (network(s) for s in (self.preset.estimator, self.preset.prior))
        assert isinstance(prior, UNet)
        self.prior = prior.to(config.device)
        self.estimator.to(config.device)
        rng = np.random.default_rng(0)
        side = self.preset.side
        self.crops = rng.integers(0, 256, (min(config.faces, 64), side, side, 3), dtype=np.uint8)

    def job(self, number: int) -> FaceJob:
        crop = self.crops[number % len(self.crops)]
        treatment = Treatment("chain", self.chain)
        return FaceJob(crop, noise_key(0, f"{number:08x}", 0), self.preset.eta, treatment)

    def engine(self, slots: str) -> Engine:
        c = self.config
        count = 0 if slots == "auto" else int(slots)
        return make_engine(
            self.preset, self.estimator, self.prior, self.schedule, c.device, c.precision, count, self.cores
        )

    @torch.inference_mode()
    def plain(self, faces: int) -> None:
        """One face at a time through Algorithm 1."""
        torch.set_num_threads(self.cores)
        for job in map(self.job, range(faces)):
            face = (
                torch.from_numpy(job.crop.transpose(2, 0, 1)[None].copy()).to(self.config.device).float()
                / 255
            )
            noise = face_noise([job.key], self.preset.side, self.config.device)
            restore(face, self.estimator, self.prior, self.schedule, self.chain, job.eta, noise)[1].cpu()


def network(spec: NetworkSpec) -> nn.Module:
    """The network with its weights, or with random ones where the file is not available: they take the same time."""
    try:
        return load_network(spec, resolve(spec.file, None, spec.sha256).path)
    except WeightsError:
        return build(spec)


def run(config: BenchConfig) -> int:
    """Measure, print, and write the JSON file if requested. Returns the exit code."""
    try:
        subject = Subject(config)
    except ValueError as error:
        raise UsageError(str(error)) from error
    figures: dict[str, object]
    if config.soak:
        figures = dict(soak(subject))
    elif config.levers:
        figures = dict(levers(subject))
    else:
        figures = bench(subject)
        print(table(figures))
    if config.output:
        Path(config.output).write_text(json.dumps(figures, indent=1))
    return OK


def bench(subject: Subject) -> dict[str, object]:
    """Seconds per face of every variant, by repeat, and the machine's limits."""
    config = subject.config
    faces, engines = config.faces, [subject.engine(slots) for slots in config.slots.split(",")]
    variants: dict[str, Callable[[], float]] = {"plain": lambda: timed(lambda: subject.plain(faces)) / faces}
    subject.plain(1)
    for engine in engines:
        through(engine, subject, engine.slots)
        variants[f"engine, {engine.slots} slots"] = partial(through, engine, subject, faces)
    with tempfile.TemporaryDirectory() as folder:
        if config.pipeline:
            write_faces(subject, Path(folder))
            variants["pipeline"] = lambda: through_pipeline(subject, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(config.repeats):
            for name, variant in variants.items():
                seconds[name].append(variant())
    fill = slot_fill(engines[-1], subject)
    for engine in engines:
        engine.close()
    torch.set_num_threads(subject.cores)
    ceilings = measure_ceilings(config.device, subject.precision)
    cost = count_call(subject.preset.prior, subject.preset.side, subject.precision)
    return {
        "preset": subject.preset.name,
        "device": config.device,
        "precision": str(subject.precision).removeprefix("torch."),
        "cores": subject.cores,
        "calls_per_face": len(subject.chain.indices),
        "call": asdict(cost),
        "ceilings": asdict(ceilings),
        "slot_fill_while_faces_wait": fill,
        "seconds_per_face": seconds,
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def through(engine: Engine, subject: Subject, faces: int) -> float:
    """Seconds per face for `faces` faces through the engine."""
    return timed(lambda: [f.result() for f in [engine.submit(subject.job(i)) for i in range(faces)]]) / faces


def slot_fill(engine: Engine, subject: Subject) -> float | None:
    """Share of slots in use while faces were queued; None if none had to wait."""
    futures = [engine.submit(subject.job(i)) for i in range(subject.config.faces)]
    results = [future.result() for future in futures]
    capacity = sum(r.capacity_saturated for r in results)
    return sum(r.steps_saturated for r in results) / capacity if capacity else None


def write_faces(subject: Subject, folder: Path) -> None:
    """Write the faces as PNG files, the input of the restore job."""
    (folder / "in").mkdir()
    for i in range(subject.config.faces):
        picture = np.roll(subject.crops[i % len(subject.crops)], i, axis=0)
        (folder / "in" / f"{i:05d}.png").write_bytes(images.encode_png(picture))


def through_pipeline(subject: Subject, folder: Path) -> float:
    """Seconds per face of the restore job in steady state: from the end of its first unit to that of the last."""
    out = folder / "out"
    command = [
        sys.executable,
        "-m",
        "jobs.restore",
        "--input",
        str(folder / "in"),
        "--output",
        str(out),
        "--aligned",
    ]
    command += ["--preset", subject.config.preset, "--start-step", str(subject.config.start_step)]
    command += ["--unit-images", str(UNIT_IMAGES), "--shard-images", str(UNIT_IMAGES)]
    command += ["--device", subject.config.device, "--precision", subject.config.precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the restore job ended with {done.returncode}: {done.stderr[-2000:]}")
    markers = [Marker.from_json(m.read_bytes()) for m in sorted((out / layout.DONE).rglob("*.json"))]
    markers.sort(key=lambda m: m.finished_at)
    faces = sum(m.counts.faces for m in markers[1:])
    shutil.rmtree(out)
    return (markers[-1].finished_at - markers[0].finished_at) / faces


def table(figures: dict[str, object]) -> str:
    """The measurements as a table."""
    variants, calls = figures["seconds_per_face"], figures["calls_per_face"]
    assert isinstance(variants, dict) and isinstance(calls, int)
    ceilings = Ceilings(**figures["ceilings"])  # type: ignore[arg-type]  # as bench wrote them
    cost = CallCost(**figures["call"])  # type: ignore[arg-type]
    floor = calls * cost.floor(ceilings)
    bound = "FLOPs" if cost.flops / ceilings.matmul > cost.bytes / ceilings.copy else "bytes"
    lines = [
        f"{figures['preset']} on {figures['device']}, {figures['precision']}, {figures['cores']} cores, "
        f"{calls} calls per face",
        f"one call: {cost.flops / 1e9:.2f} GFLOP, {cost.bytes / 1e9:.3f} GB; "
        f"ceilings here: {ceilings.matmul / 1e9:.0f} GFLOP/s, {ceilings.copy / 1e9:.1f} GB/s; bound by {bound}",
        f"{'variant':<20} {'s/face':>9} {'x plain':>8} {'spread':>13} {'of limit':>9}",
    ]
    for variant, seconds in variants.items():
        ratios = sorted(p / s for p, s in zip(variants["plain"], seconds, strict=True))
        spread = f"{ratios[0]:.2f} - {ratios[-1]:.2f}"
        middle = statistics.median(seconds)
        lines.append(
            f"{variant:<20} {middle:>9.4f} {statistics.median(ratios):>8.2f} {spread:>13} {floor / middle:>9.0%}"
        )
    engine = [name for name in variants if name.startswith("engine")][-1]
    if "pipeline" in variants:
        shares = sorted(p / e for p, e in zip(variants["pipeline"], variants[engine], strict=True))
        lines.append(
            f"the pipeline takes {statistics.median(shares):.3f} times the engine's time "
            f"({shares[0]:.3f} - {shares[-1]:.3f})"
        )
    if (fill := figures["slot_fill_while_faces_wait"]) is not None:
        lines.append(f"slots filled while faces wait: {fill:.3f}")
    return "\n".join(lines)


def levers(subject: Subject) -> dict[str, dict[str, float]]:
    """Milliseconds per face of one network call, by implementation, batch and threads."""
    prior, side, device = subject.prior, subject.preset.side, subject.config.device
    steps = [int(t) for t in subject.schedule.t]
    last = torch.channels_last
    moved = network(subject.preset.prior).to(device, memory_format=last)  # type: ignore[call-overload]
    forms: dict[str, Callable[..., object]] = {
        "the UNet as it is": prior,
        "channels_last": lambda x, t: moved(x.contiguous(memory_format=last), t),
        "torch.compile": torch.compile(prior, dynamic=False),
        "folded": InferenceUNet(prior, steps),
        "folded, bfloat16": InferenceUNet(prior, steps, torch.bfloat16),
    }
    most = subject.preset.lanes_cpu if device == "cpu" else subject.preset.lanes_gpu
    cases = [(batch, threads) for batch in sorted({1, most}) for threads in sorted({1, subject.cores})]
    found: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for name, form in forms.items():
            found[name] = {}
            for batch, threads in cases:
                torch.set_num_threads(threads)
                x, t = (
                    torch.randn(batch, 3, side, side, device=device),
                    torch.full((batch,), 4, device=device),
                )
                per_second = rate(lambda f=form, x=x, t=t: f(x, t), device, LEVER_SECONDS)  # type: ignore[misc]
                found[name][f"batch {batch}, {threads} threads"] = 1000 / per_second / batch
            print(
                f"{name:<20} " + ", ".join(f"{k}: {v:.1f} ms per face" for k, v in found[name].items()),
                flush=True,
            )
    return found


def soak(subject: Subject) -> dict[str, list[float]]:
    """Memory of this process, MiB, after each tenth of the faces."""
    engine, process = subject.engine("auto"), psutil.Process()
    pending, memory = [], []
    ahead, each = 4 * engine.slots, max(subject.config.soak // 10, 1)
    for number in range(subject.config.soak):
        pending.append(engine.submit(subject.job(number)))
        if len(pending) > ahead:
            pending.pop(0).result()
        if number % each == each - 1:
            memory.append(process.memory_info().rss / 2**20)
            print(f"{number + 1:>8} faces: {memory[-1]:.0f} MiB", flush=True)
    for future in pending:
        future.result()
    engine.close()
    return {"rss_mib": memory}
