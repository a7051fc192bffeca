"""Tiny aligned faces and a tiny preset, so that a training takes a second."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from skimage import data, transform

from jobs import train_prior
from pipeline.console.options import parse
from pipeline.networks.presets import find_preset
from pipeline.training import workers
from pipeline.training.continuation import check_continues
from pipeline.training.estimator import EstimatorOptions
from pipeline.training.plan import make_plan
from pipeline.training.prior import PriorOptions

PRESET = """
description = "tiny, for tests"
side = 32
max_step = 499
start_step = 100

[prior]
kind = "unet"
file = "tiny_prior.safetensors"
[prior.options]
image_size = 32
model_channels = 32
channel_mult = [1, 1]
num_res_blocks = [1, 1]
attention_resolutions = [16]
num_head_channels = 32
out_channels = 3

[estimator]
kind = "srcnn"
file = "tiny_srcnn.safetensors"
[estimator.options]
num_chns = 16
depth = 3
down_scale_factor = 4
"""


@pytest.fixture(scope="session")
def preset(tmp_path_factory):
    """Path of a preset file."""
    path = tmp_path_factory.mktemp("preset") / "tiny.toml"
    path.write_text(PRESET)
    return str(path)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Two tar shards of six 32x32 faces each."""
    folder = tmp_path_factory.mktemp("aligned")
    head = data.astronaut()[20:220, 120:320]
    for shard in range(2):
        with tarfile.open(folder / f"train-{shard:03d}.tar", "w") as tar:
            for number in range(6):
                turned = transform.rotate(head, 5 * (6 * shard + number), mode="reflect")
                small = (transform.resize(turned, (32, 32), anti_aliasing=True) * 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(small).save(buffer, "PNG")
                info = tarfile.TarInfo(f"face-{shard}-{number}.png")
                info.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(info, buffer)
    return str(folder / "train-*.tar")


@pytest.fixture
def arguments(preset, shards):
    """Arguments of a quick training into a folder."""

    def make(output, *more):
        quick = {
            "batch": 4,
            "lr": 1e-3,
            "log-every": 1,
            "checkpoint-every": 2,
            "steps": 4,
            "validate-every": 4,
        }
        where = {
            "preset": preset,
            "shards": shards,
            "output": output,
            "validation-faces": 4,
            "mlflow-uri": "none",
        }
        return [f"--{name}={value}" for name, value in (where | quick).items()] + list(more)

    return make


def plan_of(command, argv):
    """What a command would send to its workers; the output knows of it."""
    options = parse(PriorOptions if command is train_prior else EstimatorOptions, argv, "")
    preset = find_preset(options.preset)
    plan = make_plan(options, command.make_task(options, preset), preset.side)
    check_continues(options, plan)
    return plan


@pytest.fixture
def plan():
    """`plan_of`, for tests."""
    return plan_of


@pytest.fixture
def alone():
    """Trains as a command would, in this process and without Ray."""
    return lambda command, argv: workers.train(plan_of(command, argv), workers.SINGLE_PROCESS)
