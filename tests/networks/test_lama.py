import torch

from pipeline.networks.lama import LaMa, LaMaConfig
from tests import golden_data as golden


@torch.inference_mode()
def test_output_agrees_with_the_official_network():
    given = golden.arrays("inputs")
    out = golden.network("lama")(torch.cat([given["masked"], given["mask"]], dim=1))
    torch.testing.assert_close(out, golden.arrays("estimators")["lama"], rtol=2e-6, atol=2e-6)


def test_the_published_shape_has_the_published_count_of_parameters():
    with torch.device("meta"):
        net = LaMa(LaMaConfig())
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 51.0
