"""What the stages report while they work, without any Ray; and that none of it travels where it can not."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from photographs import mixed, portraits, write_folder

from pipeline.cleaning.assess import AssessUnit
from pipeline.console.work_counts import WorkCounts, ignore
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.records.rows import load_faces, load_images, with_crops
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import Restorer, choose_method, read_stage, restore_stage
from pipeline.stages.align import DetectorChoice
from pipeline.stages.restore import RestoreFaces


class Heard:
    """Everything that was reported, by whichever thread; it can not be pickled."""

    def __init__(self) -> None:
        self.each: list[WorkCounts] = []
        self._lock = threading.Lock()

    def __call__(self, counts: WorkCounts) -> None:
        with self._lock:
            self.each.append(counts)

    @property
    def sums(self) -> WorkCounts:
        return sum(self.each, WorkCounts())


def row_of(source: Path) -> dict[str, str]:
    """The folder as one unit, as the reading stage is given it."""
    kind, entries = list_input(str(source), "auto")
    (unit,) = cut_units(make_shards(kind, entries, 100)[0], 100, "image")
    return {"unit": unit.name, "work": unit.to_json()}


def stages(heard, **options):
    config = RestoreConfig.of("in", "out", preset="small-srcnn", precision="float32", **options)
    preset, chosen = choose_method(config)
    method = Restorer(preset, chosen, {})
    return (
        read_stage(config, method, "nowhere/stop", heard),
        restore_stage(config, method, "cpu", 1, "nowhere/stop", heard),
    )


def test_each_picture_that_was_read_is_reported_with_the_faces_that_go_on(tmp_path):
    write_folder(tmp_path, mixed())
    heard = Heard()
    row = stages(heard)[0](row_of(tmp_path))
    pictures, faces = load_images(row), with_crops(load_faces(row))
    # broken pictures and those without faces, too
    assert len(faces) > 2
    assert heard.each[0].pictures == 1 and len(heard.each) == len(pictures) == len(mixed())
    assert heard.sums == WorkCounts(pictures=len(pictures), faces=len(faces))


def test_a_picture_looked_at_in_a_process_of_its_own_is_reported_all_the_same(tmp_path):
    write_folder(tmp_path, portraits(2))
    heard = Heard()
    row = replace(stages(heard)[0], careful=True)(row_of(tmp_path))
    assert [image.outcome for image in load_images(row)] == [None, None]
    assert heard.sums == WorkCounts(pictures=2, faces=2)


@pytest.mark.parametrize("method", ["difface", "estimator"])
def test_an_engine_reports_its_networks_and_each_face_that_left_it(tmp_path, method):
    write_folder(tmp_path, portraits(3))
    heard = Heard()
    walk = {"start_step": 60, "steps": "ddim50"} if method == "difface" else {}
    read, restore = stages(heard, method=method, **walk)
    row = read(row_of(tmp_path))
    heard.each.clear()
    engine = RestoreFaces(restore)
    assert heard.each == [WorkCounts(loading=1), WorkCounts(ready=1)]
    done = engine(row)
    steps = int(json.loads(done["sums"])["slot_steps"])
    assert (steps > 0) == (method == "difface")
    decided = 3 if method == "difface" else 0
    assert heard.sums == WorkCounts(
        loading=1, ready=1, decided=decided, restored=3, steps_planned=steps, steps=steps
    )


def test_stages_that_nobody_watches_do_the_same(tmp_path):
    write_folder(tmp_path, portraits(1))
    watched, alone = (stages(report)[0](row_of(tmp_path)) for report in (Heard(), ignore))
    assert (watched["crops"], watched["faces"]) == (alone["crops"], alone["faces"])


def test_a_measurement_reports_each_picture_with_its_faces(tmp_path):
    write_folder(tmp_path / "in", mixed())
    heard = Heard()
    row = row_of(tmp_path / "in")
    work = json.loads(row["work"])
    files = {image["uri"]: ["a", 1, "v"] for image in work["images"]}
    stage = AssessUnit(
        str(tmp_path), 64, DetectorChoice("centerface", None, None), 1 << 30, "image", "nowhere/stop",
        report=heard,
    )  # fmt: skip
    done = stage(row | {"files": json.dumps(files), "known": "{}"})
    assert heard.sums == WorkCounts(pictures=done["images"], faces=done["faces"])
    assert done["images"] == len(mixed()) and done["faces"] > 2
