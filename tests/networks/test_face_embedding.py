"""The network gives the numbers of dlib, from whose file its weights are converted."""

import importlib.util
from pathlib import Path

import dlib
import numpy as np
import pytest
import torch
from skimage import data

from pipeline.io.weights import METRIC_WEIGHTS, resolve
from pipeline.networks.checkpoint import CheckpointError, read_state
from pipeline.networks.face_embedding import LENGTH, SIDE, load_embedding
from tools.convert_face_embedding import state

MODELS = Path(importlib.util.find_spec("face_recognition_models").origin).with_name("models")
DLIB_FILE = MODELS / "dlib_face_recognition_resnet_model_v1.dat"


@pytest.fixture(scope="module")
def packaged() -> Path:
    published = METRIC_WEIGHTS["identity"]
    return resolve(published.file, published.url, published.sha256).path


FACES = {
    "a face": np.ascontiguousarray(data.astronaut()[25:175, 145:295]),
    "noise": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
    "black": np.zeros((SIDE, SIDE, 3), np.uint8),
}


@pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
def test_it_gives_dlibs_numbers(packaged, face):
    theirs = np.array(dlib.face_recognition_model_v1(str(DLIB_FILE)).compute_face_descriptor(face))
    ours = load_embedding(packaged)(face)
    assert ours.shape == (LENGTH,)
    # the weights are stored as float16
    assert np.abs(ours - theirs).max() < 1e-3 * np.linalg.norm(theirs)


def test_the_packaged_weights_are_those_of_dlibs_file(packaged):
    converted = state(DLIB_FILE.read_bytes())
    there = read_state(packaged)
    assert there.keys() == converted.keys()
    assert all(torch.equal(there[name], values.half().float()) for name, values in converted.items())


def test_another_networks_file_is_refused():
    other = resolve("small_srcnn.safetensors").path
    with pytest.raises(CheckpointError, match="as a face embedding"):
        load_embedding(other)
