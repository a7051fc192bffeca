"""Killed anywhere and started again, a run ends as if nothing had happened."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from photographs import OUTCOMES, mixed, portraits, read_folder, write_folder
from processes import descendants, names, parents

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
# Pictures in their own units, so that much is still to do after the first; 8 network calls a face.
OPTIONS = ("--unit-images", "1", "--shard-images", "3", "--start-step", "160", "--max-error-rate", "0.5")
FACES = 8
STEPS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Faces first, then pictures that have none or can not be read: one unit each, three to a shard."""
    faces = {f"a/{name}": content for name, content in portraits(FACES).items()}
    others = {f"b/{n}": content for n, content in mixed().items() if OUTCOMES[n][0] != "restored"}
    return write_folder(tmp_path_factory.mktemp("photos"), faces | others)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory, restore) -> dict[str, str]:
    """Digests of everything that the run delivers and records when nobody disturbs it."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert restore(source, output, *OPTIONS) == 0
    assert shard_steps(restore.mlflow_uri, output) == STEPS
    return digests(output)


@pytest.fixture
def output(undisturbed, tmp_path) -> Path:
    return tmp_path / "out"


def digests(output: Path) -> dict[str, str]:
    """sha256 by name of pictures, records and samples."""
    delivered = ("images/", "records/", "report/samples/")
    files = {n: c for n, c in read_folder(output).items() if n.startswith(delivered)}
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def markers(output: Path) -> list[Path]:
    return sorted((output / "_ledger" / "done").glob("*/*.json"))


def assert_all_accounted(output: Path, source: Path) -> None:
    """Every image of the input is in one marker, with one outcome."""
    marks = [json.loads(file.read_bytes()) for file in markers(output)]
    assert sum(m["images"] for m in marks) == len(read_folder(source))
    assert all(m["images"] == sum(m["outcomes"].values()) for m in marks)


def shard_steps(mlflow_uri: str, output: Path) -> list[int]:
    """Steps at which the output's MLflow run has a number of images, in order."""
    run_id = json.loads((output / "_ledger" / "tracking.json").read_text())["run_id"]
    history = MlflowClient(mlflow_uri).get_metric_history(run_id, "images")
    return sorted(point.step for point in history)


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """The job as a process of its own, with everything it says in `log`; gone at the end of the block."""
    with log.open("wb") as said:
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs.restore", *arguments], cwd=ROOT, stdout=said, stderr=said
        )
    try:
        yield job
    finally:
        job.kill()
        job.wait()


def engines(ancestor: int) -> set[int]:
    """The engine actors among the descendants."""
    return {pid for pid, name in names(descendants(ancestor)).items() if b"RestoreFaces" in name}


def test_a_killed_driver_leaves_no_worker_behind_and_the_same_command_completes_the_run(
    source, undisturbed, output, restore, tmp_path
):
    with started(restore.arguments(source, output, *OPTIONS), tmp_path / "log") as job:
        wait_for(lambda: markers(output) or job.poll() is not None)
        # but for two agents, which Ray ends a minute later and which do no work
        family = {pid for pid, name in names(descendants(job.pid)).items() if b"Agent" not in name}
        job.kill()
        assert job.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert family
    wait_for(lambda: not family & parents().keys())
    assert 0 < len(markers(output)) < len(read_folder(source))
    assert restore(source, output, *OPTIONS) == 0
    assert digests(output) == undisturbed
    assert_all_accounted(output, source)
    assert shard_steps(restore.mlflow_uri, output) == STEPS


def test_a_terminated_driver_finishes_what_is_in_flight_and_says_how_to_go_on(
    source, undisturbed, output, restore, tmp_path
):
    with started(restore.arguments(source, output, *OPTIONS), tmp_path / "log") as job:
        wait_for(lambda: markers(output) or job.poll() is not None)
        job.terminate()
        assert job.wait(120) == 130, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "stopping: units in flight are finished first" in said
    assert "interrupted; the same command goes on" in said
    done = len(markers(output))
    assert 0 < done < len(read_folder(source))
    # what was delivered is complete: pictures, records and marker of the same units
    assert len(list((output / "records").iterdir())) == done
    assert len(read_folder(output / "images")) == done
    assert restore(source, output, *OPTIONS) == 0
    assert digests(output) == undisturbed
    assert_all_accounted(output, source)
    assert shard_steps(restore.mlflow_uri, output) == STEPS


def test_a_killed_engine_is_replaced_and_the_run_goes_on(source, undisturbed, output, restore):
    killed: dict[int, int] = {}

    def kill_engine() -> None:
        before = engines(os.getpid())
        wait_for(lambda: markers(output))
        for pid in engines(os.getpid()) - before:
            os.kill(pid, signal.SIGKILL)
            killed[pid] = len(markers(output))

    hunter = threading.Thread(target=kill_engine)
    hunter.start()
    code = restore(source, output, *OPTIONS)
    hunter.join()
    assert code == 0
    [done] = killed.values()
    assert 0 < done < len(read_folder(source))
    assert digests(output) == undisturbed
    assert_all_accounted(output, source)
    assert shard_steps(restore.mlflow_uri, output) == STEPS
