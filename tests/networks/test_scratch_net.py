"""The network that finds scratches: its shapes, its bits, and the weights in the package."""

import numpy as np
import pytest
import torch

from pipeline.io.weights import PACKAGED
from pipeline.networks.checkpoint import CheckpointError
from pipeline.networks.scratch_net import MULTIPLE, load_scratch_net

WEIGHTS = PACKAGED / "scratches.safetensors"


def scratched(height: int, width: int) -> np.ndarray:
    """A gradient with grain and a bright line from the upper left to the lower right."""
    y, x = np.mgrid[:height, :width]
    grey = 70 + 60 * x / width + 30 * y / height + np.random.default_rng(0).normal(0, 3, (height, width))
    grey[np.abs(y / height - x / width) < 1.5 / max(height, width)] = 235
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_a_part_of_a_picture_shows_what_the_whole_does():
    find = load_scratch_net(WEIGHTS)
    picture = scratched(320, 400)
    whole, part = find(picture), find(picture[:, 64:])
    assert whole.shape == (320, 400) and whole.max() > 200
    # a border is seen from some way off
    difference = np.abs(whole[:, 160:].astype(int) - part[:, 96:])
    assert difference.mean() < 0.2
    assert ((whole[:, 160:] >= 128) != (part[:, 96:] >= 128)).mean() < 1e-3


def test_threads_and_sides_that_are_no_multiple_change_nothing():
    find = load_scratch_net(WEIGHTS)
    picture = scratched(MULTIPLE * 6, MULTIPLE * 8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = find(picture)
        torch.set_num_threads(2)
        assert np.array_equal(alone, find(picture))
    finally:
        torch.set_num_threads(before)
    assert find(picture[:-3, :-5]).shape == (MULTIPLE * 6 - 3, MULTIPLE * 8 - 5)


def test_the_weights_of_another_network_are_refused():
    with pytest.raises(CheckpointError, match="as a network that finds scratches"):
        load_scratch_net(PACKAGED / "face_mesh.safetensors")
