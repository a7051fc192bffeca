"""The evaluations of aligned 512 px crops: real faces without ground truth, and the benchmark of both grids."""

import json

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from skimage import data

from jobs import evaluate
from pipeline.metrics.distribution import DIMENSIONS, FeatureStatistics

pytestmark = pytest.mark.usefixtures("without_ray")

ALIGNED = np.ascontiguousarray(data.astronaut())
FLIPPED = np.ascontiguousarray(ALIGNED[:, ::-1])
METHOD = ["--presets", "small-srcnn,difface-512-srcnn", "--start-steps", "40", "--steps", "ddim50"]
ROWS = ["srcnn", "DifFace(srcnn), N = 40, ddim50"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of two aligned faces, and what another program made of them: their mirror images."""
    base = tmp_path_factory.mktemp("crops")
    for folder, picture in (("faces/LFW-Test", ALIGNED), ("theirs", FLIPPED)):
        (base / folder).mkdir(parents=True)
        for name in ("one.png", "two.png"):
            Image.fromarray(picture if name == "one.png" else picture[::-1]).save(base / folder / name)
    (base / "weights").mkdir()
    for name in ("alexnet_features.pth", "RN50.pt", "ARNIQA.pth", "regressor_koniq10k.pth"):
        (base / "weights" / name).write_bytes(b"no weights")  # nothing is downloaded
    return base


def options(base, output):
    places = ["--faces", str(base / "faces"), "--output", str(output), "--weights-dir", str(base / "weights")]
    return [*places, "--mlflow-uri", f"sqlite:///{output}/mlflow.db", *METHOD]


@pytest.fixture(scope="module")
def real(faces, tmp_path_factory):
    """An evaluation of real faces, its arguments, and what it left."""
    output = tmp_path_factory.mktemp("real")
    FeatureStatistics(9, np.zeros(DIMENSIONS), np.eye(DIMENSIONS)).save(str(output / "reference.npz"))
    given = ["--restored", f"theirs={faces / 'theirs'}", "--reference", str(output / "reference.npz")]
    arguments = ["--set", "real", *given, *options(faces, output)]
    assert evaluate.main(arguments) == 0
    return output, arguments


def test_real_faces_are_scored_beside_their_inputs_and_others_restorations(real):
    output, _ = real
    rows = {row["name"]: row for row in json.loads((output / "scores.json").read_text())}
    assert list(rows) == ["input", "theirs", *ROWS]
    for row in rows.values():
        assert row["scores"]["NIQE"]["faces"] == 2 and 1 < row["scores"]["NIQE"]["value"] < 60
        assert row["scores"]["FID"]["value"] > 0 and row["scores"]["FID"]["interval"] >= 0
        assert "Q-Align" in row["total"]["without"] and not {"FID", "score"} & {
            *row["total"],
            *row["total"]["without"],
        }
    assert rows["input"]["identity"] is None
    for name in ("theirs", *ROWS):
        identity = rows[name]["identity"]
        assert (
            identity["network"] == "dlib"
            and "passes" not in identity
            and -1 < identity["cosine"]["value"] < 1
        )
    text = (output / "scores.md").read_text()
    assert "2 faces (2 aligned crops, 0 cut out of photographs)." in text
    assert (
        "difface-512-srcnn is left out: srcnn_restoration512_L1.pth and iddpm_ffhq512_ema500000.pth are not there"
        in text
    )
    assert "Q-Align is not measured: " in text
    assert min(Image.open(output / "faces.png").size) > 300
    assert (output / "index.html").read_text().count("data:image/png") == 1


def test_rows_of_real_faces_are_metrics_of_one_run(real):
    output, _ = real
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("difface-evaluate").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    parent = runs.pop(output.name)
    assert set(runs) == set(ROWS) and "theirs/partial score" in parent.data.metrics
    assert not [name for name in parent.data.metrics if name.endswith("/score")]


@pytest.mark.slow
def test_the_same_evaluation_again_restores_and_measures_nothing_again(real):
    output, arguments = real
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*.p*") if {"sets", "measured"} & set(p.parts)}
    scores = (output / "scores.json").read_bytes()
    assert evaluate.main(arguments) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before} and len(before) == 7
    assert (output / "scores.json").read_bytes() == scores


def test_the_benchmark_has_both_grids_in_one_table_for_presets_of_any_side(faces, tmp_path):
    arguments = [
        "--set",
        "512",
        "--levels",
        "clean,heavy",
        "--metrics",
        "psnr",
        *options(faces, tmp_path),
    ]
    assert evaluate.main([*arguments, "--limit", "1", "--mlflow-uri", "none"]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "scores.json").read_text())}
    assert list(rows) == ["input", *ROWS]
    assert list(rows["input"]["levels"]) == ["paper", "clean", "heavy"]
    found = {
        name: {k: v["scores"]["PSNR"]["value"] for k, v in r["levels"].items()} for name, r in rows.items()
    }
    assert found["input"]["clean"] == 100 and 15 < found["input"]["paper"] < found["input"]["heavy"] < 45
    assert all(15 < found[name]["heavy"] < 45 for name in ROWS)
    assert (
        rows["srcnn"]["levels"]["clean"]["harm"]["any"] == 1
        and rows["input"]["levels"]["clean"]["harm"] == {}
    )
    gap = rows["srcnn"]["levels"]["heavy"]["against the input"]["PSNR"]["value"]
    assert gap == pytest.approx(found["srcnn"]["heavy"] - found["input"]["heavy"])
    text = (tmp_path / "scores.md").read_text()
    assert text.startswith(
        "| level | 1 faces | PSNR ↑ | PSNR against the input | worse than the input | s/face |"
    )
    assert text.count("| paper |") == 3 and "1 faces of 512 px at 3 levels." in text
    for name in ("faces.png", "levels.png"):
        assert min(Image.open(tmp_path / name).size) > 300


def test_a_dry_run_names_what_is_left_out_and_writes_nothing(faces, tmp_path, capsys):
    assert evaluate.main(["--set", "512", *options(faces, tmp_path / "o"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "12 faces; 2 variants" in shown and "jobs.models fetch difface-512-srcnn" in shown
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--set", "real", "--restored", "theirs={}/nowhere"], "could not list {}/nowhere"),
        (["--set", "real", "--restored", "theirs={}"], "no tars and no pictures found at {}"),
        (["--set", "512", "--metrics", "psnr,sharp"], "--metrics: expected all, none, or some of"),
        (["--set", "512", "--metrics", "none"], "--metrics must name at least one metric, got none"),
    ],
)
def test_a_dry_run_checks_what_the_evaluation_would(faces, tmp_path, capsys, given, wanted):
    given = [text.format(tmp_path) for text in given]
    assert evaluate.main([*given, *options(faces, tmp_path / "o"), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert wanted.format(tmp_path) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--restored", "a=b"], "--restored and --reference apply to --set real only"),
        (["--set", "512", "--reference", "a.npz"], "--restored and --reference apply to --set real only"),
        (
            ["--set", "real", "--restored", "a"],
            "--restored must be NAME=FOLDER,... with different names, got 'a'",
        ),
        (["--set", "real", "--restored", "a=b,a=c"], "with different names"),
        (["--set", "real", "--grid", "real"], "--set real has no --grid"),
        (["--set", "512", "--task", "inpaint"], "no --task but restore"),
        (["--set", "real", "--metrics", "psnr"], "leave --metrics psnr out"),
        (["--set", "real", "--levels", "mild"], "leave --levels mild out"),
        (
            ["--set", "512", "--levels", "paper"],
            "--levels must be among clean, slight, mild, medium, heavy, got 'paper'",
        ),
    ],
)
def test_what_a_set_does_not_know_is_refused_in_one_sentence(tmp_path, capsys, given, wanted):
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--faces", str(tmp_path), "--output", str(tmp_path / "o"), *given])
    error = capsys.readouterr().err
    assert end.value.code == 2 and wanted in error and error.count("\n") == 1
