"""Whatever is killed, the same training again leaves the curve and the weights of an undisturbed one, bit by bit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import descendants, names

from jobs import train_estimator, train_prior
from tests.training import killed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed():
    """Outputs of trainings that nobody killed, by number of workers."""
    return {}


def kept(output):
    """What a training leaves."""
    return killed.curve(output), (Path(output) / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("workers", "rank", "moment"),
    [
        (1, 0, "while writing the checkpoint"),
        (1, 0, "before the checkpoint has its name"),
        (1, 0, "in a step"),
        (2, 0, "while writing the checkpoint"),
        (2, 1, "in a step"),
    ],
)
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    plan, arguments, undisturbed, tmp_path_factory, workers, rank, moment
):
    folder = tmp_path_factory.mktemp("killed")
    arguments = [*arguments(folder / "out", "--workers", str(workers)), "--steps", "8"]
    planned = plan(train_prior, arguments)
    if workers not in undisturbed:
        other = replace(planned, output=str(folder / "straight"))
        assert set(killed.train(other, workers)) == {0}
        undisturbed[workers] = kept(other.output)
    codes = killed.train(planned, workers, rank, moment)
    assert codes[rank] == -signal.SIGKILL and 0 not in codes
    assert not (folder / "out" / "weights.safetensors").exists()
    assert set(killed.train(planned, workers)) == {0}
    assert kept(planned.output) == undisturbed[workers]


def test_a_worker_under_ray_is_killed_then_the_driver_stopped_and_the_curve_is_that_of_neither(
    plan, arguments, tmp_path
):
    more = ["--batch=32", "--lr-final=1e-3", "--log-every=5", "--checkpoint-every=5", "--validate-every=0"]
    whole = arguments(tmp_path / "out", *more)
    log, checkpoint = tmp_path / "log", tmp_path / "out" / "checkpoint.pt"
    command = [sys.executable, "-m", "jobs.train_estimator", *whole, "--steps=1000000"]
    with log.open("wb") as file:
        job = subprocess.Popen(command, stdout=file, stderr=file)

    def until(holds):
        while not holds():
            assert job.poll() is None, log.read_text()
            time.sleep(0.1)

    until(checkpoint.exists)
    ours = names(descendants(job.pid))
    os.kill(next(pid for pid, name in ours.items() if b"RayTrainWorker" in name), signal.SIGKILL)
    until(lambda: "continuing from step" in log.read_text(errors="replace"))
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 130, log.read_text()
    assert "the same command continues" in log.read_text()

    # the learning rate stays what it is, so that the number of steps may be another
    done = killed.checkpoint.load_checkpoint(checkpoint)["step"]
    planned = plan(train_estimator, [*whole, f"--steps={done + 5}"])
    straight = replace(planned, output=str(tmp_path / "straight"))
    assert killed.train(planned) == killed.train(straight) == [0]
    assert kept(planned.output) == kept(straight.output)
