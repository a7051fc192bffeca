"""A run that is paused while another takes its output over mixes nothing of its own into it when it wakes."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from crash.scene import QUICK, wait_for
from in_process import flows
from photographs import portraits, read_folder, write_folder
from processes import with_environment

from jobs import restore
from pipeline.io import layout
from pipeline.ledger.ledger import read_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# A start on another machine: it can not see whether the first one's process lives, and waits for a sign of it.
PROGRAM = """
import socket, sys
from pipeline.ledger.lease import Lease
if sys.argv[1] != "here":
    socket.gethostname = lambda: sys.argv[1]
    Lease.take.__func__.__defaults__ = (1.0,)
from jobs import restore
sys.exit(restore.main(sys.argv[2:]))
"""
FAMILY = "DIFFACE_TEST_FAMILY"


def start(host: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    env = os.environ | {FAMILY: str(log), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, host, *arguments]
    with log.open("ab") as out:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)


def signalled(log: Path, number: signal.Signals) -> None:
    """Send a signal to every process of a start, its Ray's among them."""
    for pid in with_environment(f"{FAMILY}={log}"):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def pause(log: Path, lock: Path) -> None:
    """Stop every process of a start at a moment when none is inside the lock: who comes after it would wait for it."""
    while True:
        signalled(log, signal.SIGSTOP)
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                signalled(log, signal.SIGCONT)
        time.sleep(0.1)


def digests(output: Path) -> dict[str, str]:
    return {n: hashlib.sha256(c).hexdigest() for n, c in read_folder(output / "images").items()}


def report_of(output: Path) -> dict[str, bytes]:
    return {
        n: (output / "report" / n).read_bytes() for n in ("index.html", "contact_sheet.png", "shards.parquet")
    }


def test_nothing_of_a_paused_run_gets_into_the_one_that_took_its_output_over(tmp_path):
    from mlflow import MlflowClient

    source = write_folder(tmp_path / "photos", portraits(12))
    output, uri = tmp_path / "out", f"sqlite:///{tmp_path}/mlflow.db"
    places = ("--input", str(source), "--mlflow-uri", uri, "--unit-images", "1", *QUICK)
    mine = (*places, "--output", str(output))
    paused_log, other_log = (tmp_path / f"{name}.log" for name in ("paused", "other"))

    paused = start("here", paused_log, *mine, "--calls", "2", "--run-name", "paused")
    try:
        done = output / "_ledger" / "done"
        wait_for(lambda: len(list(done.glob("*/*.json"))) >= 2 or paused.poll() is not None)
        pause(paused_log, output / layout.LOCK)
        assert paused.poll() is None, paused_log.read_text()
        other = start("elsewhere", other_log, *mine, "--calls", "3", "--run-name", "other", "--new-run")
        assert other.wait(300) == 0, other_log.read_text()
        theirs, report = read_run(str(output)).run, report_of(output)
    finally:
        signalled(paused_log, signal.SIGCONT)
    assert paused.wait(300) == 130, paused_log.read_text()
    assert "has taken this output over; this one leaves it to that" in paused_log.read_text()

    with flows():
        assert restore.main([*places, "--output", str(tmp_path / "calm"), "--calls", "3"]) == 0
    assert digests(output) == digests(tmp_path / "calm")
    markers = [json.loads(path.read_bytes()) for path in done.glob("*/*.json")]
    assert len(markers) == 12 and {m["run"] for m in markers} == {theirs}
    assert report_of(output) == report
    client = MlflowClient(uri)
    [experiment] = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    found = client.search_runs([experiment], "attributes.run_name = 'other'")
    assert [r.info.status for r in found] == ["FINISHED"]
    assert not list((output / "_ledger/drivers").glob("*.stop"))
