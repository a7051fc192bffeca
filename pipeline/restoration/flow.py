"""The way of every unit through the cluster. The only file that imports ray.data.

Results come back in the order in which units finish; nothing is grouped or joined, so nothing waits for all.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipeline.console.options import UsageError
from pipeline.io.units import Pending
from pipeline.metrics.measure import MeasureFaces, MeasureSettings
from pipeline.records.rows import Row
from pipeline.restoration.cluster import hear_remark, join
from pipeline.restoration.engine_actor import EngineActor
from pipeline.restoration.telemetry import Watched, counted, watched_actor
from pipeline.stages.load import LoadUnit
from pipeline.stages.restore import RestoreFaces

# A unit takes minutes on a CPU: only after this long without any progress something is wrong.
NO_PROGRESS_SECONDS = 3600
# So many units may kill their workers, or raise unexpected errors; beyond that it is not the pictures.
MOST_LOST_BLOCKS = 100
# A task whose worker dies, with its machine or by its picture, is begun again so often; Ray Data alone never gives up.
MOST_DEATHS = 3
# Up to here one unit is one task; the scheduler's memory grows with the tasks, so larger runs put several into one.
MOST_BLOCKS = 10_000
# What one task or actor of the stages beside the engine takes; a publisher with a network computes all the time.
READER_CPUS, MEASURER_CPUS, PUBLISHER_CPUS, ENHANCER_CPUS = 1.0, 0.5, 0.5, 1.0
# publishers with a network that share a GPU: while one reads, encodes or writes the other computes
ENHANCERS_PER_GPU = 2


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
    # measuring actors, and what each takes; none where nothing is measured
    measurers: int = 0
    cpus_per_measurer: float = 0.0
    gpus_per_measurer: float = 0.0
    # what each publisher holds
    cpus_per_publisher: float = PUBLISHER_CPUS
    gpus_per_publisher: float = 0.0


def connect(address: str | None) -> None:
    """Join the cluster of `address` or RAY_ADDRESS; without either start one that ends with this process.

    A process that has joined one already stays there. Raises UsageError where there is none to join, and none starts.
    """
    join(address)
    hear_remark()
    _settle()


def _settle() -> None:
    """Progress is ours to show, a slow unit is no hang, and every unit travels alone."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the other one writes Ray's log
            handler.addFilter(_worth_showing)
    logging.getLogger("ray._private.worker").addFilter(_is_no_statistic)
    # units that are lost on the way make fewer than there are actors
    warnings.filterwarnings("ignore", "The (maxi|mini)mum number of concurrent", UserWarning)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    # a unit that kills its workers again and again is left out, and its neighbours go on
    context.max_errored_blocks = MOST_LOST_BLOCKS
    # A block is closed after its first row: units that began in one task do not wait for each other further on, and
    # no task is given the crops of several.
    context.target_max_block_size = 1


def _worth_showing(record: logging.LogRecord) -> bool:
    """Whether a line of Ray Data's log is for people too: what fails, and a cluster too small for the run."""
    return record.levelno >= logging.ERROR or "not enough to run any task" in record.getMessage()


def _is_no_statistic(record: logging.LogRecord) -> bool:
    """Whether it is no failure of the actor of Ray Data's own statistics, which no run needs."""
    return "_StatsActor." not in record.getMessage()


def fit_resources(
    device: str,
    engines: int,
    readers: int,
    measurer_gpus: float | None = None,
    background_gpus: float | None = None,
) -> tuple[Resources, str]:
    """How many engines and readers the cluster carries, and the engines' device; 0 leaves a number to us.

    measurer_gpus, background_gpus: shares of each engine's GPU, together below a half, for an actor that measures its
    faces and for publishers that have a network of their own; None where there are none.
    """
    total = ray.cluster_resources()
    refuse_empty(total, device, engines, readers)
    gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    on_gpu = device.startswith("cuda")
    engines = engines or (gpus if on_gpu else 1) or 1
    # on the engines' GPUs one beside each; on CPUs on a quarter of them
    measurers = engines if measurer_gpus and on_gpu else min(engines, max(cpus // 4, 1))
    measurers = 0 if measurer_gpus is None else measurers
    measurer_share, background_share = (
        (share or 0.0) if on_gpu else 0.0 for share in (measurer_gpus, background_gpus)
    )
    publisher = PUBLISHER_CPUS if background_gpus is None or on_gpu else ENHANCER_CPUS
    # actors keep their CPUs, tasks give them back
    publishing = publisher * (engines * ENHANCERS_PER_GPU if background_share else 1)
    measurer = _cpu_share(cpus, measurers, publishing, MEASURER_CPUS) if measurers else 0.0
    fitted = Resources(
        engines=engines,
        # more than a half: two engines never share a GPU
        gpus_per_engine=1.0 - measurer_share - background_share if on_gpu else 0.0,
        cpus_per_engine=_cpu_share(cpus, engines, publishing + measurers * measurer),
        readers=readers or max(min(cpus - engines - measurers - 1, 256), 1),
        threads=max((os.cpu_count() or 1) // engines, 1),
        measurers=measurers,
        cpus_per_measurer=measurer,
        gpus_per_measurer=measurer_share,
        cpus_per_publisher=publisher,
        gpus_per_publisher=background_share / ENHANCERS_PER_GPU,
    )
    return fitted, device


def refuse_empty(total: Mapping[str, float], device: str, engines: int, readers: int) -> None:
    """Raise UsageError where numbers are left to us and no machine is there: a run would make do with one engine."""
    if not total.get("CPU") and (device == "auto" or not engines or not readers):
        raise UsageError(
            "the cluster has no machine for work yet, so nothing can be counted; "
            "say --device, --engines and --readers, and the autoscaler adds machines as they are needed"
        )


def _cpu_share(cpus: int, actors: int, others: float, most: float = 1.0) -> float:
    """CPUs of each actor: `most`, or less where a reader and the other stages would find none left and all wait."""
    return max(min(most, (cpus - READER_CPUS - others) / actors // 0.01 / 100), 0.0)


class TaskGivenUp(RuntimeError):
    """The workers of a task died with it again and again; Ray Data leaves its units out."""


def bounded(stage: Callable[[Row], Row], most: int = MOST_DEATHS) -> Callable[[Row], Row]:
    """The stage, which raises TaskGivenUp where its task was begun again more than `most` times.

    Ray Data begins a task again without end, and takes no number. Named as the stage, for Ray's dashboard.
    """

    def begin(row: Row) -> Row:
        # of this task or call of an actor; of the process's other threads Ray knows their own
        before = ray.get_runtime_context().worker.core_worker.get_current_task_attempt_number()
        if before > most:
            raise TaskGivenUp(f"its worker died {before} times")
        return stage(row)

    begin.__name__ = begin.__qualname__ = getattr(stage, "__name__", type(stage).__name__)
    return begin


class KeepPublishing:
    """An actor's publisher: what it loads onto a GPU stays there."""

    def __init__(self, publish: Callable[[Row], Row]) -> None:
        self._publish = publish

    def __call__(self, row: Row) -> Row:
        return self._publish(row)


def _publishers(publish: Callable[[Row], Row], resources: Resources) -> dict[str, Any]:
    """How Ray runs `publish`: as tasks, or where each needs a part of a GPU as actors that keep hold of theirs."""
    cpus = {"num_cpus": resources.cpus_per_publisher}
    if not resources.gpus_per_publisher:
        return cpus | {"fn": bounded(publish)}
    # one at first: the engines find their parts of the GPUs before the others come
    pool = ActorPoolStrategy(min_size=1, max_size=resources.engines * ENHANCERS_PER_GPU)
    how: dict[str, Any] = {"fn": KeepPublishing, "fn_constructor_args": (bounded(publish),), "compute": pool}
    return how | cpus | {"num_gpus": resources.gpus_per_publisher}


def run_flow(
    units: Sequence[Pending],
    load: LoadUnit,
    read: Callable[[Row], Row],
    restore: Any,
    publish: Callable[[Row], Row],
    resources: Resources,
    engine: type[Callable[[Row], Row]] = RestoreFaces,
    measure: MeasureSettings | None = None,
) -> Iterator[Row]:
    """Send units through load, read & align → restore (→ measure) → paste & publish; yields each unit's marker row.

    `load` and `read` ask for the same, so that Ray makes one task of them. engine: the actor's class; it is made of
    `restore`. measure: None where nothing is measured, and then there is no such stage.
    """
    rows: list[dict[str, Any]] = [{"unit": u.name} | u._asdict() for u in units]
    blocks = min(len(rows), MOST_BLOCKS)
    readers = TaskPoolStrategy(size=min(resources.readers, blocks))
    pool = ActorPoolStrategy(
        size=resources.engines,
        max_concurrent_calls_per_actor=4,
        enable_true_multi_threading=True,
        max_tasks_in_flight_per_actor=6,
    )
    restored = (
        ray.data.from_items(rows, override_num_blocks=blocks)
        .map(bounded(load), compute=readers, num_cpus=READER_CPUS)
        .map(bounded(Watched(read, "read")), compute=readers, num_cpus=READER_CPUS)
        .map(
            # a class is an actor's constructor
            watched_actor(partial(EngineActor, engine), "restore", engine.__name__),
            fn_constructor_args=(restore,),
            compute=pool,
            num_cpus=resources.cpus_per_engine,
            num_gpus=resources.gpus_per_engine,
            # unlike a reader in something: else Ray moves reading into the engines where there are as many of both
            label_selector={},
        )
    )
    if measure is not None:
        restored = restored.map(
            watched_actor(MeasureFaces, "measure", "MeasureFaces"),
            fn_constructor_args=(measure,),
            compute=ActorPoolStrategy(size=resources.measurers),
            num_cpus=resources.cpus_per_measurer,
            num_gpus=resources.gpus_per_measurer,
        )
    done = restored.map(**_publishers(Watched(publish, "publish"), resources))
    yield from counted(iter(done.iter_rows()), len(units))


def run_tasks(rows: list[Row], task: Callable[[Row], Row], max_deaths: int | None = None) -> Iterator[Row]:
    """Give every row to a task somewhere on the cluster, one CPU each; yields the results as they come.

    max_deaths: a task whose worker dies is begun again so often, and then gives no result; None: without end.
    """
    blocks = min(len(rows), MOST_BLOCKS)
    begun = task if max_deaths is None else bounded(task, max_deaths)
    yield from ray.data.from_items(rows, override_num_blocks=blocks).map(begun, num_cpus=1).iter_rows()
