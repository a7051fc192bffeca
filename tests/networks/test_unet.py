import pytest
import torch
import torch.nn.functional as F

from pipeline.networks.checkpoint import load_strict
from pipeline.networks.unet import UNet, UNetConfig
from tests import golden_data as golden

FORWARD = golden.arrays("unet_forward")
BLOCKS = sorted(key.removeprefix("trace/") for key in FORWARD if key.startswith("trace/"))


def close(ours: torch.Tensor, recorded: torch.Tensor, bound: float = 2e-6) -> None:
    torch.testing.assert_close(ours, recorded, rtol=bound, atol=bound)


@pytest.mark.parametrize("step", [0, 4, 396, 996])
@torch.inference_mode()
def test_output_agrees_with_the_official_network(step):
    out = golden.network("unet")(FORWARD["x"], torch.full((2,), step))
    close(out, FORWARD[f"out_t{step}"])


@torch.inference_mode()
def test_faces_of_one_batch_may_be_at_different_steps():
    out = golden.network("unet")(FORWARD["x"], torch.tensor([396, 8]))
    close(out, FORWARD["mixed_t_out"])


def test_every_block_agrees_with_the_official_trace():
    net = golden.network("unet")
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in BLOCKS
    ]
    with torch.inference_mode():
        net(FORWARD["x"], torch.full((2,), 396))
    for hook in hooks:
        hook.remove()
    assert len(BLOCKS) == 16
    for name in BLOCKS:
        close(seen[name], FORWARD[f"trace/{name}"], 1e-5)


@torch.inference_mode()
def test_a_new_network_starts_with_zero_output_and_identity_residuals():
    net = UNet(UNetConfig(16, 32, (1, 2), (1, 1), (8,), 32, out_channels=3))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(net(x, torch.tensor([3, 500])), torch.zeros_like(x))
    block = net.input_blocks[1][0]
    h = torch.randn(2, 32, 16, 16)
    assert torch.equal(block(h, torch.randn(2, 128)), h)


@pytest.mark.parametrize("outputs", [3, 6])
@torch.inference_mode()
def test_a_patch_is_a_pixel_unshuffle_around_a_network_of_more_channels(outputs):
    shape = (16, 32, (1, 2), (1, 1), (8,), 32)
    inner = UNet(UNetConfig(*shape, in_channels=12, out_channels=4 * outputs)).eval()
    torch.manual_seed(0)
    for parameter in inner.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    outer = UNet(UNetConfig(*shape, out_channels=outputs, patch=2)).eval()
    load_strict(outer, inner.state_dict(), "outer")
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([3, 500])
    out = outer(x, t)
    assert out.shape == (2, outputs, 32, 32)
    assert torch.equal(out, F.pixel_shuffle(inner(F.pixel_unshuffle(x, 2), t), 2))


def test_no_patch_leaves_the_published_layout():
    shape = (16, 32, (1, 2), (1, 1), (8,), 32)
    without, one = (UNet(UNetConfig(*shape, **options)) for options in ({}, {"patch": 1}))
    assert {k: v.shape for k, v in one.state_dict().items()} == {
        k: v.shape for k, v in without.state_dict().items()
    }
    assert one.input_blocks[0][0].in_channels == 3 and one.out[2].out_channels == 6


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_res_blocks": (1,)}, "one entry per level: wanted 2"),
        ({"model_channels": 48}, "multiple of the 32 groups"),
        ({"num_head_channels": 48}, "num_head_channels must divide"),
        ({"image_size": 33}, "halve evenly 1 times"),
        ({"patch": 0}, "patch must be at least 1, got 0"),
    ],
)
def test_a_shape_that_can_not_be_is_refused_by_name(changed, words):
    good = {
        "image_size": 32,
        "model_channels": 32,
        "channel_mult": (1, 2),
        "num_res_blocks": (1, 1),
        "attention_resolutions": (16,),
        "num_head_channels": 32,
    }
    with pytest.raises(ValueError, match=words):
        UNetConfig(**{**good, **changed})
