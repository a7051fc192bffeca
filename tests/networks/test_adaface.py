"""AdaFace's network against its official program, and its published file, which holds more than weights."""

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from pipeline.io.weights import resolve
from pipeline.networks import adaface
from pipeline.networks.adaface import AdaFace, load_adaface
from pipeline.networks.checkpoint import CheckpointError

FACE = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)


class Callback:
    """An object of a trainer, whose class the reader must not import."""


def test_the_published_file_gives_the_numbers_of_the_official_program(tmp_path, monkeypatch):
    monkeypatch.setattr(adaface, "IR_50", ((64, 2), (128, 2), (256, 2), (512, 2)))
    with torch.device("meta"):
        state = seeded_state(AdaFace().state_dict())
    named = {f"model.{name}": value for name, value in state.items()}
    path = tmp_path / "adaface_ir50_ms1mv2.ckpt"
    torch.save(
        {"callbacks": {Callback: Callback()}, "state_dict": {**named, "head.kernel": torch.zeros(3, 2)}}, path
    )
    found = load_adaface(path)(FACE)
    # net.py of mk-minchul/AdaFace with these weights, its smaller network IR-18
    expected = [0.00420436, -0.01766042, 0.02952047, -0.01833095, 0.03601383]
    assert found.shape == (512,) and np.linalg.norm(found) == pytest.approx(1)
    assert found[:5] == pytest.approx(expected, abs=2e-6)


def test_the_network_has_the_layers_of_the_published_one():
    with torch.device("meta"):
        state = AdaFace().state_dict()
    assert len(state) == 467 and "body.23.res_layer.5.bias" in state
    assert state["output_layer.3.weight"].shape == (512, 25088)


def test_another_networks_file_is_refused():
    with pytest.raises(CheckpointError, match="as AdaFace IR-50"):
        load_adaface(resolve("small_srcnn.safetensors").path)
