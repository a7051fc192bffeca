"""The inference network agrees with its UNet at its timesteps, and a face's bits do not depend on its batch."""

import pytest
import torch

from pipeline.diffusion.call_shapes import CallShapes, find_call_shapes
from pipeline.diffusion.schedule import make_schedule
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.presets import PRESETS, NetworkSpec, load_network
from pipeline.networks.unet import UNet, UNetConfig
from tests import golden_data

STEPS = [int(t) for t in make_schedule("ddim50").t]


@pytest.fixture(scope="module")
def inference_unet():
    return InferenceUNet(golden_data.network("unet"), STEPS)


@pytest.fixture(scope="module")
def portrait_prior():
    options = {
        "image_size": 64,
        "patch": 2,
        "model_channels": 64,
        "channel_mult": (1, 2, 2, 3),
        "num_res_blocks": (2, 2, 2, 2),
        "attention_resolutions": (16, 8),
        "num_head_channels": 32,
        "out_channels": 3,
    }
    spec = NetworkSpec("unet", options, "portrait_prior.safetensors")
    return load_network(spec, PRESETS / "weights" / spec.file)


def drawn(count, side=32):
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor(STEPS)[torch.arange(count) * 7 % len(STEPS)]


@torch.inference_mode()
def test_it_agrees_with_the_network_it_was_made_of(inference_unet):
    x, t = drawn(8)
    torch.testing.assert_close(
        inference_unet(x, t), golden_data.network("unet")(x, t)[:, :3], rtol=0, atol=5e-6
    )


@torch.inference_mode()
def test_it_agrees_with_the_recordings_of_the_official_network():
    recorded = golden_data.arrays("unet_forward")
    network = InferenceUNet(golden_data.network("unet"), [0, 4, 8, 396, 996])
    wanted = {step: recorded[f"out_t{step}"] for step in (0, 4, 396, 996)}
    for step, out in wanted.items():
        close(network(recorded["x"], torch.full((2,), step)), out)
    close(network(recorded["x"], torch.tensor([396, 8])), recorded["mixed_t_out"])


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs[:, :3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(1, 1, 2, 4), (1, 2, 2)])
@torch.inference_mode()
def test_it_agrees_for_other_shapes_with_and_without_variance(levels):
    config = UNetConfig(32, 32, levels, (1,) * len(levels), (16, 8), 32, out_channels=3 * len(levels[:2]))
    torch.manual_seed(0)
    unet = UNet(config).eval()
    for parameter in unet.parameters():  # a new network's zeroed layers would hide most of it
        torch.nn.init.normal_(parameter, std=0.05)
    x, t = drawn(2)
    want = unet(x, t)[:, :3]
    torch.testing.assert_close(
        InferenceUNet(unet, STEPS)(x, t), want, rtol=0, atol=1e-5 * float(want.abs().max())
    )


@pytest.mark.parametrize("outputs", [3, 6])
@torch.inference_mode()
def test_it_agrees_for_a_network_inside_a_pixel_unshuffle_with_and_without_variance(outputs):
    unet = UNet(UNetConfig(16, 32, (1, 2), (1, 1), (8,), 32, out_channels=outputs, patch=2)).eval()
    torch.manual_seed(0)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, t = drawn(2)
    network, want = InferenceUNet(unet, STEPS), unet(x, t)[:, :3]
    assert network.last.weight.shape[0] == 12
    torch.testing.assert_close(network(x, t), want, rtol=0, atol=1e-5 * float(want.abs().max()))


@torch.inference_mode()
def test_it_agrees_with_the_portrait_prior(portrait_prior):
    x, t = drawn(2, 128)
    torch.testing.assert_close(
        InferenceUNet(portrait_prior, STEPS)(x, t), portrait_prior(x, t), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("number_type", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_face_of_128_pixels_has_the_same_bits_in_calls_of_any_number_of_faces(portrait_prior, number_type):
    net, (x, t) = InferenceUNet(portrait_prior, STEPS, number_type), drawn(4, 128)
    assert find_call_shapes(lambda n: net(x[:n], t[:n]), 4, 2) == CallShapes(partial=True, threads=2)


@pytest.mark.parametrize(("number_type", "slack"), [(torch.float16, 2.5), (torch.bfloat16, 20)])
@torch.inference_mode()
def test_in_half_precision_it_errs_as_the_official_half_precision_mode_does(number_type, slack):
    """bfloat16 keeps three bits less than float16."""
    recorded = golden_data.arrays("unet_forward")
    network = InferenceUNet(golden_data.network("unet"), [396], number_type)
    want = recorded["out_t396"][:, :3]
    error = (network(recorded["x"], torch.full((2,), 396)) - want).abs()
    official = (golden_data.arrays("unet_fp16")["out_t396"][:, :3] - want).abs()
    assert 0 < error.max() < slack * official.max()
    assert error.square().mean().sqrt() < slack * official.square().mean().sqrt()


@pytest.mark.parametrize(("number_type", "least_db"), [(torch.bfloat16, 35), (torch.float16, 55)])
@torch.inference_mode()
def test_in_half_precision_it_stays_near(inference_unet, number_type, least_db):
    x, t = drawn(4)
    full, half = inference_unet(x, t), InferenceUNet(golden_data.network("unet"), STEPS, number_type)(x, t)
    assert half.dtype == torch.float32
    ratio = float((full - half).pow(2).mean() / full.pow(2).mean())
    assert -10 * torch.log10(torch.tensor(ratio)) >= least_db


@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_a_face_has_the_same_bits_in_calls_of_any_number_of_faces(inference_unet, threads):
    x, t = drawn(8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = inference_unet(x, t)
        torch.set_num_threads(threads)
        for count in (1, 2, 3, 5, 8):
            assert torch.equal(inference_unet(x[:count], t[:count]), together[:count])
    finally:
        torch.set_num_threads(before)
