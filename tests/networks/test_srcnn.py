import pytest
import torch

from pipeline.networks.srcnn import SRCNN, SRCNNConfig
from tests import golden_data as golden


@torch.inference_mode()
def test_output_agrees_with_the_official_network():
    out = golden.network("srcnn")(golden.arrays("inputs")["lq"])
    torch.testing.assert_close(out, golden.arrays("estimators")["srcnn"], rtol=2e-6, atol=2e-6)


def test_the_paper_size_has_the_paper_count_of_parameters():
    with torch.device("meta"):
        net = SRCNN(SRCNNConfig(num_chns=64, depth=10, down_scale_factor=4))
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 1.03


@pytest.mark.parametrize("factor", [2, 4, 8])
@torch.inference_mode()
def test_output_has_the_shape_of_the_input_for_every_factor(factor):
    net = SRCNN(SRCNNConfig(num_chns=64, depth=2, down_scale_factor=factor))
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"down_scale_factor": 3}, "power of two"), ({"num_chns": 24}, "multiple of 16")],
)
def test_a_shape_that_can_not_be_is_refused_by_name(config, words):
    with pytest.raises(ValueError, match=words):
        SRCNNConfig(**config)
