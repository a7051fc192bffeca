"""Networks of random weights compute something everywhere, and the same in every process."""

import pytest
import torch

from pipeline.networks.drawn import drawn_network
from pipeline.networks.presets import NetworkSpec, PresetError, build, find_preset
from tests import golden_data


@torch.inference_mode()
def test_a_drawn_prior_has_an_output_where_an_untrained_one_has_zeros():
    spec = golden_data.network_spec("unet")
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([4, 396])
    assert not build(spec)(x, t).any()
    out = drawn_network(spec)(x, t)
    assert out.isfinite().all() and (out != 0).float().mean() > 0.99


@pytest.mark.parametrize("name", ["portrait", "small-swinir"])
def test_no_parameter_of_a_drawn_network_is_zero_throughout(name):
    preset = find_preset(name)
    for spec in (preset.prior, preset.estimator):
        assert all(p.any() for p in drawn_network(spec).parameters())


def test_weights_are_the_same_each_time_and_other_random_numbers_stay_as_they_were():
    spec = golden_data.network_spec("srcnn")
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first, second = (drawn_network(spec).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), wanted)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_network_that_its_file_alone_describes_is_refused():
    with pytest.raises(PresetError, match="is what its file says"):
        drawn_network(NetworkSpec("spandrel", {"input_size": 512}, "any.safetensors"))
