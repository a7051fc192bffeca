"""What the driver holds does not grow with the images, and no unit waits for another; `make load` has the figures."""

import gc
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
import ray
from load import books
from load.stand_in import EngineCost, StandInEngine, StandInPublish, StandInRead
from mlflow import MlflowClient

from pipeline.faces.geometry import CropFrame
from pipeline.ledger.ledger import Ledger
from pipeline.records.totals import SUMS
from pipeline.restoration import flow
from pipeline.stages.load import LoadUnit

pytestmark = pytest.mark.slow

SHARDS, IMAGES = 12, 100
# of 64 images
UNITS = 2 * SHARDS
# shards of the plans that no flow walks
PLANNED = 5


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """The Ray that the first test starts; its workers find the stand-ins."""
    tests = str(Path(__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch:
        ray.shutdown()
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH")))))
        yield
        ray.shutdown()


def planned(folder: Path, images: int, unit_images: int) -> Ledger:
    """A ledger over Parquet shards of so many images, without what they hold."""
    books.write_shards(folder / "in", PLANNED, images)
    ledger = Ledger(str(folder / "out"), {})
    ledger.claim(str(folder / "in"))
    ledger.plan(str(folder / "in"), "auto", 1024, unit_images, "image")
    return ledger


def held_by_plan(folder: Path, images: int) -> tuple[int, int]:
    """Bytes that a plan of so many units keeps in the driver, and bytes of what enters the flow."""
    gc.collect()
    tracemalloc.start()
    try:
        ledger = planned(folder, images, images)
        gc.collect()
        pending = list(ledger.pending())
        assert len(pending) == PLANNED
        return tracemalloc.get_traced_memory()[0], len(pickle.dumps([u._asdict() for u in pending]))
    finally:
        tracemalloc.stop()


def test_the_driver_holds_as_much_for_units_of_many_images_as_of_few(tmp_path):
    held_by_plan(tmp_path / "loads what every plan needs", 1)
    few, many = held_by_plan(tmp_path / "few", 10), held_by_plan(tmp_path / "many", 1000)
    # 990 addresses more for each shard in the plan on disk, of 100 bytes and more
    assert many[0] < few[0] + 20_000
    assert many[1] == few[1]


def test_a_settled_unit_leaves_few_bytes_in_the_driver(tmp_path):
    """Its part's number and its share in sums; not its marker, which names every output."""
    ledger = planned(tmp_path, images=40, unit_images=1)
    outputs = [{"path": f"images/{i:04d}.jpg", "sha256": "0" * 64, "size": i} for i in range(64)]

    def settle(parts: range) -> int:
        """Bytes more after these parts of every shard."""
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for shard in range(PLANNED):
            for part in parts:
                marker = {
                    "run": ledger.run, "unit": f"shard-{shard:05d}-{part:04d}",
                    "shard": f"shard-{shard:05d}", "part": part, "last": False,
                    "images": 1, "faces": 1, "outcomes": dict.fromkeys(("restored",), 1)
                    | dict.fromkeys(("no_face", "skipped", "failed"), 0),
                    "sums": dict.fromkeys(SUMS, 1.0), "outputs": outputs, "finished_at": 1.0,
                }  # fmt: skip
                ledger.add(json.dumps(marker))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        settle(range(1))
        growth = [settle(range(1, 20)), settle(range(20, 39))]
    finally:
        tracemalloc.stop()
    assert max(growth) < 150 * PLANNED * 19
    assert ledger.totals.counts.images == PLANNED * 39


def test_a_run_settles_every_shard_and_a_second_start_does_only_what_is_missing(tmp_path):
    books.write_shards(tmp_path / "in", SHARDS, IMAGES)
    output = tmp_path / "out"
    cut = ["--unit-images", "64"]
    told = books.run(tmp_path / "in", output, EngineCost(), cut)
    assert (told["exit_code"], told["units"]) == (0, UNITS)
    missing = books.keep_back(output, 0.1)
    again = books.run(tmp_path / "in", output, EngineCost(), cut)
    assert (again["exit_code"], again["units"]) == (0, missing)
    run_id = json.loads((output / "_ledger" / "tracking.json").read_text())["run_id"]
    history = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_metric_history(run_id, "images")
    assert {p.step: p.value for p in history} == dict.fromkeys(range(1, SHARDS + 1), float(IMAGES))


def test_a_slow_unit_holds_back_no_other(tmp_path, monkeypatch):
    """Not even those that began in one task with it: it waits until the others are settled."""
    monkeypatch.setattr(flow, "MOST_BLOCKS", 2)
    ledger = planned(tmp_path, images=4, unit_images=4)
    flow.connect(None)
    pending = list(ledger.pending())[:16]
    others_settled = tmp_path / "others settled"
    slow = pending[0].name
    output = str(tmp_path / "out")
    publish = StandInPublish(
        output, CropFrame(8), "image", False, None, 1 << 20, False, {"eta": 0.5, "seed": 0}
    )
    # as many readers as engines: Ray would make one operator of them
    rows = flow.run_flow(
        pending, LoadUnit(output), StandInRead(8), EngineCost(waiting={slow: str(others_settled)}), publish,
        flow.Resources(1, 0.0, 1.0, 1, 1), engine=StandInEngine,
    )  # fmt: skip
    order = []
    for row in rows:
        order.append(row["unit"])
        # Ray's iterator keeps one row back
        if len(order) == len(pending) - 2:
            others_settled.touch()
    assert slow in order[-2:] and len(set(order)) == len(pending)
