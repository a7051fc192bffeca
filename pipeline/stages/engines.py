"""The engines of a preset's networks on a device: number types, calls, and as many slots as memory carries."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from pipeline.console.work_counts import Report, WorkCounts, ignore
from pipeline.diffusion.call_shapes import ShapesCache
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.estimator_engine import EstimatorEngine
from pipeline.diffusion.schedule import Schedule
from pipeline.io.weights_cache import cache_dir
from pipeline.networks.compiled import compiled
from pipeline.networks.environment import environment
from pipeline.networks.inference_nafnet import InferenceNAFNet
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.memory import bytes_per_slot
from pipeline.networks.nafnet import NAFNet
from pipeline.networks.precision import fix_kernels, in_precision, number_type
from pipeline.networks.presets import Preset, unknown_channels
from pipeline.networks.unet import UNet

# Network calls that a GPU works on at once: while one waits for memory another computes.
CALLS_ON_GPU = 2
# A call also needs its libraries' scratch space, and the process more than the engine.
SHARE_OF_FREE = 0.6


def engine_maker(
    preset: Preset, estimator: nn.Module, prior: UNet, schedule: Schedule, device: str, precision: str = "auto",
    slots: int = 0, threads: int = 1, report: Report = ignore,
) -> Callable[[int], Engine]:  # fmt: skip
    """What makes engines of a preset's networks on a device, by the side of their crops; all share the networks.

    slots: of each engine; 0 takes what memory and cores carry.
    """
    place = torch.device(device)
    on_cpu = place.type == "cpu"
    dtype = number_type(precision, on_cpu)
    fix_kernels(place)
    steps = [int(t) for t in schedule.t if t <= preset.max_step]
    batch = preset.lanes_cpu if on_cpu else preset.lanes_gpu
    useful = batch * (threads if on_cpu else CALLS_ON_GPU)
    share = min(threads / (os.cpu_count() or 1), 1) if on_cpu else 1
    estimating = inference_network(estimator.to(place), place, dtype)
    predicting = compiled(InferenceUNet(prior.to(place), steps, dtype), place, cache_dir() / "inductor")

    # kernels are chosen by shapes, and not by what the weights are
    shapes = [(spec.kind, dict(spec.options)) for spec in (preset.prior, preset.estimator)]
    about = environment(place, dtype, batch, is_compiled=False) | {"networks": shapes}
    cache = ShapesCache(cache_dir() / "call_shapes", about)

    def make(side: int) -> Engine:
        fitting = slots
        if not slots:
            each = bytes_per_slot(preset.prior, side, dtype)
            fitting = fitting_slots(useful, each, int(free_bytes(place) * share))
        return Engine(
            estimating,
            predicting,
            schedule,
            side,
            batch,
            fitting,
            place,
            threads,
            estimator_batch=estimator_batch(preset, on_cpu),
            unknown=unknown_channels(preset.estimator),
            report=lambda **counts: report(WorkCounts(**counts)),
            cache=cache,
        )

    return make


def estimator_engine_maker(
    preset: Preset, estimator: nn.Module, device: str, precision: str = "auto", threads: int = 1
) -> Callable[[int], EstimatorEngine]:
    """What makes engines, by the side of their crops, of the estimator alone: in the bits that others diffuse."""
    place = torch.device(device)
    on_cpu = place.type == "cpu"
    fix_kernels(place)
    estimating = inference_network(estimator.to(place), place, number_type(precision, on_cpu))

    def make(side: int) -> EstimatorEngine:
        workers = threads if on_cpu else CALLS_ON_GPU
        batch, unknown = estimator_batch(preset, on_cpu), unknown_channels(preset.estimator)
        return EstimatorEngine(estimating, side, batch, place, workers, unknown)

    return make


def estimator_batch(preset: Preset, on_cpu: bool) -> int:
    """Faces of one call of the estimator; on a CPU one at a time is as fast as many."""
    return 1 if on_cpu else max(preset.lanes_gpu // 4, 1)


def settled_precision(precision: str, device: str) -> str:
    """The number type by its name that `--precision` means on a device of this kind."""
    return str(number_type(precision, torch.device(device).type == "cpu")).removeprefix("torch.")


def inference_network(
    estimator: nn.Module, device: torch.device, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """The inference network of an estimator, where its kind has one; else the network itself, in `dtype`."""
    if isinstance(estimator, NAFNet):
        return InferenceNAFNet(estimator, dtype)
    return in_precision(estimator, device, dtype)


def free_bytes(device: torch.device) -> int:
    """Memory that this process can still take: of the device, or of the machine and the container around it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return int(free)


def fitting_slots(useful: int, each: int, free: int) -> int:
    """As many slots as are useful and fit, one at least. each: bytes of a slot; free: bytes there are."""
    return max(min(useful, int(free * SHARE_OF_FREE) // each), 1)
