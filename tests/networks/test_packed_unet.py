"""The form for large maps in bfloat16 on a CPU: as exact as the other form, and a face's bits are its own."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.diffusion.call_shapes import CallShapes, find_call_shapes
from pipeline.networks import inference_unet
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.packed_unet import doubling_kernel, moments
from pipeline.networks.precision import multiplies_bfloat16
from pipeline.networks.unet import UNet, UNetConfig

STEPS = [16, 396]


def make_unet(side=256):
    torch.manual_seed(0)
    unet = UNet(UNetConfig(side, 32, (1, 1, 1, 2, 2), (1, 1, 1, 1, 1), (side // 16,), 32)).eval()
    for parameter in unet.parameters():  # a new network's zeroed layers would hide most of it
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return unet.requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return make_unet()


def drawn(count, side=256):
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor(STEPS)[torch.arange(count) % 2]


@torch.inference_mode()
def test_it_is_as_near_to_float32_as_the_other_form(unet, monkeypatch):
    x, t = drawn(2)
    want = unet(x, t)[:, :3]

    def error():
        half = InferenceUNet(unet, STEPS, torch.bfloat16)(x, t)
        assert half.dtype == torch.float32 and half.is_contiguous()
        return float((half - want).square().mean().sqrt())

    packed = error()
    monkeypatch.setattr(inference_unet, "multiplies_bfloat16", lambda: False)
    assert 0 < packed <= 1.05 * error() < 0.05 * float(want.std())


@torch.inference_mode()
def test_pictures_of_other_sides_than_the_networks_own_are_taken(unet):
    x, t = drawn(1, side=64)
    want = unet(x, t)[:, :3]
    found = InferenceUNet(unet, STEPS, torch.bfloat16)(x, t)
    assert float((found - want).square().mean().sqrt()) < 0.05 * float(want.std())


@torch.inference_mode()
def test_a_face_has_the_same_bits_in_every_place_and_in_the_calls_that_an_engine_would_choose(unet):
    net, (x, t) = InferenceUNet(unet, STEPS, torch.bfloat16), drawn(3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        full = net(x, t)
        assert torch.equal(net(x.flip(0), t.flip(0)).flip(0), full)
        shapes = find_call_shapes(lambda n: net(x[:n], t[:n]), 3, 2)
        torch.set_num_threads(shapes.threads)
        for count in (1, 2, 3) if shapes.partial else (3,):
            assert torch.equal(net(x[:count], t[:count]), full[:count])
    finally:
        torch.set_num_threads(before)
    # where it was measured; other processors may have other kernels, which an engine finds out
    if multiplies_bfloat16() and not torch.cpu._is_amx_tile_supported():
        assert shapes == CallShapes(partial=True, threads=2)


@pytest.mark.parametrize(
    ("side", "precision", "packed"),
    [
        (256, torch.bfloat16, multiplies_bfloat16()),
        (256, torch.float32, False),
        (128, torch.bfloat16, False),
    ],
)
def test_it_is_taken_for_large_maps_in_bfloat16_where_the_processor_multiplies_in_it(side, precision, packed):
    network = InferenceUNet(make_unet(side), STEPS, precision)
    assert (network.layout == torch.channels_last) == packed


def test_a_doubling_and_its_convolution_are_one_transposed_convolution():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 6, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 5, 3, 3, generator=generator, dtype=torch.float64)
    want = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    found = F.conv_transpose2d(x, doubling_kernel(weight), stride=2, padding=1)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(32, 128, 128), (96, 64, 64), (512, 8, 8), (8, 3, 5)]
)
def test_moments_are_exact_far_from_zero_and_the_same_in_any_batch_and_thread(channels, height, width):
    x = torch.randn(5, channels, height, width, generator=torch.Generator().manual_seed(0)) * 0.5 + 30
    x = x.bfloat16().to(memory_format=torch.channels_last)
    exact = x.double()
    found = moments(x)
    want = torch.stack([exact.mean((2, 3)), exact.square().mean((2, 3))])
    torch.testing.assert_close(found, want, rtol=1e-6, atol=0)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            for count in (1, 2, 5):
                assert torch.equal(moments(x[:count]), found[:, :count])
    finally:
        torch.set_num_threads(before)
