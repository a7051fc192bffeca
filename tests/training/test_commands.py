"""The training commands: what they refuse and describe, ready-made schedules, and presets made of what was trained."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs import train_estimator, train_prior
from pipeline.console.options import parse
from pipeline.networks.memory import bytes_of_training
from pipeline.networks.preset_text import as_toml
from pipeline.networks.presets import build, find_preset, load_network, preset_names
from pipeline.training.checkpoint import UnusableCheckpoint
from pipeline.training.configs import config_names, read_config, with_config
from pipeline.training.estimator import EstimatorOptions
from pipeline.training.prior import PriorOptions
from pipeline.training.ray_train import known_cause

COMMANDS = {"estimator": train_estimator, "prior": train_prior}
OPTIONS = {"estimator": EstimatorOptions, "prior": PriorOptions}


@pytest.fixture
def trained(preset, arguments, alone, tmp_path):
    """Trains two steps of a role, and gives the output."""

    def make(role, *more, name=None):
        output = tmp_path / (name or role)
        alone(COMMANDS[role], [*arguments(output), "--steps", "2", *more])
        return output

    return make


def test_a_prior_is_trained_continued_and_exported(preset, arguments, trained, alone, tmp_path):
    output, weights = trained("prior"), tmp_path / "tiny_prior.safetensors"
    alone(train_prior, arguments(output))
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert sorted({row["step"] for row in rows}) == [1, 2, 3, 4]
    assert "validation_loss_steps_000_124" in rows[-1]
    assert list((output / "samples").glob("*.png"))
    assert train_prior.main(["--preset", preset, "--output", str(output), "--export", str(weights)]) == 0
    load_network(find_preset(preset).prior, weights)
    assert weights.stat().st_size > 10_000


def test_both_networks_become_one_preset_that_a_job_loads(preset, trained, tmp_path, capsys):
    target = tmp_path / "mine" / "album.toml"
    base = preset
    for role in ("estimator", "prior"):
        common = ["--preset", base, "--output", str(trained(role)), "--export-preset", str(target)]
        assert COMMANDS[role].main([*common, "--licence", f"terms of the {role}"]) == 0
        base = str(target)
    made = find_preset(target)
    for role in ("estimator", "prior"):
        spec = getattr(made, role)
        assert spec.licence == f"terms of the {role}" and spec.sha256
        state = torch.load(tmp_path / role / "checkpoint.pt")["ema"]
        for name, tensor in load_network(spec, spec.file).state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-4)
    assert made.max_step == 499 and made.side == 32 and made.estimator.options["depth"] == 3
    assert {p.name for p in target.parent.iterdir()} == {
        *("album.toml", "album_estimator.safetensors", "album_prior.safetensors")
    }


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_written_reads_back_as_itself(name, tmp_path):
    preset = find_preset(name)
    path = tmp_path / f"{name}.toml"
    path.write_text(as_toml(preset))
    assert find_preset(path) == preset and find_preset(path).description == preset.description


def test_a_training_starts_from_given_weights_and_keeps_their_terms(preset, trained, tmp_path, capsys):
    first = trained("estimator")
    assert (
        train_estimator.main(
            [
                "--preset",
                preset,
                "--output",
                str(first),
                "--export-preset",
                str(tmp_path / "a"),
                "--licence",
                "L",
            ]
        )
        == 0
    )
    given = tmp_path / "a" / "estimator.toml"
    second = trained("estimator", "--init", str(given), "--lr", "1e-30", "--lr-final", "0", name="second")
    about = json.loads((second / "training.json").read_text())
    assert about["init"] == find_preset(given).estimator.sha256 and about["init_licence"] == "L"
    weights = load_file(second / "weights.safetensors")
    for name, tensor in load_file(find_preset(given).estimator.file).items():
        assert torch.equal(weights[name], tensor)
    export = ["--preset", preset, "--output", str(second), "--export-preset", str(tmp_path / "b.toml")]
    assert train_estimator.main(export) == 0
    assert find_preset(tmp_path / "b.toml").estimator.licence.startswith("L; trained further")


def test_weights_of_another_network_are_no_beginning(preset, arguments, tmp_path, capsys):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    code = train_estimator.main([*arguments(tmp_path / "o"), "--init", str(tmp_path / "other.safetensors")])
    assert code == 2 and "surplus (a)" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_wrong_shards_are_refused_with_one_sentence(preset, tmp_path, capsys):
    arguments = ["--preset", preset, "--shards", str(tmp_path / "none-*.tar"), "--steps", "2"]
    assert train_estimator.main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_a_dry_run_says_what_would_be_trained(arguments, tmp_path, capsys):
    output = tmp_path / "out"
    assert train_estimator.main([*arguments(output), "--dry-run", "--accumulate", "2"]) == 0
    said = capsys.readouterr().out
    assert "12 in 2 shards" in said and "each of the 2 faces it computes at once" in said
    assert not output.exists()


def test_a_changed_batch_or_seed_is_refused_where_another_training_lies(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    settings = {"network": {}, "seed": 0, "batch": 4, "flip": False, "max_step": 499, "faces": ""}
    (tmp_path / "out" / "training.json").write_text(json.dumps(settings))
    code = train_prior.main([*arguments(tmp_path / "out"), "--seed", "1", "--dry-run"])
    said = capsys.readouterr().err
    assert code == 2 and "another" in said and "seed" in said and "batch" not in said.split("another", 1)[1]


def test_a_checkpoint_of_another_network_is_refused_in_one_sentence(preset, arguments, alone, tmp_path):
    (tmp_path / "out").mkdir()
    torch.save({"network": {}, "step": 3}, tmp_path / "out" / "checkpoint.pt")
    with pytest.raises(UnusableCheckpoint, match="does not fit this network") as refused:
        alone(train_prior, arguments(tmp_path / "out"))
    assert "\n" not in str(refused.value)


def test_the_cause_of_a_failed_group_of_workers_is_reported():
    from ray.train.v2.api.exceptions import WorkerGroupError

    cause = UnusableCheckpoint("does not fit")
    wrapped = RuntimeError("ray's own words")
    wrapped.__cause__ = cause
    assert known_cause(WorkerGroupError("1 of 2 failed", {1: wrapped})) is cause
    other = WorkerGroupError("failed", {0: RuntimeError("something else")})
    assert known_cause(other) is other


@pytest.mark.parametrize("name", config_names())
def test_a_ready_made_schedule_is_accepted_and_its_network_is_that_of_its_name(name):
    trains = read_config(name)["trains"]
    given = with_config(
        ["--config", name, "--shards", "s", "--output", "o", "--steps", "7"], OPTIONS[trains], trains
    )
    options = parse(OPTIONS[trains], given, "")
    preset = find_preset(options.preset)
    task = COMMANDS[trains].make_task(options, preset)
    assert options.steps == 7 and task.role == trains
    assert name == f"{'prior' if trains == 'prior' else task.spec.kind}-{preset.side}"
    # spandrel's SwinIR can not be built without values
    with torch.device("cpu" if name == "swinir-512" else "meta"):
        network = build(task.spec)
    # in millions
    sizes = {"swinir-512": 15.8, "srcnn-512": 1.03, "prior-512": 159.8, "lama-256": 51.0, "prior-256": 124.1}
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(sizes[name], rel=0.01)


def test_a_schedule_for_the_other_command_or_with_an_unknown_entry_is_refused(tmp_path, capsys):
    (tmp_path / "own.toml").write_text("lr = 1e-4\nlearning = 3\n")
    cases = {
        "prior-512": "jobs.train_prior",
        str(tmp_path / "own.toml"): "learning",
        "none": "cannot be read",
    }
    for name, sentence in cases.items():
        assert train_estimator.main(["--config", name, "--output", "o", "--shards", "s"]) == 2
        assert sentence in capsys.readouterr().err


def test_memory_of_a_training_grows_with_its_network_and_less_so_in_half_precision(preset):
    prior = find_preset(preset).prior
    weights = sum(p.numel() for p in build(prior).parameters())
    network, face = bytes_of_training(prior, 32, 3, "float32")
    half = bytes_of_training(prior, 32, 3, "bfloat16")
    assert network == half[0] == 20 * weights
    # of every one of the 8 x 32 x 32 x 32 and more activations at least one is kept
    assert 1 << 20 < half[1] < face
