"""A real Ray cluster with its dashboard, as `ray job submit` needs it: a head, and further nodes when wanted."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import descendants, parents
from servers import START_SECONDS, STOP_SECONDS, free_ports

SCRIPTS = sysconfig.get_path("scripts")
# of every node, and of the head besides
PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
HEAD_PORTS = ("port", "dashboard-port", "ray-client-server-port")


@dataclass(frozen=True)
class RayCluster:
    """A running cluster."""

    # host:port that drivers join
    address: str
    # http://127.0.0.1:port of the dashboard, where jobs are submitted
    dashboard: str
    # everything that Ray writes, its logs among it
    folder: Path
    # the head's Prometheus endpoint
    metrics: str

    def submit(
        self, name: str, working_dir: Path, *entrypoint: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a job to its end through the command line; what that printed, the job's output among it."""
        where = ["--address", self.dashboard, "--working-dir", str(working_dir), "--submission-id", name]
        command = [f"{SCRIPTS}/ray", "job", "submit", *where, *options, "--", *entrypoint]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    def stop(self, name: str) -> None:
        """What `ray job stop` asks for, at once: the command itself takes seconds to begin."""
        request = urllib.request.Request(f"{self.dashboard}/api/jobs/{name}/stop", method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["stopped"]

    def job(self, name: str) -> dict[str, Any]:
        """What the cluster knows of a submitted job."""
        with urllib.request.urlopen(f"{self.dashboard}/api/jobs/{name}", timeout=30) as answer:
            return json.load(answer)


@contextmanager
def ray_cluster(cpus: int = 4, env: Mapping[str, str] | None = None) -> Iterator[RayCluster]:
    """A head node on free loopback ports. Raises RuntimeError with its log when it does not come up.

    Its environment is this process's at the time of the call, and `env`. Only processes that it started are ended.
    """
    # below /tmp, because the name of a Unix socket in it may have 107 letters at most
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    ports = dict(zip(PORTS + HEAD_PORTS, free_ports(len(PORTS + HEAD_PORTS)), strict=True))
    options = ["--head", f"--temp-dir={folder}", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
    options += ["--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    options += [f"--{name}={port}" for name, port in ports.items()]
    cluster = RayCluster(
        address=f"127.0.0.1:{ports['port']}",
        dashboard=f"http://127.0.0.1:{ports['dashboard-port']}",
        folder=folder,
        metrics=f"http://127.0.0.1:{ports['metrics-export-port']}/metrics",
    )
    try:
        with _node(options, folder / "start.log", env or {}, lambda: takes_jobs(cluster)):
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_node(cluster: RayCluster, ip: str, cpus: int, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """One more node, at a loopback address of its own: the number of the process above all of the node's."""
    options = [f"--address={cluster.address}", f"--node-ip-address={ip}", f"--num-cpus={cpus}"]
    options += [f"--{name}={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
    joined = len(nodes(cluster))
    with _node(
        options, cluster.folder / f"start-{ip}.log", env or {}, lambda: len(nodes(cluster)) > joined
    ) as pid:
        yield pid


@contextmanager
def _node(options: Sequence[str], log: Path, env: Mapping[str, str], up: Callable[[], bool]) -> Iterator[int]:
    """`ray start` with these options, from the moment it is `up` until the end of the block: its process's number."""
    command = [f"{SCRIPTS}/ray", "start", "--block", *options, f"--object-store-memory={256 << 20}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    # `python` of a submitted job is the one that runs the tests
    full = os.environ | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"} | env
    with log.open("wb") as said:
        node = subprocess.Popen(command, env=full, cwd=log.parent, stdout=said, stderr=said)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not up():
            if node.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"Ray did not come up:\n{log.read_text()[-4000:]}")
            time.sleep(0.2)
        yield node.pid
    finally:
        family = descendants(node.pid)
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(STOP_SECONDS)
        node.kill()
        node.wait()
        for pid in family & parents().keys():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def nodes(cluster: RayCluster) -> list[dict[str, Any]]:
    """The cluster's nodes, as its dashboard knows them."""
    with urllib.request.urlopen(f"{cluster.dashboard}/nodes?view=summary", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["summary"]
        return found


def takes_jobs(cluster: RayCluster) -> bool:
    """Whether the dashboard answers and lists jobs."""
    try:
        with urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
