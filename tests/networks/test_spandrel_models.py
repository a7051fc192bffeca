"""Networks that spandrel knows, tiny and with random weights, loaded from files as estimators."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from spandrel import ImageModelDescriptor
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.GFPGAN import GFPGAN, GFPGANArch
from spandrel.architectures.RestoreFormer import RestoreFormer
from spandrel.architectures.SwinIR import SwinIR

from pipeline.networks.checkpoint import CheckpointError, write_state
from pipeline.networks.presets import NetworkSpec, PresetError, build, load_network, network_config
from pipeline.networks.spandrel_models import SpandrelConfig, SpandrelNetwork, _try_out, resized

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")

SPEC = NetworkSpec("spandrel", {"input_size": 32}, "tiny.pth")


def esrgan(channels=3, scale=2):
    return ESRGAN(in_nc=channels, out_nc=channels, num_filters=8, num_blocks=1, scale=scale)


def restoreformer():
    shape = {"n_embed": 8, "embed_dim": 32, "ch": 32, "ch_mult": (1, 1), "num_res_blocks": 1}
    return RestoreFormer(**shape, z_channels=32, attn_resolutions=())


def swinir():
    shape = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "img_range": 1.0}
    return SwinIR(img_size=32, **shape, upscale=2, upsampler="pixelshuffle")


def gfpgan(config):
    """A GFPGAN for 32 x 32, which no file makes: spandrel builds those of the published shape alone."""
    net = GFPGAN(out_size=32, num_style_feat=16, num_mlp=1, narrow=0.0625)
    for layer in net.stylegan_decoder.modules():
        if hasattr(layer, "weight") and layer.weight.numel() == 1:
            torch.nn.init.constant_(layer.weight, 0.5)  # strength of the noise, 0 when untrained
    described = ImageModelDescriptor(
        net, net.state_dict(), GFPGANArch(), "FaceSR", [], False, True, 1, 3, 3,
        call_fn=lambda model, image: model(image)[0],
    )  # fmt: skip
    return described, SpandrelNetwork(described, config).eval()


def plain(net, x):
    return net(x)


def signed(net, x):
    return (net(x * 2 - 1)[0] + 1) / 2


def save(net, path, wrapper="params_ema"):
    torch.save({wrapper: net.state_dict()}, path)
    return path


@pytest.mark.parametrize(
    ("make", "called"), [(esrgan, plain), (swinir, plain), (restoreformer, signed)], ids=lambda f: f.__name__
)
@torch.inference_mode()
def test_a_file_is_called_in_its_own_range_and_gives_the_size_it_was_given(tmp_path, make, called):
    torch.manual_seed(0)
    net = make()
    loaded = load_network(SPEC, save(net, tmp_path / "tiny.pth"))
    assert not any(module.training for module in loaded.modules())
    face = torch.rand(2, 3, 32, 32)
    wanted = resized(called(net.eval(), face).clamp(0, 1), 32).clamp(0, 1)
    out = loaded(face)
    assert out.shape == face.shape and out.min() >= 0 and out.max() <= 1
    torch.testing.assert_close(out, wanted)
    assert torch.equal(loaded(face), out)


@torch.inference_mode()
def test_a_face_of_another_size_is_fitted_to_the_network_and_back(tmp_path):
    loaded = load_network(SPEC, save(esrgan(), tmp_path / "tiny.pth"))
    assert loaded(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert loaded(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)


@torch.inference_mode()
def test_safetensors_load_as_pytorch_files_do(tmp_path):
    net, face = esrgan(), torch.rand(1, 3, 32, 32)
    write_state(net.state_dict(), tmp_path / "a.safetensors", half=False)
    first = load_network(SPEC, save(net, tmp_path / "a.pth"))(face)
    assert torch.equal(load_network(SPEC, tmp_path / "a.safetensors")(face), first)


@torch.inference_mode()
def test_gfpgan_works_in_its_range_and_always_gives_the_same_face():
    torch.manual_seed(0)
    described, net = gfpgan(SpandrelConfig(32))
    face = torch.rand(1, 3, 32, 32)
    assert not torch.equal(described(face), described(face))  # as the library calls it
    wanted = (net.network(face * 2 - 1, randomize_noise=False)[0] + 1) / 2
    assert torch.equal(net(face), wanted.clamp(0, 1)) and torch.equal(net(face), net(face))
    assert net(face).std() > 0.01


@torch.inference_mode()
def test_the_preset_may_say_in_which_range_a_network_works(tmp_path):
    net = esrgan(scale=1)
    path, face = save(net, tmp_path / "tiny.pth"), torch.rand(1, 3, 32, 32)
    spec = replace(SPEC, options={"input_size": 32, "range": "signed"})
    wanted = (net.eval()(face * 2 - 1) + 1) / 2
    torch.testing.assert_close(load_network(spec, path)(face), wanted.clamp(0, 1))


def test_an_input_size_that_the_network_can_not_take_is_refused():
    with pytest.raises(
        CheckpointError, match=r"tiny: .* does not take 48x48 pixels .* correct the preset's inp"
    ):
        _try_out(gfpgan(SpandrelConfig(48))[1], "tiny")


def test_a_trial_on_shapes_leaves_the_network_as_it_was():
    net = gfpgan(SpandrelConfig(32))[1]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    _try_out(net, "tiny")
    assert {t.device.type for t in net.state_dict().values()} == {"cpu"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("state", "options", "words"),
    [
        (
            {"linear.weight": torch.zeros(1)},
            {},
            "wanted the tensors of a network that spandrel knows, got 1 of none",
        ),
        (
            {"linear.weight": torch.zeros(1)},
            {"architecture": "GFPGAN"},
            "wanted the tensors of a GFPGAN, got 1 of none that is known here; give the network's own file",
        ),
        (esrgan, {"architecture": "GFPGAN"}, "wanted the tensors of a GFPGAN, got those of a ESRGAN; give"),
        (esrgan, {"architecture": "GPEN"}, "architecture 'GPEN' is not known; write one of ATD, AdaCode"),
        (
            lambda: esrgan(channels=1),
            {},
            "wanted a network from RGB to RGB, got a ESRGAN (SR) from 1 to 1 channels",
        ),
    ],
)
def test_a_file_of_another_network_is_refused_in_one_sentence(tmp_path, state, options, words):
    tensors = state if isinstance(state, dict) else state().state_dict()
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(CheckpointError) as caught:
        load_network(replace(SPEC, options=SPEC.options | options), tmp_path / "other.pth")
    assert words in str(caught.value) and str(caught.value).startswith(str(tmp_path / "other.pth: "))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("surplus", [False, True])
def test_tensors_too_few_or_too_many_are_refused_by_name(tmp_path, surplus):
    state = restoreformer().state_dict()
    if surplus:
        state["decoder.surplus"] = torch.zeros(1)
    else:
        del state["quant_conv.bias"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError) as caught:
        load_network(SPEC, tmp_path / "other.pth")
    assert "exactly the tensors of a RestoreFormer" in str(caught.value)
    assert ("decoder.surplus" if surplus else "quant_conv.bias") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    find_spec("spandrel_extra_arches") is not None, reason="the extra architectures are installed"
)
def test_an_architecture_that_is_not_installed_is_named_with_what_to_install(tmp_path):
    spec = replace(SPEC, options={"input_size": 512, "architecture": "CodeFormer"})
    with pytest.raises(
        CheckpointError, match=r"install it as difface-pipeline\[extra-networks\] where .* licences"
    ):
        load_network(spec, save(esrgan(), tmp_path / "codeformer.pth"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "lack input_size"),
        ({"input_size": 0}, "input_size must be at least 1, got 0"),
        ({"input_size": 32, "range": "byte"}, "range must be unit or signed, got 'byte'"),
        ({"input_size": 32, "fidelity": 2}, r"fidelity must lie in \[0, 1\], got 2"),
    ],
)
def test_options_that_can_not_be_are_refused(options, words):
    with pytest.raises(PresetError, match=words):
        network_config(replace(SPEC, options=options))


def test_without_its_file_no_such_network_is_built():
    with pytest.raises(PresetError, match="is what its file says"):
        build(SPEC)
