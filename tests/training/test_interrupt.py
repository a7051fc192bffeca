"""A training that is told to stop says so by its exit code, and leaves its checkpoint."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(240)


def test_an_interrupted_training_exits_with_130_and_keeps_its_checkpoint(preset, shards, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "jobs.train_estimator", "--preset", preset, "--shards", shards]
    command += ["--output", str(output), "--batch", "4", "--steps", "1000000", "--mlflow-uri", "none"]
    command += ["--checkpoint-every", "5", "--validate-every", "0"]
    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (output / "checkpoint.pt").exists():
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 130, (tmp_path / "log").read_text()
    assert "run the same command again" in (tmp_path / "log").read_text()
