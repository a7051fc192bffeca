"""MUSIQ's network against its original, with random weights under the names of the converted file."""

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from pipeline.io.weights import resolve
from pipeline.networks.checkpoint import CheckpointError
from pipeline.networks.musiq import Musiq, cut, load_musiq, multiscale


def test_the_score_is_that_of_the_original_program(tmp_path):
    """Expected: google-research/musiq (flax 0.3.4) with these weights, patches and exact GELU."""
    with torch.device("meta"):
        state = Musiq().state_dict()
    torch.save({"params": seeded_state(state)}, tmp_path / "musiq_koniq_ckpt-e95806b9.pth")
    network = load_musiq(tmp_path / "musiq_koniq_ckpt-e95806b9.pth")
    picture = torch.from_numpy(np.random.default_rng(1).random((1, 3, 300, 210), dtype=np.float32)) * 2 - 1
    with torch.inference_mode():
        assert network(picture).tolist() == pytest.approx([1.6387212], abs=1e-5)


def test_a_picture_is_cut_at_three_scales():
    patches, places, scales = multiscale(torch.zeros(1, 3, 64, 96))
    # 149 x 224, 256 x 384 and 64 x 96 pixels
    assert scales.bincount().tolist() == [5 * 7, 8 * 12, 2 * 3]
    assert patches.shape == (1, 137, 3, 32, 32) and places.max() < 100


def test_a_picture_is_filled_up_on_all_sides_and_its_patches_lie_in_rows():
    patches, places = cut(torch.ones(1, 3, 32, 62))
    assert patches.shape == (1, 2, 3, 32, 32) and places.tolist() == [0, 5]
    assert patches[0, 0, 0, :, 0].sum() == 0 and patches[0, 0, 0, :, 1:].min() == 1
    assert patches[0, 1, 0, :, -1].sum() == 0 and patches[0, 1, 0, :, :-1].min() == 1


def test_another_networks_file_is_refused():
    with pytest.raises(CheckpointError, match="as MUSIQ"):
        load_musiq(resolve("small_srcnn.safetensors").path)
