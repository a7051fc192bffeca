"""`--method estimator`: the estimator's picture as the restored face, with no prior, no chain, and no mixing."""

import io
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from photographs import encoded, portrait, portraits, write_folder
from PIL import Image
from spandrel.architectures.ESRGAN import ESRGAN

from jobs import restore as job
from jobs import verify
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import Treatment
from pipeline.io import weights
from pipeline.io.weights import resolve
from pipeline.networks.presets import PRESETS, find_preset, load_network
from pipeline.stages.engines import engine_maker

pytestmark = pytest.mark.usefixtures("without_ray")

FACES = 3
OPTIONS = ("--method", "estimator", "--preset", "small-swinir")


def run(restore, source, output, *options):
    """The job without the quick method's options of the chain."""
    places = ["--input", str(source), "--output", str(output), "--mlflow-uri", restore.mlflow_uri]
    return job.main([*places, *options])


def picture(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"), portraits(FACES))


@pytest.fixture(scope="module")
def finished(source, restore, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "baseline"
    assert run(restore, source, output, *OPTIONS, "--free-colour", "--save-faces") == 0
    return output


@pytest.fixture(scope="module")
def engine():
    """The engine of a DifFace run with the same preset."""
    preset = find_preset("small-swinir")
    estimator, prior = (
        load_network(spec, resolve(spec.file, spec.url, spec.sha256).path)
        for spec in (preset.estimator, preset.prior)
    )
    engine = engine_maker(preset, estimator, prior, make_schedule("ddim250"), "cpu", slots=4)(preset.side)
    yield engine
    engine.close()


def test_each_face_is_bit_for_bit_what_a_difface_run_diffuses(finished, engine):
    befores = sorted((finished / "faces").rglob("*-before.png"))
    assert len(befores) == FACES
    chain = Treatment("chain", chain_from(make_schedule("ddim250"), 4))
    for before in befores:
        result = engine.submit(FaceJob(picture(before), noise_key(0, "00", 0), 0.5, chain)).result(timeout=60)
        after = picture(before.with_name(before.name.replace("before", "after")))
        assert np.array_equal(after, result.estimated)
        assert not np.array_equal(after, picture(before)) and not np.array_equal(after, result.restored)


def test_its_records_name_the_estimator_and_no_chain(finished):
    rows = [r for f in sorted((finished / "records").glob("*.parquet")) for r in pq.read_table(f).to_pylist()]
    faces = [r for r in rows if r["kind"] == "face"]
    assert len(faces) == FACES
    digest = find_preset("small-swinir").estimator.sha256
    assert {(f["eta"], f["model_sha256"], f["treatment"], f["kept"]) for f in faces} == {
        (0.0, digest[:16], "estimator", "")
    }
    assert {(f["start_step"], f["calls"], f["hold"]) for f in faces} == {(None, None, None)}
    assert min(f["estimated_change"] for f in faces) > 0


def test_mlflow_tells_the_methods_apart(finished, restore):
    client = MlflowClient(restore.mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'difface-restore'")
    (found,) = client.search_runs([experiment.experiment_id], "tags.method = 'estimator'")
    assert found.data.params["method"] == "estimator" and found.data.params["start_step"] == "0"
    assert found.data.tags["preset"] == "small-swinir" and "sha256.prior" not in found.data.tags


def test_methods_do_not_mix_in_one_output(finished, source, restore, capsys):
    assert run(restore, source, finished, "--preset", "small-swinir", "--free-colour", "--save-faces") == 2
    assert "method" in capsys.readouterr().err


def test_a_verification_restores_a_sample_to_the_same_bits(finished):
    assert verify.main(["--output", str(finished), "--sample", "2"]) == 0


def test_the_prior_is_not_even_looked_for(restore, tmp_path, capsys):
    text = (PRESETS / "small-srcnn.toml").read_text().replace("small_prior", "nobody_has_this")
    (tmp_path / "mine.toml").write_text(text)
    shutil.copy(weights.PACKAGED / "small_srcnn.safetensors", tmp_path)
    photos = write_folder(tmp_path / "photos", {"a.jpg": encoded(portrait(), "JPEG")})
    own = ("--preset", str(tmp_path / "mine.toml"))
    assert run(restore, photos, tmp_path / "out", "--method", "estimator", *own) == 0
    assert run(restore, photos, tmp_path / "other", *own) == 2
    assert "nobody_has_this" in capsys.readouterr().err


def test_another_library_s_network_restores_and_its_options_are_the_run_s(restore, tmp_path, capsys):
    torch.save(ESRGAN(num_filters=8, num_blocks=1, scale=2).state_dict(), tmp_path / "tiny.pth")
    text = (PRESETS / "small-srcnn.toml").read_text().split("[estimator]")[0]
    text += '[estimator]\nkind = "spandrel"\nfile = "tiny.pth"\n[estimator.options]\ninput_size = 32\n'
    (tmp_path / "tiny.toml").write_text(text)
    photos = write_folder(tmp_path / "photos", {"a.jpg": encoded(portrait(), "JPEG")})
    options = ("--method", "estimator", "--preset", str(tmp_path / "tiny.toml"))
    assert run(restore, photos, tmp_path / "out", *options) == 0
    assert verify.main(["--output", str(tmp_path / "out"), "--sample", "1"]) == 0
    (tmp_path / "tiny.toml").write_text(text.replace("32", "64"))
    capsys.readouterr()
    assert run(restore, photos, tmp_path / "out", *options) == 2
    assert "estimator_options" in capsys.readouterr().err
    assert run(restore, photos, tmp_path / "out", *options, "--dry-run") == 0
    assert "time     not known" in capsys.readouterr().out


def test_a_dry_run_counts_the_estimator_alone(restore, source, tmp_path, capsys):
    assert run(restore, source, tmp_path / "out", *OPTIONS, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "method   small-swinir, 64 px, the estimator alone\n" in shown and "time     about" in shown


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("eta", "0.5"),
        ("start-step", "60"),
        ("steps", "ddim50"),
        ("calls", "3"),
        ("solver", "dpm++"),
        ("hold", "1.5"),
    ],
)
def test_options_of_the_chain_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(["--input", "in", "--output", "out", *OPTIONS, f"--{option}", value])
    assert stop.value.code == 2
    assert f"--method estimator has no chain; leave --{option} {value} out" in capsys.readouterr().err
