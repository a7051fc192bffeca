"""A run of many images through the real job, with stand-ins for reading, restoring and pasting.

`python -m load.books FOLDER --shards 10000` plans, settles, kills 0.1 % of the markers and resumes; says in JSON what
each phase took and what the driver held.
"""

import argparse
import gc
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from load.stand_in import EngineCost, StandInEngine, StandInPublish, StandInRead

from jobs import restore as job
from pipeline.faces.geometry import CropFrame
from pipeline.ledger.ledger import Ledger
from pipeline.restoration import run as restoration
from pipeline.restoration.flow import run_flow
from pipeline.tracking.tracker import RunTracker

# Side of the stand-in's crops, and in every how many images a face is: the payload has a measurement of its own.
SIDE, EVERY = 8, 16
KEPT_BACK = 0.001


def write_shards(folder: Path, shards: int, images: int) -> None:
    """Parquet shards of so many rows, all of them links to one file."""
    folder.mkdir(parents=True)
    first = folder / "shard-00000.parquet"
    pq.write_table(pa.table({"image": [b"\xff\xd8 no picture"] * images}), first)
    source, written = first, 0
    for number in range(1, shards):
        name = folder / f"shard-{number:05d}.parquet"
        if number - written >= 30_000:  # the most links that a file has here and there
            name.write_bytes(first.read_bytes())
            source, written = name, number
        else:
            os.link(source, name)


def write_pictures(folder: Path, images: int) -> None:
    """A folder of so many names of pictures."""
    for number in range(images):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def resident() -> float:
    """MiB of this process in memory now."""
    told = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told
    return int(told[1]) / 1024


class Measured:
    """What one start of the job took, phase by phase, and held, at shares of its units."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.resident: dict[str, float] = {"imported": resident()}
        # per unit: time of arrival, memory
        self.rows: list[tuple[float, float]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            self.resident[name] = resident()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*args, **options)

        return call

    def flow(self, *args: Any, **options: Any) -> Iterator[Any]:
        with self.phase("flow"):
            for row in run_flow(*args, engine=StandInEngine, **options):
                self.rows.append((time.monotonic(), resident()))
                if len(self.rows) % 500 == 0:
                    print(len(self.rows), *self.rows[-1], len(gc.get_objects()), flush=True)
                yield row

    def told(self) -> dict[str, Any]:
        units = len(self.rows)
        told: dict[str, Any] = {"seconds": {k: round(v, 2) for k, v in self.seconds.items()}}
        told["resident"] = {k: round(v) for k, v in self.resident.items()}
        told |= {"units": units, "total": round(time.monotonic() - self.began, 1)}
        if units >= 100:
            told["resident_at"] = {
                f"{share:g}": round(self.rows[int(share * (units - 1))][1])
                for share in (0, 0.01, 0.1, 0.25, 0.5, 0.75, 1)
            }
            tenth = units // 10
            told["ms_per_unit_by_tenth"] = [
                round((self.rows[(i + 1) * tenth - 1][0] - self.rows[i * tenth][0]) / tenth * 1000, 2)
                for i in range(10)
            ]
        return told


def run(source: Path, output: Path, cost: EngineCost, options: list[str]) -> dict[str, Any]:
    """One start of the job in this process."""
    measured = Measured()
    real = dict(vars(restoration))
    publish = restoration.publish_stage

    def stand_in_publish(*args: Any) -> StandInPublish:
        return StandInPublish(**vars(publish(*args)) | {"frame": CropFrame(SIDE)})

    methods = {Ledger: ("plan", "resume"), RunTracker: ("finish",)}
    originals = {(owner, name): getattr(owner, name) for owner, names in methods.items() for name in names}
    try:
        restoration.read_stage = lambda *_: StandInRead(SIDE, EVERY)
        restoration.restore_stage = lambda *_: cost
        restoration.publish_stage = stand_in_publish
        restoration.run_flow = measured.flow
        restoration.write_report = measured.timed("report", restoration.write_report)
        for (owner, name), method in originals.items():
            setattr(owner, name, timed_method(measured, name, method))
        where = ["--input", str(source), "--output", str(output)]
        code = job.main([*where, "--mlflow-uri", f"sqlite:///{output.parent}/mlflow.db", *options])
    finally:
        for name, value in real.items():
            setattr(restoration, name, value)
        for (owner, name), method in originals.items():
            setattr(owner, name, method)
    return {"exit_code": code} | measured.told()


def timed_method(measured: Measured, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        with measured.phase(name):
            return method(self, *args, **options)

    return call


def keep_back(output: Path, share: float) -> int:
    """Delete so large a share of the markers, at least one; how many."""
    markers = sorted((output / "_ledger" / "done").glob("*/*.json"))
    chosen = random.Random(0).sample(markers, max(int(share * len(markers)), 1))
    for marker in chosen:
        marker.unlink()
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=100, help="of a shard")
    parser.add_argument("--pictures", action="store_true", help="a folder of pictures, not Parquet shards")
    parser.add_argument("--cost", type=float, default=0.0)
    args, options = parser.parse_known_args()
    source, output = args.folder / "in", args.folder / "out"
    if not source.exists():
        if args.pictures:
            write_pictures(source, args.shards * args.images)
        else:
            write_shards(source, args.shards, args.images)
    print(json.dumps(run(source, output, EngineCost(args.cost), options)), flush=True)
    keep_back(output, KEPT_BACK)
    print(json.dumps(run(source, output, EngineCost(args.cost), options)), flush=True)


if __name__ == "__main__":
    main()
