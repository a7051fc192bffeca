"""Alignment and evaluation on a handful of faces."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from skimage import data

from jobs import align, evaluate, restore
from pipeline.console.options import UsageError
from pipeline.evaluation import tracked
from pipeline.evaluation.sweep import Sweep, list_variants, row_names
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.networks.presets import find_preset
from pipeline.training.align import AlignConfig, AlignShard

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A folder with one shard: the astronaut aligned from differently cropped pictures, and one without a face."""
    base = tmp_path_factory.mktemp("align")
    portrait = data.astronaut()
    with tarfile.open(base / "people.tar", "w") as tar:
        pictures = {f"p{i}": portrait[: 240 + 4 * i, 100 + 2 * i : 340 + 6 * i] for i in range(4)}
        for name, picture in (pictures | {"cat": data.chelsea()[:, :300]}).items():
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG")
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    assert align.main(["--input", str(base / "people.tar"), "--output", str(base / "aligned")]) == 0
    return base


def test_alignment_gives_one_crop_per_picture_with_a_central_face(aligned):
    with tarfile.open(aligned / "aligned" / "people.tar") as tar:
        names = tar.getnames()
        first = Image.open(tar.extractfile(names[0]))
        assert first.size == (64, 64)
    assert names == ["p0.png", "p1.png", "p2.png", "p3.png"]
    assert json.loads((aligned / "aligned" / "_done" / "people.json").read_text()) == {
        "pictures": 5,
        "no_face": 1,
        "broken": 0,
        "unread": 0,
        "faces": 4,
    }


def test_alignment_passes_over_what_is_done(aligned, capsys):
    assert align.main(["--input", str(aligned / "people.tar"), "--output", str(aligned / "aligned")]) == 0
    assert "1 shards, 1 of them done before" in capsys.readouterr().out


@pytest.fixture(scope="module")
def scored(aligned, tmp_path_factory):
    """An evaluation of one preset at two N, and what it left."""
    output = tmp_path_factory.mktemp("scores")
    options = ["--presets", "small-srcnn", "--start-steps", "40,80", "--steps", "ddim50", "--limit", "3"]
    options += ["--gates", "off"]
    options += ["--metrics", "psnr,ssim,features", "--mlflow-uri", f"sqlite:///{output}/mlflow.db"]
    (output / "labels.csv").write_text("name,crew\np0,first\np1,first\np2,second\np3,second\n")
    options += ["--by", "crew", "--labels", str(output / "labels.csv")]
    arguments = ["--faces", str(aligned / "aligned"), "--output", str(output), *options]
    assert evaluate.main(arguments) == 0
    return output, arguments


ROWS = [
    "degraded input",
    "srcnn",
    "DifFace(srcnn), N = 40, ddim50",
    "DifFace(srcnn), N = 80, ddim50",
]


def test_an_evaluation_scores_every_way_with_its_interval_and_cost(scored):
    output, _ = scored
    rows = {row["name"]: row for row in json.loads((output / "scores.json").read_text())}
    assert list(rows) == ROWS
    for row in rows.values():
        assert set(row["scores"]) == {"PSNR", "SSIM", "FID"}
        assert 10 < row["scores"]["PSNR"]["value"] < 40 and row["scores"]["FID"]["value"] > 0
        assert row["scores"]["SSIM"]["interval"] > 0 and row["scores"]["SSIM"]["faces"] == 3
    crews = rows[ROWS[2]]["groups"]["crew"]
    assert list(crews) == ["first", "second", "all"] and crews["all"]["photographs"] == 3
    came, out = (crews["all"]["scores"]["PSNR"][end]["value"] for end in ("in", "out"))
    assert came == pytest.approx(rows[ROWS[0]]["scores"]["PSNR"]["value"])
    assert out == pytest.approx(rows[ROWS[2]]["scores"]["PSNR"]["value"])
    costs = [rows[name]["cost"] for name in ROWS[1:]]
    assert [c.get("calls") for c in costs] == [None, 2, 4] and all(c["seconds"] > 0 for c in costs)
    assert costs[0]["parameters"] < costs[1]["parameters"] == costs[2]["parameters"]
    table = (output / "scores.md").read_text()
    assert table.startswith("| 3 faces | PSNR ↑ | SSIM ↑ | FID ↓ |") and "Nearest to the ideal" in table
    for name in ("faces.png", "tradeoff.png", "robustness.png"):
        assert min(Image.open(output / name).size) > 100
    assert (output / "index.html").read_text().count("data:image/png") == 3


def test_the_restorations_are_those_of_the_restore_job(scored, tmp_path):
    """The pipeline itself restores: the same options give the same bits."""
    output, _ = scored
    (degraded,) = (output / "sets").glob("*/degraded")
    method = ["--preset", "small-srcnn", "--start-step", "40", "--steps", "ddim50", "--mlflow-uri", "none"]
    method += ["--gate", "off"]
    places = ["--input", str(degraded), "--output", str(tmp_path / "o"), "--aligned"]
    assert restore.main([*places, *method]) == 0
    (way,) = (output / "runs").glob("*N_=_40*/images")
    pictures = {p.name: p.read_bytes() for p in way.iterdir()}
    assert len(pictures) == 3
    assert pictures == {p.name: p.read_bytes() for p in (tmp_path / "o" / "images").iterdir()}


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(UsageError("no cluster"), 2, "FAILED"), (KeyboardInterrupt(), 130, "KILLED")],
)
def test_an_evaluation_that_ends_early_leaves_no_run_that_seems_to_go_on(
    aligned, tmp_path, monkeypatch, error, code, status
):
    """And it is tracked where the environment says."""

    def connect(address):
        raise error

    monkeypatch.setattr(tracked, "connect", connect)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/mlflow.db")
    places = ["--faces", str(aligned / "aligned"), "--output", str(tmp_path / "scores")]
    method = ["--presets", "small-srcnn", "--start-steps", "40", "--limit", "1", "--metrics", "psnr"]
    assert evaluate.main([*places, *method]) == code
    client = MlflowClient(f"sqlite:///{tmp_path}/elsewhere/mlflow.db")
    experiment = client.get_experiment_by_name("difface-evaluate")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == [status]


def test_every_way_is_a_run_below_one_parent(scored):
    output, _ = scored
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("difface-evaluate").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    parent = runs.pop(output.name)
    assert set(runs) == set(ROWS[1:])
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert parent.data.tags["best"] in ROWS[2:]
    assert parent.data.metrics["DifFace_srcnn__ N _ 40_ ddim50/PSNR"] > 10
    assert {"scores.md", "tradeoff.png"} <= {a.path for a in client.list_artifacts(parent.info.run_id)}


@pytest.mark.slow
def test_the_same_evaluation_again_restores_nothing_again(scored):
    output, arguments = scored
    before = (output / "scores.json").read_bytes()
    markers = {p: p.stat().st_mtime_ns for p in output.rglob("_ledger/done/*/*.json")}
    assert evaluate.main(arguments) == 0
    assert markers == {p: p.stat().st_mtime_ns for p in output.rglob("_ledger/done/*/*.json")}
    assert (output / "scores.json").read_bytes() == before


def test_a_dry_run_lists_the_variants_and_writes_nothing(aligned, tmp_path, capsys):
    places = ["--faces", str(aligned / "aligned"), "--output", str(tmp_path / "o")]
    assert evaluate.main([*places, "--task", "inpaint", "--start-steps", "240,400", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "4 faces; 3 variants" in shown and "DifFace(lama), N = 400: 100 network calls" in shown
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real-world grid of two photographs and a cat at two levels, its arguments, and what it left."""
    base = tmp_path_factory.mktemp("real")
    (base / "photographs").mkdir()
    portrait = data.astronaut()
    pictures = {
        "one": portrait[:240, 90:350],
        "two": portrait[10:250, 120:330],
        "cat": data.chelsea()[:, :300],
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(base / "photographs" / f"{name}.png")
    (base / "photographs" / "one.json").write_text('{"group": "pilots"}')
    (base / "weights").mkdir()
    (base / "weights" / "alexnet_features.pth").write_bytes(b"no weights")  # nothing is downloaded
    options = ["--grid", "real", "--levels", "clean,medium", "--presets", "small-swinir", "--calls", "2"]
    options += ["--gates", "off"]
    options += ["--mlflow-uri", f"sqlite:///{base}/mlflow.db", "--weights-dir", str(base / "weights")]
    arguments = ["--faces", str(base / "photographs"), "--output", str(base / "scores"), *options]
    assert evaluate.main(arguments) == 0
    return base, arguments


REAL_WAYS = ["swinir", "DifFace(swinir), N = 160, 2 calls"]


def test_photographs_are_restored_and_measured_as_delivered(real):
    base, _ = real
    rows = json.loads((base / "scores" / "scores.json").read_text())
    assert [row["name"] for row in rows] == REAL_WAYS
    for row in rows:
        clean, medium = row["levels"]["clean"], row["levels"]["medium"]
        assert clean["faces"] == medium["faces"] == 2 and set(medium["scores"]) == {"PSNR", "angle", "SSIM"}
        assert clean["scores"]["PSNR"]["in"] > 68 > clean["scores"]["PSNR"]["out"] > 25
        assert 20 < medium["scores"]["PSNR"]["out"] < 40 and clean["harm"]["PSNR"] == 1
        assert row["groups"]["group"]["pilots"]["photographs"] == 1 and row["cost"]["seconds"] > 0
    (output,) = (base / "scores" / "runs").glob("swinir-*")
    settings = json.loads((output / "_ledger" / "run.json").read_text())["fingerprint"]
    assert settings["aligned"] is False and len(list((output / "images").iterdir())) == 4
    text = (base / "scores" / "scores.md").read_text()
    assert "2 photographs at 2 levels (1 without a face to measure left out)." in text
    for name in ("faces.png", "harm.png", "gain.png"):
        assert min(Image.open(base / "scores" / name).size) > 100
    assert (base / "scores" / "index.html").read_text().count("data:image/png") == 3


def test_ways_of_the_real_grid_are_runs_below_one_parent_with_metrics_by_level(real):
    base, _ = real
    client = MlflowClient(f"sqlite:///{base}/mlflow.db")
    experiment = client.get_experiment_by_name("difface-evaluate").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    parent = runs.pop("scores")
    assert set(runs) == set(REAL_WAYS)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    told = parent.data.metrics
    assert told["swinir/clean/harm any"] == 1 and 20 < told["swinir/medium/PSNR"] < 40
    assert told["swinir/medium/PSNR difference"] == pytest.approx(
        told["swinir/medium/PSNR"] - told["swinir/medium/PSNR in"]
    )


def test_the_same_real_grid_again_restores_and_measures_nothing_again(real, monkeypatch):
    base, arguments = real
    files = [p for p in base.rglob("*.p*") if {"sets", "measured", "runs"} & set(p.parts)]
    before = {p: p.stat().st_mtime_ns for p in files if "report" not in p.parts}
    told = (base / "scores" / "scores.json").read_bytes()
    assert evaluate.main(arguments) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before} and len(before) > 12
    assert (base / "scores" / "scores.json").read_bytes() == told


def test_a_dry_run_of_the_real_grid_counts_photographs_at_each_level(real, tmp_path, capsys):
    base, _ = real
    places = ["--faces", str(base / "photographs"), "--output", str(tmp_path / "o"), "--limit", "2"]
    assert evaluate.main([*places, "--grid", "real", "--presets", "small-swinir", "--dry-run"]) == 0
    assert "10 faces; 3 variants" in capsys.readouterr().out and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--grid", "real", "--task", "inpaint"], "--grid real needs --task restore, got --task inpaint"),
        (
            ["--grid", "real", "--levels", "clean,awful"],
            "must be among clean, slight, mild, medium, heavy, got 'awful'",
        ),
        (["--grid", "real", "--metrics", "psnr"], "leave --metrics psnr out"),
        (["--levels", "mild"], "--levels applies to --grid real only"),
    ],
)
def test_what_a_grid_does_not_know_is_refused_in_one_sentence(tmp_path, capsys, options, wanted):
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--faces", str(tmp_path), "--output", str(tmp_path / "o"), *options])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and wanted in told and told.count("\n") == 1


def test_photographs_that_are_not_there_are_refused(tmp_path, capsys):
    places = ["--faces", str(tmp_path / "*.tar"), "--output", str(tmp_path / "o")]
    assert evaluate.main([*places, "--grid", "real", "--presets", "small-swinir"]) == 2
    assert "give tars of photographs, or a folder of them" in capsys.readouterr().err


def test_no_shards_are_refused(tmp_path, capsys):
    code = evaluate.main(["--faces", str(tmp_path / "*.tar"), "--output", str(tmp_path / "o")])
    assert code == 2 and capsys.readouterr().err.startswith("error: ")


def test_crops_of_another_side_are_not_mixed_into_an_output(aligned, capsys):
    places = ["--input", str(aligned / "people.tar"), "--output", str(aligned / "aligned")]
    assert align.main([*places, "--side", "32"]) == 2
    assert "side 64 instead of 32" in capsys.readouterr().err


def test_broken_and_unread_pictures_are_counted_and_unread_ones_tried_again(tmp_path, capsys):
    source, away, output = tmp_path / "in", tmp_path / "away.png", tmp_path / "out"
    source.mkdir()
    (source / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(data.astronaut()[:256, 90:346]).save(source / "face.png")
    config = AlignConfig(input=str(source), output=str(output))
    (shard,) = make_shards(*list_input(config.input, "auto"), config.shard_images)
    (unit,) = cut_units(shard, 100, "image")
    (source / "face.png").rename(away)
    counts = AlignShard(config)({"work": unit.to_json()})
    assert {k: counts[k] for k in ("pictures", "faces", "no_face", "broken", "unread")} == {
        "pictures": 2, "faces": 0, "no_face": 0, "broken": 1, "unread": 1,
    }  # fmt: skip
    away.rename(source / "face.png")
    assert align.main(["--input", config.input, "--output", config.output]) == 0
    assert "1 faces of 2 pictures; 0 without a face to take, 1 broken, 0 unread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--etas", "2"], "--eta must lie in"),
        (["--start-steps", "600"], "lies above 499"),
        (["--start-steps", "161"], "nearest are"),
        (["--start-steps", "many"], "--start-steps, --etas and --calls must be numbers"),
        (["--presets", "none"], "is not known"),
        (["--gates", "lax"], "--gates must be among off, normal, strict, got 'lax'"),
    ],
)
def test_a_method_that_cannot_be_is_refused_in_one_sentence(aligned, tmp_path, capsys, options, wanted):
    places = ["--faces", str(aligned / "aligned" / "*.tar"), "--output", str(tmp_path / "o")]
    try:
        code = evaluate.main([*places, *options])
    except SystemExit as exit:  # argparse's own refusal
        code = exit.code
    assert code == 2 and wanted in capsys.readouterr().err.splitlines()[-1]


def test_a_preset_that_treats_each_face_by_its_damage_is_called_by_its_name(tmp_path):
    treats = replace(find_preset("small-swinir"), name="mine", treatment=({"above": 0, "way": "estimator"},))
    common = {"input": "in", "task": "restore"}
    sweep = Sweep(start_step=("", "80"), calls=("all", "2"))
    ways = list_variants({"mine.toml": treats}, sweep, common, str(tmp_path))
    assert [way.name for way in ways] == [
        "swinir", "mine", "mine, 2 calls", "DifFace(swinir), N = 80", "DifFace(swinir), N = 80, 2 calls",
    ]  # fmt: skip


def test_varied_gates_are_named_and_each_has_its_row_without_any(tmp_path):
    common = {"input": "in", "task": "restore"}
    sweep = Sweep(start_step=("80",), gate=("off", "normal"))
    ways = list_variants({"small-swinir": find_preset("small-swinir")}, sweep, common, str(tmp_path))
    assert [(way.name, way.ungated, way.config.gate.level) for way in ways] == [
        ("swinir", None, "off"),
        ("DifFace(swinir), N = 80, gates off", None, "off"),
        ("DifFace(swinir), N = 80, gates normal", "DifFace(swinir), N = 80, gates off", "normal"),
    ]


def test_presets_with_the_same_estimator_keep_rows_of_their_own():
    swinir, srcnn = find_preset("small-swinir"), find_preset("small-srcnn")
    assert row_names([swinir, srcnn]) == ["swinir", "srcnn"]
    assert row_names([swinir, replace(swinir, name="mine")]) == ["small-swinir", "mine"]
