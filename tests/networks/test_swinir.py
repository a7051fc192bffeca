import copy

import pytest
import torch

from pipeline.networks.checkpoint import CheckpointError, read_state, write_state
from pipeline.networks.presets import load_network
from pipeline.networks.swinir import SwinIRConfig, build_swinir, from_published
from tests import golden_data as golden

SPEC = golden.network_spec("swinir")
FILE = golden.GOLDEN / SPEC.file


@torch.inference_mode()
def test_output_agrees_with_the_official_network():
    out = golden.network("swinir")(golden.arrays("inputs")["lq"])
    torch.testing.assert_close(out, golden.arrays("estimators")["swinir"], rtol=2e-6, atol=2e-6)


def test_published_names_become_the_networks_own():
    state = read_state(FILE)
    net = golden.network("swinir")
    assert "conv_first.1.weight" in state
    assert set(from_published(state, net)) == set(net.state_dict())


def test_a_file_under_the_library_names_loads_as_well(tmp_path):
    net = golden.network("swinir")
    write_state(net.state_dict(), tmp_path / "own.safetensors", half=False)
    again = load_network(SPEC, tmp_path / "own.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_masks_and_indices_may_be_left_out_of_the_file(tmp_path):
    state = {
        k: v for k, v in read_state(FILE).items() if not k.endswith(("attn_mask", "relative_position_index"))
    }
    write_state(state, tmp_path / "lean.safetensors", half=False)
    lean = load_network(SPEC, tmp_path / "lean.safetensors")
    face = golden.arrays("inputs")["lq"]
    with torch.inference_mode():
        assert torch.equal(lean(face), golden.network("swinir")(face))


def test_masks_of_another_window_are_refused(tmp_path):
    state = read_state(FILE)
    key = "layers.0.residual_group.blocks.1.attn_mask"
    write_state({**state, key: torch.zeros_like(state[key])}, tmp_path / "other.safetensors", half=False)
    with pytest.raises(CheckpointError, match=f"{key} was made for another attention window"):
        load_network(SPEC, tmp_path / "other.safetensors")


def test_the_colour_mean_moves_with_the_network_and_is_not_saved():
    net = copy.deepcopy(golden.network("swinir"))
    assert "mean" not in net.state_dict()
    assert net.to(torch.bfloat16).mean.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"upscale": 4}, "start_unshuffle equal to upscale, got 8 and 4"),
        ({"num_heads": (2,)}, "one entry per entry of depths"),
        ({"img_size": 5}, "multiple of window_size"),
    ],
)
def test_a_shape_that_can_not_be_is_refused_by_name(changed, words):
    good = dict(SPEC.options) | {"depths": (2, 2), "num_heads": (2, 2)}
    with pytest.raises(ValueError, match=words):
        build_swinir(SwinIRConfig(**{**good, **changed}))
