"""The choices of method that a run may make: each face's own N, another solver, fewer calls, another number type."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import pixels, portraits, read_folder, write_folder

from jobs import verify

pytestmark = pytest.mark.timeout(300)


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


def test_each_face_takes_its_own_n_within_the_bounds_and_a_sample_repeats_it(source, restore, tmp_path):
    output = tmp_path / "out"
    options = ("--steps", "ddim250", "--start-step", "auto:60", "--start-bounds", "20,120", "--calls", "2")
    assert restore(source, output, *options) == 0
    steps = [f["start_step"] for f in faces(output)]
    assert all(20 <= n <= 120 and n % 4 == 0 for n in steps)
    assert verify.main(["--output", str(output), "--sample", "2"]) == 0
    # other bounds are another run
    assert restore(source, output, *options, "--start-bounds", "24,120") == 2


def test_another_solver_with_few_calls_restores_too(source, restore, tmp_path, plain):
    assert restore(source, tmp_path / "a", "--solver", "dpm++", "--calls", "2") == 0
    delivered = read_folder(tmp_path / "a" / "images")
    assert delivered.keys() == plain.keys() and delivered != plain
    for name, data in plain.items():
        assert 0 < np.abs(pixels(delivered[name]).astype(float) - pixels(data)).mean() < 6


def test_half_precision_networks_stay_near_float32(source, restore, tmp_path, plain):
    assert restore(source, tmp_path / "out", "--precision", "bfloat16") == 0
    delivered = read_folder(tmp_path / "out" / "images")
    for name, data in plain.items():
        difference = pixels(delivered[name]).astype(float) - pixels(data)
        assert np.sqrt((difference**2).mean()) < 2
    assert delivered != plain


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--solver", "dpm++", "--eta", "0.5"), "--solver dpm++ draws no noise; leave --eta 0.5 out"),
        (("--start-step", "auto", "--preset", "difface-512-srcnn"), "has no [auto_start]; give --start-step"),
        (("--start-step", "auto", "--start-bounds", "20,700"), "700 lies above 499"),
        (("--start-step", "auto", "--start-bounds", "21,60"), "start step 21 is not among"),
    ],
)
def test_choices_that_can_not_be_are_refused(source, restore, tmp_path, capsys, options, sentence):
    assert restore(source, tmp_path / "out", *options) == 2
    assert sentence in capsys.readouterr().err
