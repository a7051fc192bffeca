"""What the flow asks of a cluster, and what it shows of Ray; a local one where it takes one."""

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.console.options import UsageError
from pipeline.restoration import flow
from pipeline.restoration.flow import bounded, connect, refuse_empty, run_tasks


@pytest.mark.parametrize(
    ("device", "engines", "readers"), [("auto", 4, 8), ("cuda", 0, 8), ("cuda", 4, 0), ("auto", 0, 0)]
)
def test_a_cluster_whose_machines_are_yet_to_come_is_not_counted(device, engines, readers):
    with pytest.raises(UsageError, match="say --device, --engines and --readers"):
        refuse_empty({"memory": 1e9}, device, engines, readers)
    refuse_empty({"CPU": 1.0}, device, engines, readers)


def test_a_cluster_without_machines_takes_a_run_that_says_what_it_wants():
    refuse_empty({"memory": 1e9}, "cuda", 4, 8)


@pytest.fixture
def connected(monkeypatch) -> None:
    """This process as `connect` leaves it, without a Ray."""
    for name in ("join", "hear_remark"):
        monkeypatch.setattr(flow, name, lambda *_: None)
    connect(None)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A local Ray of this module's own."""
    ray.shutdown()
    connect("local")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_task_that_kills_its_workers_is_begun_again_so_often_and_its_neighbours_go_on(
    cluster, tmp_path, caplog
):
    begun = tmp_path / "begun"

    def one(row):
        with begun.open("a") as file:
            file.write(f"{row['n']}\n")
        if row["n"] == 1:
            os._exit(1)
        return row

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        done = [row["n"] for row in run_tasks([{"n": n} for n in range(3)], one, max_deaths=2)]
    assert sorted(done) == [0, 2]
    # its first time, and two more
    assert Counter(begun.read_text().split()) == {"0": 1, "1": 3, "2": 1}
    assert [str(w.message) for w in warned] == []
    assert "TaskGivenUp: its worker died 3 times" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_task_without_such_a_bound_is_begun_until_it_ends(cluster, tmp_path):
    begun = tmp_path / "begun"

    def one(row):
        with begun.open("a") as file:
            file.write(".")
        if len(begun.read_text()) < 6:
            os._exit(1)
        return row

    assert [row["n"] for row in run_tasks([{"n": 5}], one)] == [5]
    assert begun.read_text() == "." * 6


def test_a_bounded_stage_has_the_stages_name_by_which_ray_shows_it():
    class ReadUnit:
        def __call__(self, row):
            return row

    assert bounded(ReadUnit()).__name__ == "ReadUnit"
    assert bounded(refuse_empty).__name__ == "refuse_empty"


@pytest.mark.parametrize(
    ("level", "text", "shown"),
    [
        (logging.INFO, "Execution plan of Dataset", False),
        (logging.WARNING, "Progress bars disabled.", False),
        (logging.WARNING, "Cluster resources are not enough to run any task from Map(Read).", True),
        (logging.ERROR, "An exception was raised from a task", True),
    ],
)
def test_of_ray_datas_lines_only_failures_and_a_cluster_without_room_are_shown(connected, level, text, shown):
    record = logging.LogRecord("ray.data.somewhere", level, __file__, 1, text, None, None)
    handlers = logging.getLogger("ray.data").handlers
    screens = [h for h in handlers if isinstance(h, logging.StreamHandler)]
    assert [bool(h.filter(record)) for h in screens] == [shown] * len(screens) != []
    # Ray's own log has them all
    assert all(h.filter(record) for h in handlers if h not in screens)


@pytest.mark.parametrize(
    ("failed", "shown"), [("_StatsActor.update_execution_metrics()", False), ("EngineActor.restore()", True)]
)
def test_failures_of_ray_datas_own_statistics_are_not_shown(connected, failed, shown):
    text = f"Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): ray::{failed} (pid=1)"
    record = logging.LogRecord("ray._private.worker", logging.ERROR, __file__, 1, text, None, None)
    assert bool(logging.getLogger("ray._private.worker").filter(record)) == shown


def test_ray_is_pinned_below_no_release_that_takes_away_what_the_flow_calls():
    """No argument of `map` is passed on to ray.remote, which Ray 2.64 will not take."""
    source = Path(connect.__code__.co_filename).read_text()
    assert not any(
        f"{name}=" in source or f'"{name}"' in source for name in ("max_retries", "max_task_retries")
    )
