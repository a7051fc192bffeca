"""The jobs' flows in this process: the real stages in their order, without the seconds that workers take to start.

For tests of what a job does with its options; what Ray adds is tested in modules that start one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pipeline.cleaning import outcome
from pipeline.cleaning import run as cleaning
from pipeline.console.work_counts import ignore
from pipeline.evaluation import tracked
from pipeline.io.units import Pending
from pipeline.metrics.measure import MeasureFaces, MeasureSettings
from pipeline.networks.presets import NetworkSpec, load_network
from pipeline.records.rows import Row
from pipeline.restoration import method, run
from pipeline.restoration.flow import Resources
from pipeline.stages import restore as restoring
from pipeline.stages.restore import RestoreFaces
from pipeline.training import align

Stage = Callable[[Row], Row]


class NoBoard:
    """In the place of the actor that workers report to."""

    report = staticmethod(ignore)

    def __init__(self, say: Callable[[str], None]) -> None:
        pass

    def poll(self) -> None:
        return None

    def close(self) -> None:
        pass


def walk(
    units: Sequence[Pending],
    load: Stage,
    read: Stage,
    restore: Any,
    publish: Stage,
    resources: Resources,
    measure: MeasureSettings | None = None,
) -> Iterator[Row]:
    """`run_flow`, one unit after the other."""
    faces = RestoreFaces(restore)
    stages = [load, read, faces, *([MeasureFaces(measure)] if measure else []), publish]
    try:
        for unit in units:
            row: Row = {"unit": unit.name} | unit._asdict()
            for stage in stages:
                row = stage(row)
            yield row
    finally:
        faces._engine.close()  # whose threads would keep the networks


def do(rows: list[Row], task: Stage, max_deaths: int | None = None) -> Iterator[Row]:
    """`run_tasks`."""
    return map(task, rows)


_loaded: dict[tuple[str, str, int], nn.Module] = {}


def load_once(spec: NetworkSpec, path: Path | str) -> nn.Module:
    """`load_network`; a file that did not change is read once, because a run of a few faces mostly loads networks."""
    key = (repr(spec), str(path), Path(path).stat().st_mtime_ns)
    if key not in _loaded:
        _loaded[key] = load_network(spec, path)
    return deepcopy(_loaded[key])


@contextmanager
def flows() -> Iterator[None]:
    """Inside the block the jobs of this process need no Ray."""
    with pytest.MonkeyPatch.context() as patch:
        for job in (run, align, cleaning, outcome, tracked):
            patch.setattr(job, "connect", lambda *_: None)
        one = Resources(engines=1, gpus_per_engine=0.0, cpus_per_engine=1.0, readers=1, threads=1)
        patch.setattr(run, "fit_resources", lambda *_: (one, "cpu"))
        patch.setattr(run, "Board", NoBoard)
        patch.setattr(run, "run_flow", walk)
        for module in (method, restoring):
            patch.setattr(module, "load_network", load_once)
        for job in (align, cleaning, outcome):
            patch.setattr(job, "run_tasks", do)
        yield
