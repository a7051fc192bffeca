"""What is decided of the faces of a unit, and what becomes of them, with the embedded networks."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from photographs import portrait
from PIL import ImageFilter

from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import ESTIMATOR, Treatment
from pipeline.faces.colour import anchor_change, anchor_colour
from pipeline.faces.error_features import ErrorModel
from pipeline.faces.gates import Bounds
from pipeline.records.rows import FaceRecord, ImageRecord, crop_sides, dump_records, load_faces, pack, unpack
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import Restorer, choose_method, restore_stage
from pipeline.stages.engines import settled_precision
from pipeline.stages.restore import RestoreFaces

SIDE = 64
WALK = {"start_step": 60, "steps": "ddim50"}
HEAD = portrait(SIDE, SIDE)
CROPS = [
    np.asarray(picture)
    for picture in (
        HEAD.filter(ImageFilter.GaussianBlur(4)),
        HEAD,
        HEAD.resize((12, 12)).resize((SIDE, SIDE), 0),
    )
]


def settings(**options):
    """The settings of an engine by a command with these options; nothing is looked for."""
    config = RestoreConfig.of("in", "out", preset="small-srcnn", precision="float32", **options)
    preset, chosen = choose_method(config)
    return restore_stage(config, Restorer(preset, chosen, {}), "cpu", 1, "nowhere/stop")


def with_table(settings, rows):
    """The settings of an engine that treats each face as the rows say."""
    return replace(settings, method=replace(settings.method, treatment=rows))


def face(number, affine=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), **more) -> FaceRecord:
    return FaceRecord(0, number, [0.0] * 4, [0.0] * 10, list(affine), 0.9, 1.0, **more)


def restored(engine_settings, faces=None, crops=CROPS):
    """The records, estimates and restorations of faces in one picture, and the unit's sums."""
    faces = [face(i) for i in range(len(crops))] if faces is None else faces
    row = {"unit": "u", "images": dump_records([ImageRecord("a.png", "0" * 64, SIDE, SIDE)]), "holes": b""}
    done = RestoreFaces(engine_settings)(
        row | {"faces": dump_records(faces), "crops": pack(crops), "sums": "{}"}
    )
    sides = crop_sides(faces, SIDE)
    pictures = [np.stack(unpack(done[name], sides)) for name in ("estimated", "restored")]
    return load_faces(done), *pictures, json.loads(done["sums"])


@pytest.fixture(scope="module")
def chains():
    """All faces walk the chain of step 60."""
    return restored(settings(**WALK, free_colour=True))


@pytest.fixture(scope="module")
def table(chains):
    """Of three faces the least changed is left, and the most changed walks a held chain."""
    least, middle, most = sorted(face.estimated_change for face in chains[0])
    return (
        {"above": 0, "way": "left"},
        {"above": (least + middle) / 2, "way": "estimator"},
        {"above": (middle + most) / 2, "start_step": 60, "calls": 2, "hold": 1.0},
    )


def test_the_error_of_each_face_is_predicted_from_its_crop_and_estimate_alone(chains, table):
    model = ErrorModel(0.5, {"change": (-2.0, 3.0, 0.8, 0.1), "crispness": (-1.0, 0.5, -0.7, 0.0)})
    predicting = replace(with_table(settings(**WALK, free_colour=True), table), error_model=model)
    faces, estimated, *_ = restored(predicting)
    found = [f.predicted_error for f in faces]
    assert found == [
        model.error(crop, estimate, f.estimated_change, f.scale, None)
        for crop, estimate, f in zip(CROPS, estimated, faces, strict=True)
    ]
    assert len(set(found)) == 3 and min(found) > 0, "of the face that is left, too"
    [alone], *_ = restored(predicting, [face(2)], CROPS[2:])
    assert alone.predicted_error == found[2]
    assert [f.predicted_error for f in chains[0]] == [None] * 3


def test_faces_of_two_sides_in_one_unit_end_as_they_do_alone():
    chosen = settings(**WALK, samples=2)
    larger = {"side": 96, "above_scale": 1.5, "above_crispness": 0.5}
    stage = RestoreFaces(replace(chosen, preset=replace(chosen.preset, sides=(larger,))))
    crops = [CROPS[0], cv2.resize(CROPS[1], (96, 96)), CROPS[2]]
    faces = [face(i, side=len(crop)) for i, crop in enumerate(crops)]

    def done(which):
        unit = {"unit": "u", "images": dump_records([ImageRecord("a.png", "0" * 64, SIDE, SIDE)])}
        unit |= {"faces": dump_records([faces[i] for i in which]), "crops": pack([crops[i] for i in which])}
        return stage(unit | {"holes": b"", "sums": "{}"})

    together, apart = done([0, 1, 2]), [done([i]) for i in range(3)]
    stage._engine.close()
    for name in ("estimated", "restored", "spreads"):
        assert together[name] == b"".join(row[name] for row in apart)
    assert load_faces(together) == [face for row in apart for face in load_faces(row)]
    assert [f.side for f in load_faces(together)] == [64, 96, 64]
    assert len(together["restored"]) == 3 * (2 * 64**2 + 96**2) == 3 * len(together["spreads"])


def test_a_larger_crop_is_left_below_a_bound_of_its_own(table):
    chosen = with_table(settings(**WALK, free_colour=True), table)
    crops = [CROPS[0], cv2.resize(CROPS[0], (96, 96))]
    larger = {"side": 96, "above_scale": 1.5, "above_crispness": 0.5}

    def of(**more):
        stage = RestoreFaces(replace(chosen, preset=replace(chosen.preset, sides=(larger | more,))))
        row = {
            "unit": "u",
            "images": dump_records([ImageRecord("a.png", "0" * 64, SIDE, SIDE)]),
            "holes": b"",
        }
        faces = dump_records([face(0), face(1, side=96)])
        done = stage(row | {"faces": faces, "crops": pack(crops), "sums": "{}"})
        stage._engine.close()
        return load_faces(done)

    same, before = of()
    bound = round(before.estimated_change + 0.5, 2)
    usual, after = of(left_below=bound)
    assert usual == same and after.estimated_change == before.estimated_change
    assert after.treatment == "left" and after.kept.endswith(
        f"levels in the mean, below {max(bound, table[1]['above']):g}"
    )
    assert of(left_below=0.01) == [same, before]


def test_a_table_decides_of_each_face_by_how_far_the_estimator_changes_it(chains, table):
    engine_settings = with_table(settings(**WALK, free_colour=True), table)
    faces, estimated, pictures, sums = restored(engine_settings)
    assert [f.estimated_change for f in faces] == [f.estimated_change for f in chains[0]]
    assert np.array_equal(estimated, chains[1])
    by_change = sorted(range(3), key=lambda i: faces[i].estimated_change)
    assert [faces[i].treatment for i in by_change] == ["left", "estimator", "chain"]
    left, alone, walked = by_change
    assert np.array_equal(pictures[left], CROPS[left])
    assert np.array_equal(pictures[alone], estimated[alone])
    assert faces[alone].distance == 0 < faces[walked].distance
    told_of_chains = [(f.start_step, f.calls, f.hold) for f in faces]
    assert [told_of_chains[i] for i in by_change] == [(None, None, None), (None, None, None), (60, 2, 1.0)]
    assert [bool(faces[i].kept) for i in by_change] == [True, False, False]
    change, bound = faces[left].estimated_change, table[1]["above"]
    assert faces[left].kept == (
        f"the face has nothing to gain: the estimator changes it by {change:.2f} levels in the mean, below {bound:g}"
    )
    assert sums["slot_steps"] == 2
    # the engine's own judgement of a face does not depend on what is done with it
    assert {(f.treatment, f.start_step, f.calls, f.hold, f.kept) for f in chains[0]} == {
        ("chain", 60, 3, 0.0, "")
    }
    assert chains[3]["slot_steps"] == 9


@pytest.mark.parametrize(("pastes_change", "anchor"), [(True, anchor_change), (False, anchor_colour)])
def test_a_restored_face_takes_the_pictures_colours_and_a_left_one_stays_exact(table, pastes_change, anchor):
    engine_settings = replace(with_table(settings(**WALK), table), pastes_change=pastes_change)
    faces, _, pictures, _ = restored(engine_settings)
    free = restored(replace(engine_settings, free_colour=True))[2]
    for i, face_of in enumerate(faces):
        wanted = CROPS[i] if face_of.treatment == "left" else anchor(CROPS[i], free[i])
        assert np.array_equal(pictures[i], wanted)


def test_a_face_at_the_border_is_judged_by_what_lies_in_the_picture(chains):
    """The upper half of its crop is mirrored, and has no part in its change."""
    engine_settings = settings(**WALK)
    (whole,), *_ = restored(engine_settings, [face(0)], CROPS[2:])
    beyond = face(0, (1.0, 0.0, 0.0, 0.0, 1.0, SIDE / 2))
    (half,), estimated, *_ = restored(engine_settings, [beyond], CROPS[2:])
    lower = np.abs(estimated[0].astype(float) - CROPS[2])[SIDE // 2 :].mean()
    assert half.estimated_change == pytest.approx(lower, abs=0.2)
    assert whole.estimated_change == chains[0][2].estimated_change != half.estimated_change


def test_the_estimator_alone_restores_without_a_chain(chains):
    faces, estimated, pictures, sums = restored(settings(method="estimator", free_colour=True))
    assert np.array_equal(estimated, chains[1]) and np.array_equal(pictures, estimated)
    assert {(f.treatment, f.start_step, f.calls, f.hold) for f in faces} == {("estimator", None, None, None)}
    assert [f.estimated_change for f in faces] == [f.estimated_change for f in chains[0]]
    assert sums["slot_steps"] == 0


def test_faces_without_a_crop_pass_by_and_keep_what_was_decided(chains):
    unseen = face(1, kept="sharp already", has_crop=False, treatment="left")
    faces, _, pictures, _ = restored(
        settings(**WALK, free_colour=True), [face(0), unseen, face(2)], [CROPS[0], CROPS[2]]
    )
    assert faces[1] == unseen and len(pictures) == 2
    assert [f.treatment for f in faces] == ["chain", "left", "chain"]
    # noise belongs to a face's own number
    assert np.array_equal(pictures, chains[2][[0, 2]])


def test_one_treatment_or_a_table_is_made_of_the_settings():
    schedule = make_schedule("ddim50")
    plain = replace(settings(**WALK, calls=2).method, hold=1.5)
    assert plain.treatments(schedule) == Treatment("chain", chain_from(schedule, 60, "official", 2), 1.5)
    assert settings(method="estimator").method.treatments(schedule) == ESTIMATOR
    rows = ({"above": 0, "way": "left"}, {"above": 2.0, "start_step": 80, "calls": 1, "hold": 0})
    table = replace(plain, treatment=rows, start_rule="paper").treatments(schedule)
    assert table(1.99) == Treatment("left")
    assert table(2.0) == Treatment("chain", chain_from(schedule, 80, "paper", 1), 0)


@pytest.mark.parametrize(
    ("wish", "device", "name"), [("float16", "cpu", "float16"), ("auto", "cuda", "float16")]
)
def test_a_number_type_is_settled_by_its_name(wish, device, name):
    assert settled_precision(wish, device) == name
    assert settled_precision("auto", "cpu") in ("float32", "bfloat16")


def gated(bounds: Bounds, **options):
    """The settings of an engine with gates; the embedding is that of the package."""
    return replace(settings(**WALK, **options), bounds=bounds)


OPEN = Bounds(identity=((0.0, 180.0),), landmarks=1e9, colour=1e9, gain=-1e9)


def test_gates_that_all_pass_change_no_bit(chains):
    faces, estimated, pictures, sums = restored(gated(OPEN, free_colour=True))
    assert np.array_equal(pictures, chains[2]) and np.array_equal(estimated, chains[1])
    assert [f.rung for f in faces] == ["asked"] * 3 and sums["slot_steps"] == 9
    assert all(set(f.tried[0]) >= {"identity", "colour", "gain"} for f in faces)


def test_a_gate_that_nothing_passes_leaves_every_face_as_it_was_and_says_why(chains):
    faces, _, pictures, sums = restored(gated(replace(OPEN, identity=((0.0, 1e-6),))))
    assert np.array_equal(pictures, np.stack(CROPS))
    assert [(f.treatment, f.left_for, f.rung) for f in faces] == [("left", "identity", "")] * 3
    assert [[t["rung"] for t in f.tried] for f in faces] == [["asked", "held", "lower_n", "estimator"]] * 3
    assert all(
        t["failed"] == "identity" and t["bound"] == pytest.approx(1e-6) for f in faces for t in f.tried
    )
    assert faces[0].kept.startswith(
        "restored as asked, it would not look like the person any more (identity "
    )
    assert faces[0].kept.endswith("is allowed); 3 gentler treatments did not pass either")
    # three calls of the chain, three held, one from step 20, the lower N
    assert sums["slot_steps"] == 3 * (3 + 3 + 1)


def test_a_face_is_delivered_by_the_first_treatment_that_turns_it_little_enough():
    """The bound lies between what the first and the second treatment of a face do to it."""
    every = restored(gated(replace(OPEN, identity=((0.0, 1e-6),))))[0]
    turned = [[t["identity"] for t in face.tried] for face in every]
    first = next(i for i, (asked, *gentler) in enumerate(turned) if min(gentler) < asked)
    bound = (turned[first][0] + min(turned[first][1:])) / 2
    faces, _, pictures, _ = restored(gated(replace(OPEN, identity=((0.0, bound),))))
    wanted = next(t["rung"] for t in every[first].tried if t["identity"] < bound)
    assert faces[first].rung == wanted != "asked" and faces[first].tried[-1].get("failed") is None
    again = restored(gated(replace(OPEN, identity=((0.0, bound),))), [face(first)], [CROPS[first]])
    assert np.array_equal(again[2][0], pictures[first]) and again[0][0].tried == faces[first].tried


def test_a_face_that_gains_nothing_is_left_after_one_attempt():
    faces, _, pictures, _ = restored(gated(replace(OPEN, gain=1e6)))
    assert np.array_equal(pictures, np.stack(CROPS))
    assert [(f.left_for, len(f.tried)) for f in faces] == [("sharp", 1)] * 3
    assert "below 1e+06" in faces[0].kept and faces[0].kept.startswith("the face has nothing to gain")
