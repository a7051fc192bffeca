"""A real Ray cluster of one node with its dashboard, as `ray job submit` needs it."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import descendants, parents
from servers import START_SECONDS, STOP_SECONDS, free_ports

SCRIPTS = sysconfig.get_path("scripts")
PORTS = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
)


@dataclass(frozen=True)
class RayCluster:
    """A running cluster."""

    # host:port that drivers join
    address: str
    # http://127.0.0.1:port of the dashboard, where jobs are submitted
    dashboard: str
    # everything that Ray writes, its logs among it
    folder: Path

    def submit(self, name: str, working_dir: Path, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Run a job to its end through the command line; what that printed, the job's output among it."""
        options = ["--address", self.dashboard, "--working-dir", str(working_dir), "--submission-id", name]
        command = [f"{SCRIPTS}/ray", "job", "submit", *options, "--", *entrypoint]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    def job(self, name: str) -> dict[str, Any]:
        """What the cluster knows of a submitted job."""
        with urllib.request.urlopen(f"{self.dashboard}/api/jobs/{name}", timeout=30) as answer:
            return json.load(answer)


@contextmanager
def ray_cluster(cpus: int = 4) -> Iterator[RayCluster]:
    """A head node on free loopback ports. Raises RuntimeError with its log when it does not come up.

    Its environment is this process's at the time of the call. Only processes that it started are ended.
    """
    # below /tmp, because the name of a Unix socket in it may have 107 letters at most
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [f"{SCRIPTS}/ray", "start", "--head", "--block", f"--temp-dir={folder}", f"--num-cpus={cpus}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={256 << 20}"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    # `python` of a submitted job is the one that runs the tests
    env = os.environ | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    with (folder / "start.log").open("wb") as log:
        head = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log)
    cluster = RayCluster(f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}", folder)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not takes_jobs(cluster):
            if head.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"Ray did not come up:\n{(folder / 'start.log').read_text()[-4000:]}")
            time.sleep(0.2)
        yield cluster
    finally:
        family = descendants(head.pid)
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(STOP_SECONDS)
        head.kill()
        head.wait()
        for pid in family & parents().keys():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def takes_jobs(cluster: RayCluster) -> bool:
    """Whether the dashboard answers and lists jobs."""
    try:
        with urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
