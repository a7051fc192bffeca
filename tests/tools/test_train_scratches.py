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
