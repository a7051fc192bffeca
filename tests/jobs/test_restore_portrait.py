"""The preset that is taken where none is named: each face by its damage, in a crop of its own, its change pasted."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import HEAD, encoded, pixels, read_folder, write_folder
from PIL import Image, ImageFilter
from skimage import data

from jobs import restore as job
from jobs import verify
from pipeline.console.options import UsageError
from pipeline.faces.gates import Bounds
from pipeline.faces.geometry import CropFrame, face_to_crop, inside_picture, warp_crop
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.networks.presets import find_preset
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import (
    choose_method,
    publish_stage,
    read_stage,
    restore_stage,
    settle_method,
)
from pipeline.stages.restore import RestoreFaces
from pipeline.stages.sample import read_strip

pytestmark = pytest.mark.usefixtures("without_ray")

PRESET = find_preset("portrait")
FRAME = CropFrame.from_table(PRESET.side, PRESET.crop)
# left and right eye, nose tip, corners of the mouth in scikit-image's picture of Eileen Collins, found by CenterFace
EILEEN = np.array([(203.0, 102.0), (247.0, 105.0), (223.0, 125.0), (203.0, 142.0), (241.0, 144.0)])

SHARP = Image.fromarray(data.astronaut()).crop(HEAD)
BLURRED = SHARP.filter(ImageFilter.GaussianBlur(3))
CAT = Image.fromarray(data.chelsea()).resize((150, 100))


def side_by_side(*pictures: Image.Image) -> Image.Image:
    beside = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    for place, picture in enumerate(pictures):
        beside.paste(picture, (place * picture.width, 0))
    return beside


FILES = {
    "blurred.jpg": encoded(BLURRED, "JPEG", quality=90),
    "cat.png": encoded(CAT, "PNG"),
    "pair.png": encoded(side_by_side(SHARP, BLURRED), "PNG"),
    "sharp.jpg": encoded(SHARP, "JPEG", quality=95),
}


def run(restore, source: Path, output: Path, *options: str) -> int:
    """The job as it is without any wish."""
    return job.main(
        ["--input", str(source), "--output", str(output), "--mlflow-uri", restore.mlflow_uri, *options]
    )


def rows(output: Path, kind: str) -> list[dict]:
    files = sorted((output / "records").glob("*.parquet"))
    return [r for f in files for r in pq.read_table(f).to_pylist() if r["kind"] == kind]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("photos"), FILES)


@pytest.fixture(scope="module")
def finished(source, restore, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    assert run(restore, source, output, "--unit-images", "64", "--save-faces") == 0
    return output


def test_each_face_is_treated_as_the_presets_table_says_of_its_damage(finished):
    faces = rows(finished, "face")
    assert [f["member"] for f in faces] == ["blurred.jpg", "pair.png", "pair.png", "sharp.jpg"]
    assert sorted(f["treatment"] for f in faces) == ["chain", "chain", "left", "left"]
    for face in faces:
        [*_, row] = [r for r in PRESET.treatment if r["above"] <= face["estimated_change"]]
        chain = (row.get("start_step"), row.get("calls"), row.get("hold"))
        assert (face["start_step"], face["calls"], face["hold"]) == chain
        assert face["treatment"] == row.get("way", "chain")
        assert face["eta"] == row.get("eta", PRESET.eta)
        assert face["kept"].startswith("the face has nothing to gain") == (face["treatment"] == "left")
        assert face["strength"] == 1.0
        assert face["predicted_error"] > 0
    blurred, sharp = faces[0]["estimated_change"], faces[3]["estimated_change"]
    assert blurred > 4 * sharp > 0


def test_a_picture_of_a_sharp_face_is_delivered_as_it_came(finished):
    outcomes = {r["member"]: (r["outcome"], r["reason"]) for r in rows(finished, "image")}
    assert outcomes == {
        "blurred.jpg": ("restored", ""),
        "cat.png": ("no_face", ""),
        "pair.png": ("restored", ""),
        "sharp.jpg": ("skipped", "nothing to gain"),
    }
    delivered = read_folder(finished / "images")
    for name in ("cat.png", "sharp.jpg"):
        assert delivered[name] == FILES[name]


def test_beside_a_restored_face_a_sharp_one_keeps_its_pixels(finished):
    before, after = pixels(FILES["pair.png"]), pixels((finished / "images/pair.png").read_bytes())
    changed = (before != after).any(axis=2)
    width = SHARP.width
    assert not changed[:, : width - 20].any()
    [box] = [
        f["box"] for f in rows(finished, "face") if (f["member"], f["treatment"]) == ("pair.png", "chain")
    ]
    x0, y0, x1, y1 = map(round, box)
    assert x0 >= width and changed[y0:y1, x0:x1].mean() > 0.8


def test_a_blurred_face_becomes_sharper(finished):
    for face in rows(finished, "face"):
        if face["treatment"] == "chain":
            assert face["sharpness_after"] > 1.5 * face["sharpness_before"]
        else:
            assert face["sharpness_after"] == face["sharpness_before"]


def test_saved_crops_show_the_presets_frame(finished):
    """The eyes lie where the zoomed template has them, and a left face is saved unchanged."""
    folder = next((finished / "faces").iterdir())
    saved = {name: Image.open(io.BytesIO(content)) for name, content in read_folder(folder).items()}
    assert {picture.size for picture in saved.values()} == {(PRESET.side, PRESET.side)}
    left = [
        np.array_equal(np.asarray(saved[name]), np.asarray(saved[name.replace("before", "after")]))
        for name in sorted(saved)
        if "before" in name
    ]
    assert sorted(left) == [False, False, True, True]
    for face in rows(finished, "face"):
        affine = np.array(face["affine"]).reshape(2, 3)
        points = np.array(face["landmarks"]).reshape(5, 2) @ affine[:, :2].T + affine[:, 2]
        assert np.abs(points - FRAME.template).max() < 8


def test_marker_run_file_and_strip_tell_what_was_decided(finished):
    [marker] = [json.loads(p.read_bytes()) for p in (finished / "_ledger/done").rglob("*.json")]
    sums = marker["sums"]
    assert marker["faces"] == sums["crops"] == 4
    assert (sums["faces_left"], sums["faces_estimator"], sums["faces_chain"]) == (2, 0, 2)
    told = json.loads((finished / "_ledger/run.json").read_bytes())
    assert told["fingerprint"]["crop"] == dict(PRESET.crop)
    assert told["fingerprint"]["treatment"] == [dict(row) for row in PRESET.treatment]
    assert told["precision"] in ("float32", "bfloat16")
    [strip] = read_folder(finished / "report/samples").values()
    decisions = [decision for _, decision in read_strip(strip)]
    assert len(decisions) == 4
    assert sum("left as it was" in d for d in decisions) == sum("diffusion from step" in d for d in decisions)


def test_a_sample_restores_to_the_same_bits(finished, capsys):
    assert verify.main(["--output", str(finished), "--sample", "2"]) == 0
    assert "2 of 2 asked; 2 equal bit for bit" in " ".join(capsys.readouterr().out.split())


def test_units_slots_and_shards_change_no_bit(source, finished, restore, tmp_path):
    options = ("--unit-images", "1", "--shard-images", "2", "--slots", "1", "--save-faces")
    assert run(restore, source, tmp_path / "out", *options) == 0
    assert read_folder(tmp_path / "out/images") == read_folder(finished / "images")
    decided = [
        [{k: v for k, v in row.items() if k not in ("unit", "attempts")} for row in rows(place, "face")]
        for place in (finished, tmp_path / "out")
    ]
    assert decided[0] == decided[1]


def test_every_restored_face_was_judged_and_records_and_marker_say_so(finished):
    for face in rows(finished, "face"):
        tried = json.loads(face["tried"])
        if face["treatment"] == "left":
            assert (face["rung"], face["left_for"], tried) == ("", "sharp", [])
            continue
        assert face["rung"] == "asked" == tried[-1]["rung"] and len(tried) == 1
        bounds = Bounds.from_table(PRESET.gates["normal"])
        assert tried[0]["identity"] <= bounds.at("identity", face["estimated_change"])
        assert tried[0]["gain"] >= bounds.gain
    [marker] = [json.loads(p.read_bytes()) for p in (finished / "_ledger/done").rglob("*.json")]
    assert (marker["sums"]["faces_rung_asked"], marker["sums"]["faces_left_sharp"]) == (2, 2)


def test_an_output_is_not_gone_on_with_under_other_gates(source, finished, restore, capsys):
    for gate in ("strict", "off"):
        assert run(restore, source, finished, "--save-faces", "--unit-images", "64", "--gate", gate) == 2
        assert "gates" in capsys.readouterr().err


def test_pictures_none_of_whose_faces_passes_are_delivered_as_they_came(source, restore, tmp_path, capsys):
    assert run(restore, source, tmp_path / "out", "--gate-identity", "0.001") == 0
    assert read_folder(tmp_path / "out/images") == FILES
    reasons = {r["member"]: (r["outcome"], r["reason"]) for r in rows(tmp_path / "out", "image")}
    assert reasons["blurred.jpg"] == ("skipped", "it would not look like the person any more")
    assert reasons["sharp.jpg"] == ("skipped", "nothing to gain")
    summary = capsys.readouterr().out
    assert (
        "2 as good already as the preset can make it, 2 it would not look like the person any more" in summary
    )
    assert verify.main(["--output", str(tmp_path / "out")]) == 0


def test_a_dry_run_says_that_each_face_is_treated_by_its_damage(source, restore, tmp_path, capsys):
    assert run(restore, source, tmp_path / "out", "--dry-run") == 0
    shown = capsys.readouterr().out
    most = max(row.get("calls", 0) for row in PRESET.treatment)
    assert (
        f"method   portrait, 128 px, large faces 192 px, each face by its damage, at most {most} steps"
        in shown
    )


# ---- what a command's wishes make of the preset


def chosen(**options):
    return choose_method(RestoreConfig.of("in", "out", **options))[1]


def test_without_a_wish_the_presets_table_is_taken():
    method = chosen()
    assert method.treatment == tuple(dict(row) for row in PRESET.treatment)
    assert (method.start_step, method.calls, method.hold, method.start_rule, method.last_step) == (
        PRESET.start_step, PRESET.calls, PRESET.hold, "paper", 8
    )  # fmt: skip
    assert method.network_calls == PRESET.calls


@pytest.mark.parametrize(("calls", "hold"), [(2, None), (None, 0.0), (1, 3.0)])
def test_calls_and_hold_are_wishes_for_every_chain_of_the_table(calls, hold):
    method = chosen(calls=calls, hold=hold)
    for row, own in zip(method.treatment, PRESET.treatment, strict=True):
        wished = {} if "way" in own else {"calls": calls, "hold": hold}
        assert row == dict(own) | {name: value for name, value in wished.items() if value is not None}
    assert method.calls == (PRESET.calls if calls is None else calls)
    assert method.hold == (PRESET.hold if hold is None else hold)


def test_a_start_step_or_difface_give_every_face_the_same_chain():
    assert (chosen(start_step=252).treatment, chosen(start_step=252).start_step) == ((), 252)
    method = chosen(method="difface")
    assert (method.treatment, method.start_step, method.calls, method.hold) == (
        (), PRESET.start_step, PRESET.calls, PRESET.hold
    )  # fmt: skip
    assert chosen(method="difface", hold=0.0, calls=7).hold == 0.0
    assert chosen(method="difface", calls=7).network_calls == 7


def test_the_estimator_alone_has_neither_table_nor_chain():
    method = chosen(method="estimator")
    assert (method.treatment, method.start_step, method.calls, method.hold) == ((), 0, None, 0.0)
    assert method.network_calls == 0


def test_of_a_task_nothing_is_held_and_every_face_is_treated_alike():
    method = chosen(preset="portrait", task="colourise")
    assert (method.treatment, method.calls, method.hold) == ((), None, 0.0)
    assert method.start_step == PRESET.start_of("colourise")
    assert (
        choose_method(RestoreConfig.of("in", "out", task="upscale", aligned=True))[0].name == "small-swinir"
    )


def test_a_start_step_that_the_prior_does_not_know_is_refused():
    with pytest.raises(UsageError, match=r"--start-step 600 lies above 499, the last step that the prior"):
        chosen(start_step=600)
    with pytest.raises(UsageError, match="start step 153 is not among"):
        chosen(start_step=153)


def test_the_change_is_pasted_but_of_a_hole():
    assert RestoreConfig.of("in", "out").pastes_change
    assert not RestoreConfig.of("in", "out", paste="crop").pastes_change
    assert not RestoreConfig.of("in", "out", task="inpaint", mask="alpha").pastes_change


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--task", "colourise", "--hold", "1.5"), "--hold is for --task restore, got 1.5"),
        (("--keep-detail", "0.5"), "--keep-detail is for --paste crop, got 0.5"),
        (("--method", "estimator", "--hold", "0"), "--method estimator has no chain; leave --hold 0.0 out"),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(restore, tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit, match="2"):
        run(restore, tmp_path, tmp_path / "out", *options)
    assert sentence in capsys.readouterr().err


def test_enlarging_wants_crops_of_the_presets_own_frame(restore, source, tmp_path, capsys):
    options = ("--task", "upscale", "--aligned", "--preset", "portrait")
    assert run(restore, source, tmp_path / "out", *options) == 2
    assert "--task upscale enlarges whole crops, and those of portrait show less" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("run.json"))
    config = RestoreConfig.of(
        "in", "out", task="upscale", aligned=True, alignment="preset", preset="portrait"
    )
    assert settle_method(config, *choose_method(config))[0].frame == FRAME


# ---- the stages with such wishes, without Ray


def staged(place: Path, files: dict[str, bytes], **options) -> tuple[dict[str, bytes], list[dict]]:
    """The pictures that one unit of these delivers, and the rows of its faces."""
    source, output = write_folder(place / "in", files), place / "out"
    config = RestoreConfig.of(str(source), str(output), precision="float32", **options)
    method, _ = settle_method(config, *choose_method(config))
    kind, entries = list_input(str(source), "auto")
    [unit] = [u for s in make_shards(kind, entries, 64) for u in cut_units(s, 64, "image")]
    stop = str(output / "stop")
    stages = (
        read_stage(config, method, stop),
        RestoreFaces(restore_stage(config, method, "cpu", 1, stop)),
        publish_stage(config, method, "cpu"),
    )
    row = {"unit": unit.name, "work": unit.to_json()}
    for stage in stages:
        row = stage(row)
    assert row.get("marker"), row
    return read_folder(output / "images"), rows(output, "face")


BOTH = {name: FILES[name] for name in ("blurred.jpg", "sharp.jpg")}


def decisions_of(faces) -> list[tuple]:
    return [(f["treatment"], f["start_step"], f["calls"], f["hold"], f["kept"]) for f in faces]


def test_asked_for_a_start_step_even_a_sharp_face_walks_its_chain(tmp_path, finished):
    delivered, faces = staged(tmp_path, BOTH, start_step=100, calls=2, hold=0.0, gate="off")
    assert decisions_of(faces) == [("chain", 100, 2, 0.0, "")] * 2
    assert all(delivered[name] != BOTH[name] for name in BOTH)
    before = {f["member"]: f["estimated_change"] for f in rows(finished, "face")}
    assert [f["estimated_change"] for f in faces] == pytest.approx([before[n] for n in BOTH], abs=0.1)


@pytest.mark.parametrize(
    ("method", "decided"),
    [
        ("difface", ("chain", PRESET.start_step, PRESET.calls, PRESET.hold, "")),
        ("estimator", ("estimator", None, None, None, "")),
    ],
)
def test_a_method_may_be_chosen_for_every_face(tmp_path, method, decided):
    delivered, faces = staged(tmp_path, BOTH, method=method, gate="off")
    assert decisions_of(faces) == [decided] * 2
    assert all(delivered[name] != BOTH[name] for name in BOTH)


@pytest.fixture(scope="module")
def aligned() -> Image.Image:
    """The blurred face as FFHQ's pictures show one, 200 px to a side."""
    picture = np.asarray(Image.fromarray(data.astronaut()).filter(ImageFilter.GaussianBlur(3)))
    return Image.fromarray(warp_crop(picture, face_to_crop(EILEEN, CropFrame(200)), 200, "fine"))


def test_of_an_ffhq_aligned_picture_the_part_that_the_preset_shows_is_restored(tmp_path, aligned, finished):
    delivered, [face] = staged(tmp_path, {"a.png": encoded(aligned, "PNG")}, aligned=True)
    assert np.allclose(np.reshape(face["affine"], (2, 3)), FRAME.of_ffhq_picture(200))
    assert face["treatment"] == "chain"
    [found] = [f for f in rows(finished, "face") if f["member"] == "blurred.jpg"]
    # the same face, found in its photograph
    assert face["estimated_change"] == pytest.approx(found["estimated_change"], rel=0.15)
    before, after = np.asarray(aligned), pixels(delivered["a.png"])
    assert after.shape == before.shape
    changed = (before != after).any(axis=2)
    assert changed[70:150, 70:130].mean() > 0.8
    shown = 200 / FRAME.zoom / 2
    top, bottom = (round(200 * FRAME.centre[1] + way * shown) for way in (-1, 1))
    assert not changed[: top - 1].any() and not changed[bottom + 2 :].any()
    assert not changed[:, : round(100 - shown) - 1].any()


def test_of_crops_that_were_made_for_the_preset_the_whole_is_restored(tmp_path, aligned):
    picture = encoded(aligned, "PNG")
    delivered, [face] = staged(tmp_path, {"a.png": picture}, aligned=True, alignment="preset")
    ratio = FRAME.side / 200
    assert np.allclose(
        np.reshape(face["affine"], (2, 3)), [[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2]]
    )
    changed = (np.asarray(aligned) != pixels(delivered["a.png"])).any(axis=2)
    assert changed[:4].any() and changed[-4:].any() and changed[:, :4].any()
    assert inside_picture(np.reshape(face["affine"], (2, 3)), FRAME.side, 200, 200).all()
