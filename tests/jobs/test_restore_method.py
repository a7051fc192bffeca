"""The choices of method that a run may make: fewer calls, a hold, another solver, paste or number type."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import pixels, portraits, read_folder, write_folder

from jobs import verify
from pipeline.stages.engines import settled_precision

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"), portraits(6))


@pytest.fixture(scope="module")
def plain(source, restore, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "out"
    assert restore(source, output) == 0
    return read_folder(output / "images")


def faces(output):
    rows = [
        r
        for table in sorted((output / "records").glob("*.parquet"))
        for r in pq.read_table(table).to_pylist()
    ]
    return [r for r in rows if r["kind"] == "face"]


def test_few_calls_and_a_hold_are_recorded_and_a_sample_repeats_them(source, restore, tmp_path, plain):
    output = tmp_path / "out"
    options = ("--start-step", "120", "--calls", "2", "--hold", "1.5")
    assert restore(source, output, *options) == 0
    told = {(f["treatment"], f["start_step"], f["calls"], f["hold"], f["kept"]) for f in faces(output)}
    assert told == {("chain", 120, 2, 1.5, "")}
    assert min(f["estimated_change"] for f in faces(output)) > 0
    assert read_folder(output / "images") != plain
    assert verify.main(["--output", str(output), "--sample", "2"]) == 0
    # another hold is another run
    assert restore(source, output, *options, "--hold", "1") == 2


def test_a_hold_keeps_faces_nearer_to_the_estimate(source, restore, tmp_path):
    away = []
    for hold in ("0", "2"):
        output = tmp_path / hold
        assert restore(source, output, "--start-step", "200", "--free-colour", "--hold", hold) == 0
        away.append(np.mean([f["distance"] for f in faces(output)]))
    assert 0 < away[1] < 0.8 * away[0]


def test_the_papers_way_lays_the_crop_over_the_picture(source, restore, tmp_path, plain):
    """As ever: the picture's detail below an enlarged crop is kept by the share that is asked for."""
    assert restore(source, tmp_path / "crop", "--paste", "crop") == 0
    assert restore(source, tmp_path / "kept", "--paste", "crop", "--keep-detail", "1") == 0
    crop, kept = (read_folder(tmp_path / name / "images") for name in ("crop", "kept"))
    assert crop.keys() == kept.keys() == plain.keys()
    for name, data in plain.items():
        away = [np.abs(pixels(other[name]).astype(float) - pixels(data)).mean() for other in (crop, kept)]
        # with the whole of the detail it is the change that is added, but for what is beyond the border
        assert 0 < away[1] < away[0] < 6
    assert verify.main(["--output", str(tmp_path / "crop"), "--sample", "1"]) == 0
    assert restore(source, tmp_path / "crop") == 2  # "change" is another run


def test_another_solver_with_few_calls_restores_too(source, restore, tmp_path, plain):
    assert restore(source, tmp_path / "a", "--solver", "dpm++", "--calls", "2") == 0
    delivered = read_folder(tmp_path / "a" / "images")
    assert delivered.keys() == plain.keys() and delivered != plain
    for name, data in plain.items():
        assert 0 < np.abs(pixels(delivered[name]).astype(float) - pixels(data)).mean() < 6


@pytest.fixture(scope="module")
def other(source, restore, tmp_path_factory):
    """A run in the number type that this machine does not take by itself."""
    own = settled_precision("auto", "cpu")
    output = tmp_path_factory.mktemp("other") / {"float32": "bfloat16", "bfloat16": "float32"}[own]
    assert restore(source, output, "--precision", output.name) == 0
    return output


def test_half_precision_networks_stay_near_float32(other, plain):
    delivered = read_folder(other / "images")
    assert delivered != plain
    for name, data in plain.items():
        difference = pixels(delivered[name]).astype(float) - pixels(data)
        assert np.sqrt((difference**2).mean()) < 2


def test_what_number_type_a_run_was_begun_with_it_keeps(source, restore, tmp_path, other, plain, capsys):
    """As if it had begun on a machine whose own choice is another."""
    output = tmp_path / "out"
    assert restore(source, output, "--unit-images", "3") == 0
    run = output / "_ledger/run.json"
    told = json.loads(run.read_text())
    assert told["precision"] == settled_precision("auto", "cpu")
    run.write_text(json.dumps(told | {"precision": other.name}))
    (output / "_ledger/done/images-00000/0001.json").unlink()
    capsys.readouterr()
    assert restore(source, output, "--unit-images", "3") == 0
    assert f"in {other.name}, up to" in capsys.readouterr().err
    assert json.loads(run.read_text()) == told | {"precision": other.name}
    there, elsewhere = read_folder(output / "images"), read_folder(other / "images")
    names = sorted(there)
    assert [n for n in names if there[n] == elsewhere[n]] == names[3:]
    assert [n for n in names if there[n] == plain[n]] == names[:3]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--solver", "dpm++", "--eta", "0.5"), "--solver dpm++ draws no noise; leave --eta 0.5 out"),
        (("--start-step", "61"), "start step 61 is not among"),
    ],
)
def test_choices_that_can_not_be_are_refused(source, restore, tmp_path, capsys, options, sentence):
    assert restore(source, tmp_path / "out", *options) == 2
    assert sentence in capsys.readouterr().err
