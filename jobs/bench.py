"""Measure the engine against the plain way, in one run: `python -m jobs.bench`.

Plain is one face at a time through Algorithm 1, float32, as the official program does. Figures are ratios of the
same run; absolute times depend on the machine.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.config import option, parse
from pipeline.diffusion.difface import face_noise, restore
from pipeline.diffusion.engine import Engine, FaceJob
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.forecast import convolution_speed, face_cost
from pipeline.networks.zoo import NetworkSpec, Preset, build, find_preset, load_network
from pipeline.weights import WeightsError, resolve


@dataclass(frozen=True)
class BenchConfig:
    """What to measure."""

    preset: str = option("small-swinir", help="preset whose networks are measured", group="what")
    faces: int = option(16, help="faces restored in each measurement", group="what")
    start_step: int = option(40, help="N; a short chain measures as well as a long one", group="what")
    slots: str = option("1,8,16", help="numbers of slots to measure, separated by commas", group="what")
    repeats: int = option(3, help="measurements of each way; the spread is printed", group="what")
    device: str = option("cpu", help="cpu or cuda", group="what")
    output: str | None = option(
        None, help="write the figures to this JSON file", group="what", metavar="FILE"
    )


def networks(preset: Preset) -> list[torch.nn.Module]:
    """Estimator and prior; random weights where the files are not at hand, which costs the same time."""

    def one(spec: NetworkSpec) -> torch.nn.Module:
        try:
            return load_network(spec, resolve(spec.file, None, spec.sha256).path)
        except WeightsError:
            return build(spec)

    return [one(preset.estimator), one(preset.prior)]


def measure(work: Callable[[], None], repeats: int) -> list[float]:
    """Seconds of each of `repeats` runs, after one that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def bench(config: BenchConfig) -> dict[str, object]:
    """The figures: seconds a face of each way, and how many times faster than the plain way it is."""
    preset = find_preset(config.preset)
    estimator, prior = (n.to(config.device) for n in networks(preset))
    schedule = make_schedule(preset.steps)
    chain = chain_from(schedule, config.start_step, preset.start_rule)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (config.faces, preset.side, preset.side, 3), dtype=np.uint8)
    jobs = [FaceJob(c, noise_key(0, f"{i:04x}", 0), preset.eta, chain) for i, c in enumerate(crops)]

    @torch.inference_mode()
    def plain() -> None:
        for job in jobs:
            face = torch.from_numpy(job.crop.transpose(2, 0, 1)[None].copy()).to(config.device).float() / 255
            noise = face_noise([job.key], preset.side, config.device)
            restore(face, estimator, prior, schedule, chain, job.eta, noise)[1].cpu()

    ways = {"plain": [s / config.faces for s in measure(plain, config.repeats)]}
    on_cpu, cores = config.device == "cpu", torch.get_num_threads()
    lanes = preset.lanes_cpu if on_cpu else preset.lanes_gpu
    if on_cpu:
        torch.set_num_threads(1)  # as the restore job runs the engine
    for slots in map(int, config.slots.split(",")):
        engine = Engine(
            estimator,
            prior,
            schedule,
            preset.side,
            lanes,
            slots,
            config.device,
            threads=cores if on_cpu else 1,
        )

        def through(engine: Engine = engine) -> None:
            for future in [engine.submit(job) for job in jobs]:
                future.result()

        ways[f"engine, {slots} slots"] = [s / config.faces for s in measure(through, config.repeats)]
        engine.close()
    cost = face_cost(preset, len(chain.walk))
    torch.set_num_threads(cores)
    return {
        "preset": preset.name,
        "device": config.device,
        "threads": cores,
        "gflop_per_face": cost.flops / 1e9,
        "convolution_gflops": convolution_speed(config.device) / 1e9,
        "seconds_per_face": ways,
    }


def table(figures: dict[str, object]) -> str:
    """The figures for people."""
    ways = figures["seconds_per_face"]
    flop, ceiling = figures["gflop_per_face"], figures["convolution_gflops"]
    assert isinstance(ways, dict) and isinstance(flop, float) and isinstance(ceiling, float)
    base = statistics.median(ways["plain"])
    lines = [
        f"{figures['preset']} on {figures['device']} ({figures['threads']} threads): {flop:.1f} GFLOP a face, "
        f"a 3x3 convolution alone reaches {ceiling:.0f} GFLOP/s here",
        f"{'way':<22} {'s/face':>8} {'spread':>8} {'x plain':>8} {'of ceiling':>11}",
    ]
    for way, seconds in ways.items():
        middle = statistics.median(seconds)
        spread = (max(seconds) - min(seconds)) / middle
        lines.append(
            f"{way:<22} {middle:>8.3f} {spread:>8.0%} {base / middle:>8.2f} {flop / middle / ceiling:>11.0%}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON when asked to."""
    config = parse(BenchConfig, argv, description=__doc__ or "")
    figures = bench(config)
    print(table(figures))
    if config.output:
        Path(config.output).write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
