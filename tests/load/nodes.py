"""The flow on simulated nodes: how it scales, what waits for a slow shard, and what the object store holds.

`python -m load.nodes --nodes 4 --units 60 --cost 1 --side 512` says in JSON what one run took. A node here is a raylet
with an object store of its own, 4 CPUs and 1 GPU, all logical; its engine sleeps, so that few real cores suffice.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from load.stand_in import EngineCost, StandInEngine, StandInPublish, StandInRead
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray.cluster_utils import Cluster

from pipeline.faces.geometry import CropFrame
from pipeline.ledger.ledger import Ledger
from pipeline.restoration.flow import connect, fit_resources, run_flow
from pipeline.stages.load import LoadUnit

MIB = 1 << 20
CPUS = 4


@contextmanager
def nodes(count: int, store: int, gpus: int = 1) -> Iterator[None]:
    """A cluster of a head without work and so many nodes; `store` bytes of object store each. Joined on return."""
    head = {"num_cpus": 0, "object_store_memory": 100 * MIB, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=CPUS, num_gpus=gpus, object_store_memory=store)
        cluster.wait_for_nodes()
        connect(cluster.address)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


class Watch:
    """The object stores of the cluster, looked at twice a second."""

    def __init__(self) -> None:
        self.used: list[int] = []
        self.spilled = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._state = get_state_from_address(ray.get_runtime_context().gcs_address)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            stats = get_memory_info_reply(self._state).store_stats
            self.used.append(stats.object_store_bytes_used)
            self.spilled = stats.spilled_bytes_total


def plan(folder: Path, units: int, images: int) -> Ledger:
    """A planned run of so many units, one to a shard of so many pictures, in folder/out."""
    source = folder / "in"
    source.mkdir()
    for number in range(units * images):
        (source / f"{number:06d}.jpg").touch()
    ledger = Ledger(str(folder / "out"), {})
    ledger.claim(str(source))
    ledger.plan(str(source), "auto", images, images, "image")
    return ledger


def walk(ledger: Ledger, folder: Path, cost: EngineCost, side: int, device: str = "auto") -> dict[str, Any]:
    """Settle the ledger through the flow; what that took."""
    log = folder / "engines"
    log.mkdir()
    output = str(folder / "out")
    pending = list(ledger.pending())
    publish = StandInPublish(
        output=output, frame=CropFrame(side), image_column="image", aligned=False, keep_detail=None, max_pixels=1 << 20,
        save_faces=False, settings={"eta": 0.5, "seed": 0, "model_sha256": ""},
    )  # fmt: skip
    resources, _ = fit_resources(device, 0, 0)
    order, arrived = [], []
    began = time.monotonic()
    with Watch() as watch:
        rows = run_flow(
            pending, LoadUnit(output), StandInRead(side), replace(cost, log=str(log)), publish, resources,
            engine=StandInEngine,
        )  # fmt: skip
        for row in rows:
            ledger.add(row["marker"])
            order.append(row["unit"])
            arrived.append(time.monotonic() - began)
    return {
        "units": len(order),
        "engines": resources.engines,
        "readers": resources.readers,
        "seconds": round(arrived[-1], 1),
        "first": round(arrived[0], 1),
        "floor": round(len(order) * cost.seconds / resources.engines, 1),
        "steady_per_second": round(rate(arrived), 3),
        "units_by_engine": sorted(len(f.read_text().splitlines()) for f in log.iterdir()),
        "store_used_peak_mib": round(max(watch.used, default=0) / MIB),
        "spilled_mib": round(watch.spilled / MIB),
        "order": order,
    } | (
        {"slow_places_before_the_end": len(order) - 1 - max(map(order.index, cost.slow))} if cost.slow else {}
    )


def rate(arrived: Sequence[float]) -> float:
    """Units a second between the first and the last eighth: without starting the actors and emptying the flow."""
    first, last = len(arrived) // 8, len(arrived) * 7 // 8
    return (last - first) / (arrived[last] - arrived[first])


def measure(
    count: int, units: int, cost: EngineCost, side: int, images: int, store: int, gpus: int = 1
) -> dict[str, Any]:
    """One run on a cluster of its own."""
    with tempfile.TemporaryDirectory() as temporary, nodes(count, store, gpus):
        folder = Path(temporary)
        ledger = plan(folder, units, images)
        told = walk(ledger, folder, cost, side)
        assert ledger.totals.counts.images == units * images
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--cost", type=float, default=1.0)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--store", type=int, default=2048, help="MiB a node")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--slow", type=float, default=0.0, help="seconds of the first unit, where not --cost")
    args = parser.parse_args()
    slow = {"images-00000-0000": args.slow} if args.slow else {}
    cost = EngineCost(args.cost, slow=slow)
    told = measure(args.nodes, args.units, cost, args.side, args.images, args.store * MIB, args.gpus)
    del told["order"]
    print(json.dumps({"nodes": args.nodes, "cost": args.cost, "side": args.side} | told), flush=True)


if __name__ == "__main__":
    main()
