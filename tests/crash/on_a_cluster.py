"""On a cluster: a job that is stopped, a node that is lost for good with everything on it, a night begun twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import yaml
from crash.scene import Scene, differences, wait_for
from crash.starter import ROOT
from photographs import mixed, read_folder, write_folder
from processes import descendants, names
from ray_cluster import SCRIPTS, RayCluster, ray_cluster, ray_node

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[RayCluster, dict[str, int]]]:
    """A head that carries no work, and two nodes that do; with each node's process by its address."""
    env = {"PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        head = stack.enter_context(ray_cluster(0, env))
        workers = {ip: stack.enter_context(ray_node(head, ip, 3, env)) for ip in ("127.0.0.2", "127.0.0.3")}
        yield head, workers


def markers(scene: Scene, name: str) -> int:
    return len(list((scene.output(name) / "_ledger" / "done").glob("*/[0-9]*.json")))


def test_a_stopped_job_finishes_what_is_in_flight_and_the_same_command_completes_it(scene, cluster):
    head, _ = cluster
    # the job's process gets SIGTERM, and SIGKILL so many seconds later; 3 are too few for a unit in flight
    waits = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}}'
    command = [sys.executable, "-m", "jobs.restore", *scene.arguments("stopped")]
    done = head.submit("stopped", ROOT, *command, options=("--no-wait", "--runtime-env-json", waits))
    assert done.returncode == 0, done.stdout
    wait_for(lambda: markers(scene, "stopped") > 1)
    head.stop("stopped")
    wait_for(lambda: head.job("stopped")["status"] in ("STOPPED", "FAILED", "SUCCEEDED"))
    job = head.job("stopped")
    log = (head.folder / "session_latest" / "logs" / "job-driver-stopped.log").read_text()
    assert job["status"] == "STOPPED", log
    assert "interrupted; the same command goes on" in log
    assert 1 < markers(scene, "stopped") < 21
    assert scene.start("stopped", "--ray-address", head.address) == 0, scene.log("stopped").read_text()
    assert differences(scene.left("stopped"), scene.undisturbed()) == {}


def test_a_night_that_is_started_twice_is_one_cleaning_and_the_next_finds_nothing_new(cluster, tmp_path):
    head, _ = cluster
    container = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "clean-cronjob.yaml").read_text())["spec"][
        "jobTemplate"
    ]["spec"]["template"]["spec"]["containers"][0]
    write_folder(tmp_path / "in", {name: mixed()[name] for name in ("portrait.jpg", "cat.png")})
    clean = [
        sys.executable,
        "-m",
        "jobs.clean",
        "--input",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
    ]
    clean += ["--device", "cpu", "--engines", "1", "--readers", "1", "--calls", "1"]

    def night(name: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"RAY_API_SERVER_ADDRESS": head.dashboard, "SUBMISSION_ID": name}
        env |= {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
        command = [*container["command"], *clean]
        return subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    first, again = night("clean-1"), night("clean-1")
    assert (first.returncode, again.returncode) == (0, 0), first.stdout + again.stdout
    assert head.job("clean-1")["driver_exit_code"] == 0
    versions = read_folder(tmp_path / "out" / "versions")
    assert versions
    following = night("clean-2")
    assert following.returncode == 0, following.stdout
    assert read_folder(tmp_path / "out" / "versions") == versions
    with urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=30) as answer:
        submitted = [job["submission_id"] for job in json.load(answer) if job["type"] == "SUBMISSION"]
    assert sorted(name for name in submitted if name.startswith("clean-")) == ["clean-1", "clean-2"]


def test_a_lost_node_with_the_engine_costs_nothing_but_time_on_the_one_that_remains(scene, cluster):
    head, workers = cluster
    lost: list[str] = []

    def lose_node() -> None:
        wait_for(lambda: markers(scene, "lost") > 1)
        for ip, top in workers.items():
            family = descendants(top)
            if any(b"RestoreFaces" in name for name in names(family).values()):
                lost.append(ip)
                for pid in (top, *family):
                    with suppress(ProcessLookupError):  # followed another that was killed
                        os.kill(pid, signal.SIGKILL)

    hunter = threading.Thread(target=lose_node)
    hunter.start()
    code = scene.start("lost", "--ray-address", head.address)
    hunter.join()
    assert code == 0, scene.log("lost").read_text()
    assert len(lost) == 1
    assert differences(scene.left("lost"), scene.undisturbed()) == {}
