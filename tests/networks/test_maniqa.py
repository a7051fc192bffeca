"""MANIQA against its official program, with fewer channels and random weights, and the squares it looks at."""

from itertools import product

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from pipeline.io.weights import resolve
from pipeline.metrics.opinion import ManiqaScore, corners
from pipeline.networks import maniqa
from pipeline.networks.checkpoint import CheckpointError


def displacements():
    """[16, 16], the row of the table of biases for each pair of places of a window of 4 x 4."""
    places = torch.tensor(list(product(range(4), repeat=2)))
    away = places[:, None] - places[None] + 3
    return away[..., 0] * 7 + away[..., 1]


def mask():
    """[49, 16, 16], -100 between places that a shift by 2 brings together from different edges."""
    regions = torch.zeros(28, 28)
    edges = (slice(0, -4), slice(-4, -2), slice(-2, None))
    for number, (rows, columns) in enumerate(product(edges, edges)):
        regions[rows, columns] = number
    windows = regions.reshape(7, 4, 7, 4).transpose(1, 2).reshape(49, 16)
    return (windows[:, :, None] != windows[:, None]) * -100.0


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of the published names for a network of 64 channels, which the module then stands for."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WIDTH", 64), ("HEADS", 4), ("HIDDEN", 64)):
            patch.setattr(maniqa, name, value)
        with torch.device("meta"):
            names = maniqa.Maniqa().state_dict()
        state = seeded_state(names)
        for name in names:
            if name.endswith("relative_position_index"):
                state[name] = displacements()
            elif name.endswith("attn_mask"):
                state[name] = mask()
        path = tmp_path_factory.mktemp("maniqa") / "ckpt_koniq10k.pt"
        torch.save(state, path)
        yield path


def test_the_scores_are_those_of_the_official_program(file):
    """Expected: IIGROUP/MANIQA with this file, in float64, where rounding does not count."""
    pictures = np.random.default_rng(1).random((2, 3, 224, 224), dtype=np.float32)
    network = maniqa.load_maniqa(file).double()
    with torch.inference_mode():
        found = network((torch.from_numpy(pictures) * 2 - 1).double())
    assert found.tolist() == pytest.approx([2.0820435162, 1.9183465579], abs=1e-8)


def test_a_small_picture_is_enlarged_and_looked_at_once(file):
    score, calls = ManiqaScore(file), []
    network = score._network
    score._network = lambda squares: calls.append(squares.shape) or network(squares)
    picture = np.random.default_rng(2).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert np.isfinite(score(picture)) and calls == [(1, 3, 224, 224)]


def test_squares_lie_on_a_grid_whose_last_row_is_left_out():
    places = corners(512, 300)
    assert len(places) == 20 and places[0] == (0, 0)
    assert places[4] == (0, 76) and places[-1] == (216, 76)


def test_another_networks_file_is_refused():
    with pytest.raises(CheckpointError, match="as MANIQA"):
        maniqa.load_maniqa(resolve("small_srcnn.safetensors").path)
