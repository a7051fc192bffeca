"""A command that cannot succeed is refused with one sentence and exit code 2 before anything is written."""

import json
import shutil
from pathlib import Path

import pytest
from photographs import encoded, portrait, read_folder, write_folder
from servers import S3Server

from jobs import restore
from pipeline.io import weights
from pipeline.io.layout import LOCK
from pipeline.networks.checkpoint import read_state, write_state
from pipeline.networks.presets import PRESETS
from pipeline.restoration import method
from pipeline.restoration import run as restoration
from pipeline.restoration.config import RestoreConfig


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """Ray must not even be asked for."""

    def tripwire(_address):
        pytest.fail("the job went on to Ray")

    monkeypatch.setattr(restoration, "connect", tripwire)


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_folder(tmp_path / "photos", {"a.jpg": encoded(portrait(), "JPEG")})


@pytest.fixture
def refused(tmp_path, photos, capsys):
    """Runs the command with corrected defaults and gives its one sentence."""

    def run(*options: str) -> str:
        places = {"--input": str(photos), "--output": str(tmp_path / "out"), "--preset": "small-srcnn"}
        given = dict(zip(options[::2], options[1::2], strict=True))
        argv = [word for pair in (places | given).items() for word in pair]
        try:
            code = restore.main(argv)
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        assert code == 2, shown
        assert shown.out == ""
        assert shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err
        return shown.err.removeprefix("error: ").rstrip("\n")

    return run


def own_preset(folder: Path, **replaced: str) -> Path:
    """A preset of the user's own beside copies of the embedded weights, with some lines replaced."""
    folder.mkdir()
    lines = (PRESETS / "small-srcnn.toml").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("sha256"))
    for old, new in replaced.values() if replaced else ():
        assert old in text
        text = text.replace(old, new)
    for name in ("small_prior.safetensors", "small_srcnn.safetensors"):
        shutil.copy(weights.PACKAGED / name, folder / name)
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_an_unknown_preset_is_answered_with_the_known_ones(refused, tmp_path):
    said = refused("--preset", "smal-swinir")
    assert "preset 'smal-swinir' is not known; choose one of" in said and "small-swinir" in said
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_named_with_every_place_that_was_searched(refused, tmp_path):
    preset = own_preset(tmp_path / "mine", prior=("small_prior.safetensors", "nobody_has_this.safetensors"))
    (tmp_path / "weights").mkdir()
    said = refused("--preset", str(preset), "--weights-dir", str(tmp_path / "weights"))
    assert "weights file nobody_has_this.safetensors is in none of" in said
    assert str(tmp_path / "weights") in said and "--weights-dir" in said
    assert not (tmp_path / "out").exists()


def test_weights_with_missing_and_surplus_keys_are_refused_by_their_names(refused, tmp_path):
    preset = own_preset(tmp_path / "mine")
    file = preset.with_name("small_prior.safetensors")
    state = read_state(file)
    state["out.2.surplus"] = state.pop("out.2.bias")
    write_state(state, file)
    said = refused("--preset", str(preset))
    assert str(file) in said and "out.2.bias" in said and "out.2.surplus" in said


def test_weights_of_a_wrong_shape_are_refused_with_both_shapes(refused, tmp_path):
    preset = own_preset(tmp_path / "mine", estimator=("num_chns = 48", "num_chns = 32"))
    said = refused("--preset", str(preset))
    assert "small_srcnn.safetensors" in said and "48" in said and "32" in said


def test_a_weights_file_that_is_a_web_page_is_refused(refused, tmp_path):
    preset = own_preset(tmp_path / "mine")
    preset.with_name("small_prior.safetensors").write_text("<html>404 not found</html>")
    assert "small_prior.safetensors" in refused("--preset", str(preset))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--eta", "1.5"], "--eta must lie in [0, 1], got 1.5"),
        (["--eta", "-0.1"], "--eta must lie in [0, 1], got -0.1"),
        (["--eta", "nan"], "--eta must lie in [0, 1], got nan"),
        (["--unit-images", "-1"], "--unit-images must lie in 0..4096, got -1"),
        (["--max-error-rate", "2"], "--max-error-rate must lie in [0, 1], got 2.0"),
    ],
)
def test_a_number_outside_its_range_is_refused(refused, options, sentence):
    assert refused(*options) == sentence


def test_a_reason_without_a_retry_is_refused(refused):
    assert refused("--reason", "read") == "--reason read says what to retry; give --retry failed with it"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--start-step", "401"], "start step 401 is not among the 250 kept steps (0..996); nearest are [400, 404]"),
        (["--start-step", "5000"], "start step 5000 is not among"),
        (["--start-step", "0"], "start step 0 leaves the chain without a step"),
        (["--steps", "ddim300"], "no whole stride keeps exactly 300 of 1000 steps"),
        (["--steps", "many"], "steps must be 'ddimK' or 'K' with K from 1 to 1000, got 'many'"),
        (["--start-step", "800"], "--start-step 800 lies above"),
    ],
)  # fmt: skip
def test_a_start_step_that_the_chain_can_not_enter_at_is_refused(refused, options, part):
    assert part in refused(*options)


def claimed(output: Path, photos: Path, **changed: object) -> None:
    """An output as another run left it: ours, but for the changed values."""
    preset, chosen = method.choose_method(config := configuration(photos, output))
    _, settings = method.settle_method(config, preset, chosen)
    places = {"digest": "", "input": changed.pop("input", str(photos)), "created_at": 0.0}
    (output / "_ledger").mkdir(parents=True)
    (output / "_ledger" / "run.json").write_text(json.dumps(places | {"fingerprint": settings | changed}))


def configuration(photos: Path, output: Path) -> RestoreConfig:
    return RestoreConfig.of(str(photos), str(output), preset="small-srcnn")


def test_an_output_made_with_other_settings_is_refused_naming_the_difference(refused, tmp_path, photos):
    claimed(tmp_path / "out", photos, eta=0.25, seed=7)
    before = read_folder(tmp_path / "out")
    assert "other settings (eta: 0.25 → 0.5, seed: 7 → 0)" in refused()
    assert read_folder(tmp_path / "out") == before | {LOCK: b""}


def test_an_output_made_with_other_weights_is_refused(refused, tmp_path, photos):
    claimed(tmp_path / "out", photos, weights={"prior": "1234", "estimator": "5678"})
    assert "other settings (weights: {" in refused()


def test_an_output_of_another_input_is_refused_naming_both(refused, tmp_path, photos):
    claimed(tmp_path / "out", photos, input="s3://elsewhere/photos")
    assert f"holds a run over s3://elsewhere/photos, not over {photos}" in refused()


@pytest.mark.parametrize("inside", ["out", "deep/er/out", "."])
def test_an_output_inside_the_input_is_refused(refused, photos, inside):
    assert "lies inside --input" in refused("--output", str(photos / inside))
    assert sorted(read_folder(photos)) == ["a.jpg"]


def test_an_output_inside_the_input_is_seen_through_links_and_dots(refused, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    assert "lies inside --input" in refused("--output", str(tmp_path / "link" / "out"))
    assert "lies inside --input" in refused("--output", str(tmp_path / "other" / ".." / "photos" / "out"))


@pytest.mark.parametrize("folder", ["images", "images/deeper", "shards"])
def test_an_input_that_the_run_would_write_over_is_refused(refused, tmp_path, folder):
    files = {"a.jpg": encoded(portrait(), "JPEG")}
    own = write_folder(tmp_path / "album" / folder, files)
    assert "lies where --output" in refused("--input", str(own), "--output", str(tmp_path / "album"))
    assert read_folder(tmp_path / "album") == {f"{folder}/{name}": data for name, data in files.items()}


def test_an_input_that_is_not_there_is_refused(refused, tmp_path):
    said = refused("--input", str(tmp_path / "nowhere"))
    assert said == f"could not read {tmp_path}/nowhere: there is nothing of that name; correct the address"


def test_an_input_without_images_is_refused_and_does_not_take_the_output(refused, tmp_path):
    other = write_folder(tmp_path / "texts", {"readme.txt": b"no picture", "notes.doc": b"neither"})
    assert "holds 2 files and none of them is one" in refused("--input", str(other))
    assert not (tmp_path / "out" / "_ledger" / "run.json").exists()


def test_an_empty_folder_is_refused(refused, tmp_path):
    (tmp_path / "bare").mkdir()
    assert "holds 0 files" in refused("--input", str(tmp_path / "bare"))


def test_a_parquet_column_that_is_not_there_is_refused_naming_the_others(refused, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"picture": [b"1"], "label": [1]}), tmp_path / "p.parquet")
    said = refused("--input", str(tmp_path / "p.parquet"))
    assert "has no column 'image' (it has ['picture', 'label']); name it with --image-column" in said


def test_an_output_below_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    said = refused("--output", str(tmp_path / "file" / "out"))
    assert "a file stands where a folder was wanted" in said


def test_an_output_that_the_system_does_not_let_us_write_is_refused(refused):
    assert refused("--output", "/proc/restored").startswith("could not write to /proc/restored: ")


def test_a_bucket_that_does_not_exist_is_refused_by_name(refused, s3: S3Server):
    for place in ("--input", "--output"):
        assert "the bucket 'no-such-bucket' does not exist" in refused(place, "s3://no-such-bucket/archive")


def test_wrong_credentials_are_refused_without_being_shown(refused, s3: S3Server, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong := "another-secret-that-is-wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        said = refused("--output", f"{s3.uri}/out")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_SECRET_ACCESS_KEY" in said and wrong not in said


def test_a_misspelt_option_is_refused(capsys, photos):
    with pytest.raises(SystemExit) as stop:
        restore.main(["--input", str(photos), "--output", "out", "--sede", "3"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --sede 3" in capsys.readouterr().err
