"""Training an estimator that fills holes and gives colours."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from jobs import train_estimator
from pipeline.console.options import UsageError, parse
from pipeline.io.images import decode_rgb
from pipeline.networks.checkpoint import write_state
from pipeline.networks.presets import build, find_preset, load_network
from pipeline.training.estimator import EstimatorOptions, make_task
from pipeline.training.init import load_init
from pipeline.training.unknown_parts import hide_parts

TINY = """kind = "nafnet"
file = "tiny_nafnet.safetensors"
[estimator.options]
width = 8
middle_blk_num = 1
enc_blk_nums = [1, 1]
dec_blk_nums = [1, 1]
patch = 2
"""


@pytest.fixture
def nafnet(preset, tmp_path):
    """A preset whose estimator is a tiny NAFNet without channels for what is unknown, with weights beside it."""
    text = Path(preset).read_text()
    path = tmp_path / "naf.toml"
    path.write_text(text[: text.index('kind = "srcnn"')] + TINY + "\n[task_start]\ninpaint = 40\n")
    torch.manual_seed(3)
    net = build(find_preset(path).estimator)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    write_state(net.state_dict(), tmp_path / "tiny_nafnet.safetensors")
    return str(path)


@pytest.fixture(scope="module")
def face():
    return np.ascontiguousarray(data.astronaut()[60:124, 190:254])


def test_what_is_unknown_is_hidden_and_said(face):
    seen = {(False, True): 0, (True, False): 0, (True, True): 0}
    for i in range(60):
        lq, target = hide_parts(face, np.random.default_rng(i))
        again, _ = hide_parts(face, np.random.default_rng(i))
        assert torch.equal(lq, again) and target.shape == face.shape
        hole, colours = lq[3] > 0, bool(lq[4].all())
        assert lq[4].unique().numel() == 1 and set(lq[3].unique().tolist()) <= {0.0, 1.0}
        assert float(lq[:3, hole].abs().sum()) == 0
        if colours:
            assert torch.equal(lq[0], lq[1]) and torch.equal(lq[1], lq[2])
            assert np.array_equal(target, face)  # all its colours are wanted
        seen[(colours, bool(hole.any()))] += 1
    assert all(count > 2 for count in seen.values())


def test_a_widened_network_begins_as_the_one_it_comes_from(nafnet, face):
    preset = find_preset(nafnet)
    task = make_task(
        parse(EstimatorOptions, ["--task", "inpaint", "--shards", "x", "--output", "y"], ""), preset
    )
    assert task.spec.options["unknown_channels"] == 2 and task.degrade is hide_parts
    wide, narrow = load_init(task.spec, None), load_network(preset.estimator, preset.estimator.file)
    y = torch.from_numpy(face.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.inference_mode():
        for channel in (0.0, 1.0):
            colours = torch.full_like(y[:, :1], channel)
            assert torch.equal(wide(torch.cat([y, torch.zeros_like(colours), colours], 1)), narrow(y))


def test_it_is_trained_by_the_command_and_exported_as_a_preset_of_its_own(nafnet, arguments, alone, tmp_path):
    output = tmp_path / "run"
    given = [
        "--preset",
        nafnet,
        "--task",
        "inpaint",
        "--init",
        nafnet,
        "--steps",
        "2",
        "--validate-every",
        "2",
    ]
    alone(train_estimator, [*arguments(output), *given])
    assert json.loads((output / "training.json").read_text())["network"]["unknown_channels"] == 2
    grid = decode_rgb(next((output / "samples").glob("*.png")).read_bytes())
    assert grid.shape[1] % (3 * 32) == 0
    target = tmp_path / "mine" / "fill.toml"
    export = [
        "--preset",
        nafnet,
        "--task",
        "inpaint",
        "--output",
        str(output),
        "--export-preset",
        str(target),
    ]
    assert train_estimator.main(export) == 0
    made = find_preset(target)
    assert made.estimator.options["unknown_channels"] == 2 and made.start_of("inpaint") == 40
    assert load_network(made.estimator, made.estimator.file).intro.weight.shape[1] == 4 * 5


def test_an_estimator_of_another_kind_is_refused(preset):
    with pytest.raises(UsageError, match="trains a nafnet or a lama, and the estimator of tiny is a srcnn"):
        make_task(
            parse(EstimatorOptions, ["--task", "inpaint", "--shards", "x", "--output", "y"], ""),
            find_preset(preset),
        )
