"""Benchmark of the engine and the pipeline on this machine."""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from pipeline.console.commands import OK
from pipeline.console.options import UsageError
from pipeline.diffusion.engine import Engine
from pipeline.evaluation.job_cost import ENGINE, FaceCost, watch_restoration
from pipeline.evaluation.plain_loop import PlainLoop
from pipeline.evaluation.subject import BenchConfig, Subject
from pipeline.io import images
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.roofline import count_call, measure_ceilings, rate

UNIT_IMAGES = 8
LEVER_SECONDS = 3.0


def run(config: BenchConfig) -> int:
    """Measure, print, and write the JSON file if requested. Returns the exit code."""
    if config.pipeline and config.faces < 2 * UNIT_IMAGES:
        raise UsageError(
            f"--pipeline takes two units of faces, --faces {2 * UNIT_IMAGES}, got {config.faces}"
        )
    subject = Subject(config)
    figures: dict[str, Any]
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


def bench(subject: Subject) -> dict[str, Any]:
    """What a face took of every variant, by repeat, and the machine's limits."""
    config = subject.config
    engines = [subject.engine(slots) for slots in config.slots.split(",")]
    variants: dict[str, Callable[[], FaceCost]] = {}
    for name, loop in subject.plain_loops():
        in_plain_loop(loop, subject, loop.batch)
        variants[name] = partial(in_plain_loop, loop, subject, config.faces)
    for engine in engines:
        through(engine, subject, engine.slots)
        variants[f"engine, {engine.slots} slots"] = partial(through, engine, subject, config.faces)
    with tempfile.TemporaryDirectory() as folder:
        if config.pipeline:
            write_faces(subject, Path(folder))
            variants["pipeline"] = partial(through_pipeline, subject, Path(folder))
        spent: dict[str, list[FaceCost]] = {name: [] for name in variants}
        for _ in range(config.repeats):
            for name, variant in variants.items():
                spent[name].append(variant())
    fill = slot_fill(engines[-1], subject)
    for engine in engines:
        engine.close()
    torch.set_num_threads(subject.cores)
    return {
        "preset": subject.preset.name,
        "device": config.device,
        "precision": str(subject.precision).removeprefix("torch."),
        "cores": subject.cores,
        "calls_per_face": subject.treatment.steps,
        "slot_fill_while_faces_wait": fill,
        "seconds_per_face": {name: [one.seconds for one in some] for name, some in spent.items()},
        "cpu_seconds_per_face": {name: [one.cpu_seconds for one in some] for name, some in spent.items()},
        "pipeline": [asdict(one) for one in spent.get("pipeline", [])],
        **limits(subject),
    }


def limits(subject: Subject) -> dict[str, Any]:
    """The machine's ceilings, and the least time of a face's network calls in batches as the preset has them."""
    preset, device = subject.preset, subject.config.device
    faces = preset.lanes_cpu if device == "cpu" else preset.lanes_gpu
    ceilings = measure_ceilings(device, subject.precision)
    cost = count_call(preset.prior, preset.side, subject.precision, faces)
    calls_per_face = subject.treatment.steps / faces
    return {
        "ceilings": asdict(ceilings),
        "call": {"faces": faces, "flops": cost.flops, "bytes": cost.bytes},
        "floor": {
            "seconds_per_face": calls_per_face * cost.floor(ceilings),
            "fused_seconds_per_face": calls_per_face * cost.fused_floor(ceilings),
            "shares": cost.shares(ceilings),
        },
    }


def timed(work: Callable[[], object], faces: int) -> FaceCost:
    """What each of so many faces took of `work`, in this process."""
    began, before = time.perf_counter(), time.process_time()
    work()
    return FaceCost(
        (time.perf_counter() - began) / faces, {"process": (time.process_time() - before) / faces}
    )


def in_plain_loop(loop: PlainLoop, subject: Subject, faces: int) -> FaceCost:
    """Faces through a plain loop, on all cores."""
    torch.set_num_threads(subject.cores)
    return timed(lambda: loop(subject.jobs(faces)), faces)


def through(engine: Engine, subject: Subject, faces: int) -> FaceCost:
    """Faces through the engine."""
    return timed(lambda: [f.result() for f in [engine.submit(job) for job in subject.jobs(faces)]], faces)


def slot_fill(engine: Engine, subject: Subject) -> float | None:
    """Share of slots in use while faces were queued; None if none had to wait."""
    futures = [engine.submit(job) for job in subject.jobs(subject.config.faces)]
    results = [future.result() for future in futures]
    capacity = sum(r.capacity_saturated for r in results)
    return sum(r.steps_saturated for r in results) / capacity if capacity else None


def write_faces(subject: Subject, folder: Path) -> None:
    """Write the faces as PNG files, the input of the restore job."""
    (folder / "in").mkdir()
    for i in range(subject.config.faces):
        picture = np.roll(subject.crops[i % len(subject.crops)], i, axis=0)
        (folder / "in" / f"{i:05d}.png").write_bytes(images.encode_png(picture))


def through_pipeline(subject: Subject, folder: Path) -> FaceCost:
    """The faces as crops through the restore job, the engine of which has as much to do as that of `through`."""
    units = {"unit_images": UNIT_IMAGES, "shard_images": UNIT_IMAGES}
    slots = {"slots": subject.config.slots.split(",")[-1]}
    out = folder / "out"
    cost = watch_restoration(subject.config.restoration | slots | units, folder / "in", out)
    shutil.rmtree(out)
    return cost


def table(figures: Mapping[str, Any]) -> str:
    """The measurements as a table."""
    seconds, cpu = figures["seconds_per_face"], figures["cpu_seconds_per_face"]
    middles = {name: statistics.median(some) for name, some in seconds.items()}
    plain = [name for name in seconds if name.startswith("plain")]
    official, best = plain[0], min(plain, key=lambda name: middles[name])
    floor = figures["floor"]["seconds_per_face"]
    lines = [
        f"{figures['preset']} on {figures['device']}, {figures['precision']}, {figures['cores']} cores, "
        f"{figures['calls_per_face']} calls per face",
        *limit_lines(figures),
        f"{'variant':<26} {'s/face':>9} {'CPU s':>9} {'x plain':>8} {'spread':>13} {'x best':>7} {'of limit':>9}",
    ]
    for name, some in seconds.items():
        to_official, to_best = (
            sorted(p / s for p, s in zip(seconds[other], some, strict=True)) for other in (official, best)
        )
        spread = f"{to_official[0]:.2f} - {to_official[-1]:.2f}"
        lines.append(
            f"{name:<26} {middles[name]:>9.4f} {statistics.median(cpu[name]):>9.4f} "
            f"{statistics.median(to_official):>8.2f} {spread:>13} {statistics.median(to_best):>7.2f} "
            f"{floor / middles[name]:>9.0%}"
        )
    lines.append(f"x plain: times as fast as '{official}', the official program's use; x best: as '{best}'")
    engine = [name for name in seconds if name.startswith("engine")][-1]
    if "pipeline" in seconds:
        lines += pipeline_lines(figures, engine)
    if (fill := figures["slot_fill_while_faces_wait"]) is not None:
        lines.append(f"slots filled while faces wait: {fill:.3f}")
    return "\n".join(lines)


def limit_lines(figures: Mapping[str, Any]) -> list[str]:
    """The work of a call, the ceilings, and the least time that follows, with its shares by class of operations."""
    call, ceilings, floor = figures["call"], figures["ceilings"], figures["floor"]
    shares = [f"{kind} {share:.0%}" for kind, share in floor["shares"].items()]
    return [
        f"one call of {call['faces']} faces: {call['flops'] / 1e9:.2f} GFLOP, {call['bytes'] / 1e9:.3f} GB; "
        f"ceilings here: {ceilings['matmul'] / 1e9:.0f} GFLOP/s, {ceilings['copy'] / 1e9:.1f} GB/s",
        f"limit of the calls of a face: {floor['seconds_per_face']:.4f} s operation by operation "
        f"({', '.join(shares)}); {floor['fused_seconds_per_face']:.4f} s if arithmetic and movement overlap",
    ]


def pipeline_lines(figures: Mapping[str, Any], engine: str) -> list[str]:
    """What the restore job takes beside the engine."""
    lines = []
    for key, unit in (("seconds_per_face", "time"), ("cpu_seconds_per_face", "CPU time")):
        pairs = zip(figures[key]["pipeline"], figures[key][engine], strict=True)
        shares = sorted(p / e for p, e in pairs)
        lines.append(
            f"the pipeline takes {statistics.median(shares):.3f} times the {unit} of '{engine}' "
            f"({shares[0]:.3f} - {shares[-1]:.3f})"
        )
    jobs = figures["pipeline"]
    names = {role for job in jobs for role in job["cpu"]}
    roles = {role: statistics.median(job["cpu"].get(role, 0.0) for job in jobs) for role in names}
    lines.append("CPU ms a face of the job's processes, and their share of the engine's:")
    for role, spent in sorted(roles.items(), key=lambda one: -one[1]):
        lines.append(f"  {role:<32} {1000 * spent:>8.1f} {spent / roles[ENGINE]:>8.1%}")
    stages = {name: statistics.median(job["stages"][name] for job in jobs) for name in jobs[0]["stages"]}
    parts = [f"{name.removeprefix('seconds_')} {1000 * spent:.1f}" for name, spent in stages.items()]
    lines.append(f"wall ms a face in the stages, units of a stage side by side: {', '.join(parts)}")
    return lines


def levers(subject: Subject) -> dict[str, dict[str, float]]:
    """Milliseconds per face of one network call, by implementation, batch and threads."""
    prior, side, device = subject.prior, subject.preset.side, subject.config.device
    steps = [int(t) for t in subject.schedule.t]
    last = torch.channels_last
    moved = deepcopy(prior).to(memory_format=last)
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
