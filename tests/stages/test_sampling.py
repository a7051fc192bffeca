"""Several restorations of a face, with the embedded networks: those of other seeds, and the nearest is delivered."""

import json
from dataclasses import replace

import numpy as np
import pytest
from photographs import portrait
from PIL import ImageFilter

from pipeline.console.work_counts import WorkCounts
from pipeline.diffusion.task import Task
from pipeline.faces.gates import Bounds
from pipeline.faces.geometry import CropFrame
from pipeline.faces.spread import STEPS, deviation, face_region, nearest_to_mean
from pipeline.records.rows import (
    FaceRecord,
    ImageRecord,
    dump_records,
    load_faces,
    pack,
    unpack,
    unpack_maps,
)
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import Restorer, choose_method, restore_stage
from pipeline.stages.restore import RestoreFaces

SIDE = 64
HEAD = portrait(SIDE, SIDE)
CROPS = [
    np.asarray(picture)
    for picture in (
        HEAD.filter(ImageFilter.GaussianBlur(4)),
        HEAD,
        HEAD.resize((12, 12)).resize((SIDE, SIDE), 0),
    )
]
FACES = [FaceRecord(0, i, [0.0] * 4, [0.0] * 10, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 0.9, 1.0) for i in range(3)]
ROW = {"unit": "u", "images": dump_records([ImageRecord("a.png", "0" * 64, SIDE, SIDE)]), "holes": b""}
REGION = face_region(CropFrame(SIDE))


def settings(bounds=None, **options):
    """The settings of an engine by a command with these options, every face by the chain of step 60."""
    walk = {"preset": "small-srcnn", "precision": "float32", "start_step": 60, "steps": "ddim50"}
    config = RestoreConfig.of("in", "out", **walk | options)
    return restore_stage(config, Restorer(*choose_method(config), {}, bounds), "cpu", 1, "nowhere/stop")


def restored(engine_settings, **more):
    """The records of three faces, their pictures and maps, and the sums."""
    stage = RestoreFaces(engine_settings)
    done = stage(ROW | {"faces": dump_records(FACES), "crops": pack(CROPS), "sums": "{}"} | more)
    stage._engine.close()
    sides = [SIDE] * len(FACES) if done["spreads"] else []
    maps = unpack_maps(done["spreads"], sides)
    return load_faces(done), unpack(done["restored"], [SIDE] * len(FACES)), maps, json.loads(done["sums"])


@pytest.fixture(scope="module")
def seeds():
    """The pictures of runs with the seeds 5, 6 and 7."""
    return [restored(settings(seed=seed))[1] for seed in (5, 6, 7)]


@pytest.fixture(scope="module")
def sampled():
    return restored(settings(seed=5, samples=3))


def test_the_samples_are_those_of_the_seeds_that_follow_and_the_nearest_is_delivered(seeds, sampled):
    faces, pictures, maps, _ = sampled
    for i, record in enumerate(faces):
        drawn = [pictures_of_seed[i] for pictures_of_seed in seeds]
        chosen = nearest_to_mean(drawn, REGION)
        assert len({sample.tobytes() for sample in drawn}) == 3
        assert np.array_equal(pictures[i], drawn[chosen]) and record.tried[-1]["sample"] == chosen
        levels = deviation(drawn)
        assert np.array_equal(maps[i], np.rint(levels * STEPS).clip(0, 255))
        assert record.samples == 3 and record.spread == round(levels[REGION].mean(), 3) > 0


def test_the_first_by_option_is_the_picture_of_a_run_without_samples(seeds, sampled):
    faces, pictures, maps, _ = restored(settings(seed=5, samples=3, deliver="first"))
    assert np.array_equal(pictures, seeds[0])
    assert np.array_equal(maps, sampled[2]) and [f.spread for f in faces] == [f.spread for f in sampled[0]]
    assert {f.tried[-1]["sample"] for f in faces} == {0}


def test_one_sample_says_nothing_of_a_spread(seeds):
    faces, _, maps, sums = restored(settings(seed=5))
    assert {(f.samples, f.spread, f.spread_identity, f.invented) for f in faces} == {(1, None, None, None)}
    assert not len(maps) and "chains_drawn" not in sums and "sample" not in faces[0].tried[-1]


def test_chains_are_counted(sampled):
    _, _, _, sums = sampled
    assert sums["chains_drawn"] == 9 and sums["slot_steps"] == 27


def test_every_chain_is_reported_as_work_of_its_face():
    reported = []
    restored(replace(settings(samples=3), report=reported.append))
    sums = sum(reported, WorkCounts())
    assert (sums.restored, sums.decided, sums.further, sums.steps) == (3, 9, 6, 27)
    assert sums.steps_planned == 27


def test_a_face_whose_identity_differs_by_more_than_the_bound_is_marked(sampled):
    """The gates' embedder measures it; without one nothing is marked."""
    alike = Bounds(identity=((0.0, 180.0),))
    faces, *_ = restored(settings(alike, seed=5, samples=3))
    assert all(0 < f.spread_identity < 60 for f in faces)
    assert [f.spread for f in faces] == [f.spread for f in sampled[0]]
    assert {f.invented for f in faces} == {None}  # the preset has no bound
    bound = sum(sorted(f.spread_identity for f in faces)[:2]) / 2
    marked, *_ = restored(replace(settings(alike, seed=5, samples=3), invented=bound))
    assert [f.invented for f in marked] == [f.spread_identity > bound for f in faces]
    assert {f.invented for f in marked} == {True, False}
    unasked, *_ = restored(replace(settings(seed=5, samples=3), invented=bound))
    assert {(f.spread_identity, f.invented) for f in unasked} == {(None, None)}


def test_faces_without_a_chain_have_a_map_of_zeros_and_no_samples(sampled):
    least, middle, most = sorted(f.estimated_change for f in sampled[0])
    table = (
        {"above": 0, "way": "left"},
        {"above": (least + middle) / 2, "way": "estimator"},
        {"above": (middle + most) / 2, "start_step": 60, "calls": 2, "hold": 1.0},
    )
    engine_settings = settings(samples=3)
    engine_settings = replace(engine_settings, method=replace(engine_settings.method, treatment=table))
    faces, _, maps, sums = restored(engine_settings)
    assert {f.treatment: (f.samples, f.spread is None) for f in faces} == {
        "left": (None, True), "estimator": (None, True), "chain": (3, False)
    }  # fmt: skip
    assert [bool(m.any()) for m in maps] == [f.treatment == "chain" for f in faces]
    assert sums["chains_drawn"] == 3


def test_the_samples_do_not_depend_on_company(sampled):
    """Other slots, threads and neighbours; the same pictures, maps and records."""
    other = replace(settings(seed=5, samples=3), slots=5, threads=2)
    faces, pictures, maps, _ = restored(other)
    assert faces == sampled[0]
    assert np.array_equal(pictures, sampled[1]) and np.array_equal(maps, sampled[2])


def test_other_tasks_sample_what_is_not_known():
    """The holes differ, and every sample keeps what is around them."""
    task = Task("inpaint")
    hole = np.zeros((SIDE, SIDE, 3), np.uint8)
    hole[24:40, 24:40] = 255
    one = replace(settings(samples=3), task=task)
    faces, pictures, maps, _ = restored(one, holes=pack([hole] * 3))
    assert all(f.samples == 3 for f in faces)
    for crop, picture, levels in zip(CROPS, pictures, maps, strict=True):
        assert levels[26:38, 26:38].min() > 0 and not levels[hole[..., 0] == 0].any()
        assert np.array_equal(picture[hole == 0], crop[hole == 0])
