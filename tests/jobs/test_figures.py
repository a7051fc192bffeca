"""The job that draws the paper's figures, on three faces."""

import csv
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from skimage import data

from jobs import figures
from pipeline.datasets.faces import SampleError
from pipeline.evaluation.draw_figures import FIGURES, TABLE, FiguresConfig, choose_faces, make_reconstructor
from pipeline.networks.presets import find_preset

METHOD = [
    "--preset",
    "small-srcnn",
    "--start-steps",
    "4,60,120",
    "--etas",
    "0,1",
    "--calls",
    "3",
    "--count",
    "3",
]
NAMES = {*FIGURES.values(), TABLE}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder with three differently cropped pictures of the astronaut's face, 64 x 64, and something else."""
    folder = tmp_path_factory.mktemp("faces")
    portrait = Image.fromarray(data.astronaut())
    for i in range(3):
        portrait.crop((150 - 5 * i, 40, 280 + 5 * i, 170 + 10 * i)).resize((64, 64)).save(
            folder / f"p{i}.png"
        )
    (folder / "notes.txt").write_text("no face")
    return folder


@pytest.fixture(scope="module")
def drawn(faces, tmp_path_factory):
    """The output of one whole run, and where it was tracked."""
    output = tmp_path_factory.mktemp("figures") / "out"
    uri = f"sqlite:///{output.parent}/mlflow.db"
    code = figures.main(
        ["--faces", str(faces), "--output", str(output), *METHOD, "--shown", "1", "--mlflow-uri", uri]
    )
    assert code == 0
    return output, uri


def curves(output):
    with (output / TABLE).open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_every_figure_is_written(drawn):
    output, _ = drawn
    assert {p.name for p in output.iterdir()} == NAMES
    shapes = {name: Image.open(output / name).size for name in FIGURES.values()}
    assert shapes["fig3_diffuse_reconstruct.png"][1] > shapes["fig_grid_n_eta.png"][1] > 3 * 128


def test_the_curves_show_the_contraction_of_a_real_estimators_error(drawn):
    rows = curves(drawn[0])
    assert [row["N"] for row in rows] == [4, 60, 120]
    assert all(
        row["error_before"] == pytest.approx(row["sqrt_ab"] * row["error_estimate"], rel=1e-3) for row in rows
    )
    error, after = rows[0]["error_estimate"], [row["error_after"] for row in rows]
    assert 3 < error < 80
    assert after[0] == pytest.approx(error, rel=0.05)  # hardly any noise: the estimate is kept
    assert after[0] > after[1] > after[2]


def test_mlflow_has_figures_parameters_and_the_curve_by_step(drawn, tmp_path):
    output, uri = drawn
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("difface-figures").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["preset"] == "small-srcnn"
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == NAMES
    tracked = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "error_after")}
    assert tracked == {int(row["N"]): pytest.approx(row["error_after"], rel=1e-4) for row in curves(output)}


def test_the_same_seed_draws_the_same_bytes_and_another_one_others(faces, drawn, tmp_path):
    for seed in ("0", "1"):
        options = [
            "--output",
            str(tmp_path / seed),
            "--seed",
            seed,
            "--figures",
            "fig4",
            "--mlflow-uri",
            "none",
        ]
        assert figures.main(["--faces", str(faces), *METHOD, *options]) == 0
        assert {p.name for p in (tmp_path / seed).iterdir()} == {"fig4_contraction.png", TABLE}
        for name in ("fig4_contraction.png", TABLE):
            same = (tmp_path / seed / name).read_bytes() == (drawn[0] / name).read_bytes()
            assert same == (seed == "0")


def test_faces_are_taken_evenly_from_a_folder_and_from_tar_shards(faces, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(3):
            tar.add(faces / f"p{i}.png", f"p{i}.png")
    wanted = [(faces / f"p{i}.png").read_bytes() for i in (0, 2)]
    for source in (faces, tmp_path, tmp_path / "a.tar", tmp_path / "*.tar"):
        config = FiguresConfig(faces=str(source), output="unused", count=2)
        assert [face.read() for face in choose_faces(config, 64)] == wanted


def test_starting_steps_are_kept_ones_up_to_the_priors_last():
    preset = find_preset("small-swinir")
    config = FiguresConfig(faces="unused", output="unused")
    steps = list(make_reconstructor(config, preset).chains)
    assert steps == list(range(40, 481, 40)) and preset.start_step in steps
    few = list(make_reconstructor(replace(config, steps="ddim10"), preset).chains)
    assert few == [100, 200, 300, 400]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--preset", "none"], "is not known"),
        (["--figures", "fig3,fig9"], "--figures must be among fig3, fig4, grid, got 'fig9'"),
        (["--start-steps", "60,600"], "must not exceed 499"),
        (["--start-steps", "61"], "nearest are"),
        (["--start-steps", "many"], "--start-steps must be whole numbers"),
        (["--start-steps", "0"], "leaves the chain without a step"),
        (["--calls", "0"], "at least one network call"),
        (["--steps", "ddim300"], "no whole stride"),
        (["--etas", "0,2"], "must lie in [0, 1], got 2.0"),
        (["--etas", "half"], "--etas must be numbers"),
        (["--count", "0"], "must be at least 1"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_in_one_sentence(faces, tmp_path, capsys, options, wanted):
    try:
        code = figures.main(["--faces", str(faces), "--output", str(tmp_path / "o"), *options])
    except SystemExit as exit:  # argparse's own refusal
        code = exit.code
    assert code == 2 and wanted in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "o").exists()


def test_faces_that_are_none_are_refused(tmp_path, capsys):
    def refused(source):
        code = figures.main(["--faces", str(source), "--output", str(tmp_path / "o"), *METHOD])
        assert code == 2
        return capsys.readouterr().err

    assert "there is nothing of that name" in refused(tmp_path / "away")
    (tmp_path / "empty").mkdir()
    assert "neither pictures nor tar shards" in refused(tmp_path / "empty")
    (tmp_path / "large").mkdir()
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "large" / "a.png")
    assert "expected faces of 64x64, got 80x80" in refused(tmp_path / "large")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    assert refused(tmp_path / "broken").startswith("error: ")


def test_no_shards_of_a_pattern_are_refused(tmp_path):
    config = FiguresConfig(faces=str(tmp_path / "*.tar"), output="unused")
    with pytest.raises(SampleError, match="no tars and no pictures found"):
        choose_faces(config, 64)
