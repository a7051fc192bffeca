"""`jobs.calibrate --fit error`: what is measured of photographs, and what is written."""

import json
import tomllib
from contextlib import closing
from dataclasses import asdict

import numpy as np
import pytest
from skimage import data

from jobs import calibrate
from pipeline.console.options import parse
from pipeline.datasets.faces import FaceAddress
from pipeline.evaluation import error_fit, error_trial
from pipeline.evaluation.calibrate import CalibrateConfig
from pipeline.evaluation.calibration import LEFT
from pipeline.evaluation.error_fit import ErrorSample
from pipeline.evaluation.error_trial import ErrorTrial, person_of
from pipeline.evaluation.predict_error import errors_folder, treatments_of
from pipeline.evaluation.realworld import LEVELS
from pipeline.faces.error_features import FEATURES, OF_CROP, ErrorModel
from pipeline.io import images
from pipeline.networks.presets import find_preset


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photographs" / "Eileen_Collins_0001.png"
    path.parent.mkdir()
    path.write_bytes(images.encode_png(data.astronaut()[:256, 96:352]))
    return path


def test_a_person_is_the_name_without_its_number():
    names = {"lfw/George_Bush_0012.jpg": "George_Bush", "val-2259.jpg": "val-2259", "a_1b.png": "a_1b"}
    assert {name: person_of(FaceAddress("x.tar", 0, 1, name)) for name in names} == names
    assert person_of(FaceAddress("folder/Ada_0002.png", 0, 1)) == "Ada"


@pytest.mark.slow
def test_a_photograph_is_measured_at_every_level_enlarged_and_as_it_is_stored(photograph, monkeypatch):
    monkeypatch.setattr(error_trial, "LEVELS", {level: LEVELS[level] for level in ("clean", "heavy")})
    address = FaceAddress(str(photograph), 0, photograph.stat().st_size)
    with closing(ErrorTrial(find_preset("portrait"), (), 0, None)) as trial:
        found = list(trial.errors(3, address, (LEFT,)))
    assert [(s.level, s.stored) for s in found] == [
        (level, stored) for level in ("clean", "heavy") for stored in (False, True)
    ]
    assert {(s.photograph, s.person) for s in found} == {(3, "Eileen_Collins")}
    enlarged, stored = found[::2], found[1::2]
    errors = np.array([s.error for s in enlarged])
    assert errors[0] < 1 < errors[1] < 30
    assert enlarged[0].features["change"] == pytest.approx(np.log(errors[0] + 0.02), abs=1e-3)
    assert [s.error for s in stored] == pytest.approx(errors, rel=0.1), "the same crop, but for its sampling"
    scales = np.exp([s.features["scale"] for s in stored])
    assert scales[0] / scales[-1] == pytest.approx(6, rel=0.25), (
        "a heavily damaged picture is a sixth as large"
    )
    assert len({s.features["scale"] for s in enlarged}) == 1
    assert np.exp(stored[-1].features["coarseness"]) == pytest.approx(50, abs=11)
    assert [set(s.measured) for s in found[:2]] == [{"left"}, set()]


def test_the_job_goes_on_with_what_was_measured_and_writes_the_prediction(
    photograph, tmp_path, capsys, monkeypatch
):
    """Photographs that were measured before are only read: here no network is loaded."""
    monkeypatch.setattr(error_fit, "RESAMPLED", 20)
    options = [
        "--fit",
        "error",
        "--faces",
        str(photograph.parent),
        "--output",
        str(tmp_path / "out"),
        "--each",
        "40",
    ]
    config = parse(CalibrateConfig, options, "")
    rng = np.random.default_rng(0)
    columns = {"psnr": 30.0, "angle": 5.0, "lpips": 0.2}
    samples = []
    for i in range(100):
        features = {name: float(v) for name, v in zip(FEATURES, rng.normal(1, 1, len(FEATURES)), strict=True)}
        measured = {c.name: columns for c in treatments_of(config)}
        for stored in (False, True):
            level = list(LEVELS)[i % 5]
            error = float(np.exp(features["change"]))
            samples.append(
                ErrorSample(0, str(i // 5), level, stored, error, features, {} if stored else measured)
            )
    folder = tmp_path / "out" / errors_folder(config)
    folder.mkdir(parents=True)
    (folder / "000000.json").write_text(json.dumps([asdict(s) for s in samples]))
    assert calibrate.main(options) == 0
    text = (tmp_path / "out" / "error.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "## enlarged: 100 faces of 20 people" in text and "## as stored: 100 faces of 20 people" in text
    assert float(text.split("| δ | ")[1].split()[0]) > 0.95
    assert "## treatments" in text and "## harm" in text
    table = tomllib.loads((tmp_path / "out" / "error.toml").read_text())["error"]
    model = ErrorModel.from_table(table)
    assert set(model.terms) == set(OF_CROP) and model.as_table == table
    assert model(samples[7].features) == pytest.approx(np.log(samples[7].error), abs=0.1)
    assert (tmp_path / "out" / "error.png").read_bytes()[:4] == b"\x89PNG"


def test_too_few_people_are_refused(photograph, tmp_path, capsys):
    options = ["--fit", "error", "--faces", str(photograph.parent), "--output", str(tmp_path / "out")]
    folder = tmp_path / "out" / errors_folder(parse(CalibrateConfig, options, ""))
    folder.mkdir(parents=True)
    (folder / "000000.json").write_text("[]")
    assert calibrate.main(options) == 2
    assert "a fit wants faces of 10 people at least, got 0" in capsys.readouterr().err
