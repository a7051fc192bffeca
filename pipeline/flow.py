"""The way of every unit through the cluster. The only file that imports ray.data.

Results come back in the order in which units finish; nothing is grouped or joined, so nothing waits for all.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipeline.records import Row, Unit
from pipeline.stages.align import ReadAndAlign
from pipeline.stages.publish import Publish
from pipeline.stages.restore import RestoreFaces, RestoreSettings

# A unit takes minutes on a CPU: only after this long without any progress something is wrong.
NO_PROGRESS_SECONDS = 3600


@dataclass(frozen=True)
class Resources:
    """What the stages may take of the cluster."""

    # engine actors, and what each holds
    engines: int
    gpus_per_engine: float
    cpus_per_engine: float
    # most concurrent read-and-align tasks, one CPU each
    readers: int
    # threads of the networks, on a CPU
    threads: int


def connect(address: str | None) -> None:
    """Join the cluster of `address` or RAY_ADDRESS; without either start a local one in this process."""
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address and address != "local":
        ray.init(address=address, **quiet)
    else:
        # CPUs are logical here: a small machine still runs one task of every stage.
        cpus = max(os.cpu_count() or 1, 4)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS


def fit_resources(device: str, engines: int, readers: int) -> tuple[Resources, str]:
    """How many engines and readers the cluster carries, and the engines' device; 0 leaves a number to us."""
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    on_gpu = device.startswith("cuda")
    engines = engines or (gpus if on_gpu else 1) or 1
    fitted = Resources(
        engines=engines,
        gpus_per_engine=1.0 if on_gpu else 0.0,
        cpus_per_engine=1.0,
        readers=readers or max(min(cpus - engines - 1, 256), 1),
        threads=max((os.cpu_count() or 1) // engines, 1),
    )
    return fitted, device


def run_flow(
    units: list[Unit], read: ReadAndAlign, restore: RestoreSettings, publish: Publish, resources: Resources
) -> Iterator[Row]:
    """Walk units through read & align → restore → paste & publish; yields each unit's marker row."""
    rows: list[dict[str, Any]] = [{"unit": u.name, "work": u.to_json()} for u in units]
    pool = ActorPoolStrategy(
        size=resources.engines,
        max_concurrent_calls_per_actor=4,
        enable_true_multi_threading=True,
        max_tasks_in_flight_per_actor=6,
    )
    yield from (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(read, compute=TaskPoolStrategy(size=resources.readers), num_cpus=1)
        .map(
            RestoreFaces,  # type: ignore[arg-type]  # a class is an actor's constructor; Ray types functions only
            fn_constructor_args=(restore,),
            compute=pool,
            num_cpus=resources.cpus_per_engine,
            num_gpus=resources.gpus_per_engine,
        )
        .map(publish, num_cpus=0.5)
        .iter_rows()
    )
