"""Training the network that finds scratches: its examples, and a training so short that it learns nothing."""

import importlib.util
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import encoded, portrait

from pipeline.networks.scratch_net import load_scratch_net

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "tools" / "train_scratches.py"
specification = importlib.util.spec_from_file_location("train_scratches", SCRIPT)
assert specification is not None and specification.loader is not None
tool = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tool)


def test_examples_depend_on_the_generator_alone_and_some_are_clean():
    photographs = [np.array(portrait(120, 130)), np.array(portrait(90, 100))]
    pictures, masks = tool.batch(photographs, 12, 64, np.random.default_rng(0))
    again = tool.batch(photographs, 12, 64, np.random.default_rng(0))
    assert torch.equal(pictures, again[0]) and torch.equal(masks, again[1])
    assert pictures.shape == (12, 3, 64, 64) and pictures.min() >= 0 and pictures.max() <= 1
    damaged = masks.flatten(1).mean(1)
    assert ((masks == 0) | (masks == 1)).all() and (damaged == 0).any() and (damaged > 0.01).any()


def test_hard_photographs_are_shown_without_damage():
    usual, hard = [np.full((90, 100, 3), 40, np.uint8)], [np.full((90, 100, 3), 200, np.uint8)]
    pictures, masks = tool.batch(usual, 200, 32, np.random.default_rng(0), hard)
    is_clean = masks.flatten(1).amax(1) == 0
    assert 0.35 < is_clean.float().mean() < 0.6
    shows_hard = pictures.flatten(1).median(1).values > 0.5
    assert shows_hard[is_clean].float().mean() > 0.4 and shows_hard[~is_clean].float().mean() < 0.1


def test_photographs_with_what_looks_like_damage_are_the_hardest():
    class Bright(tool.ScratchNet):
        def forward(self, picture):
            return picture[:, :1] * 20 - 10

    photographs = [np.full((40, 35, 3), level, np.uint8) for level in range(0, 250, 10)]
    photographs[7][:20] = 255
    assert [id(p) for p in tool.hardest(Bright(), photographs[:13])] == [id(photographs[7])]


def test_a_short_training_writes_weights_that_the_pipeline_loads(tmp_path, capsys):
    path, target = tmp_path / "faces.tar", tmp_path / "scratches.safetensors"
    with tarfile.open(path, "w") as tar:
        for i in range(4):
            data = encoded(portrait(100 + i, 110), "JPEG")
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    tool.main(
        [
            "--faces",
            str(path),
            "--held-out",
            str(path),
            "--out",
            str(target),
            "--side",
            "64",
            "--minutes",
            "0.01",
        ]
    )
    assert "precision" in capsys.readouterr().out
    found = load_scratch_net(target)(np.array(portrait(70, 50)))
    assert found.shape == (50, 70) and found.dtype == np.uint8
