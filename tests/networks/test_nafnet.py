"""NAFNet under its published names, and its inference network."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.diffusion.call_shapes import CallShapes, find_call_shapes
from pipeline.networks.checkpoint import CheckpointError, load_strict, write_state
from pipeline.networks.inference_nafnet import InferenceNAFNet
from pipeline.networks.memory import bytes_of_training
from pipeline.networks.nafnet import NAFNet, NAFNetConfig, fill_from_around
from pipeline.networks.presets import PRESETS, NetworkSpec, PresetError, build, load_network
from pipeline.stages.engines import inference_network
from pipeline.training.objectives import EstimatorL1
from tests import golden_data

TINY = {"width": 8, "middle_blk_num": 1, "enc_blk_nums": (1, 2), "dec_blk_nums": (1, 0)}
PORTRAIT = NetworkSpec(
    "nafnet",
    {"width": 48, "middle_blk_num": 6, "enc_blk_nums": (2, 4, 6), "dec_blk_nums": (2, 2, 2), "patch": 2},
    "portrait_estimator.safetensors",
)


def spec(**changed):
    return NetworkSpec("nafnet", {**TINY, **changed}, "tiny.safetensors")


def trained(seed=0, **changed):
    """A network none of whose branches is 0, as they are in a new one."""
    torch.manual_seed(seed)
    net = build(spec(**changed))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture(scope="module")
def portrait():
    return load_network(PORTRAIT, PRESETS / "weights" / PORTRAIT.file)


def drawn(count, side):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def published_shapes():
    """Names and shapes of TINY, written down by hand."""

    def affine(name, *weight):
        return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}

    def block(name, c):
        shapes = affine(f"{name}.norm1", c) | affine(f"{name}.norm2", c)
        shapes |= affine(f"{name}.conv1", 2 * c, c, 1, 1) | affine(f"{name}.conv2", 2 * c, 1, 3, 3)
        shapes |= affine(f"{name}.conv3", c, c, 1, 1) | affine(f"{name}.sca.1", c, c, 1, 1)
        shapes |= affine(f"{name}.conv4", 2 * c, c, 1, 1) | affine(f"{name}.conv5", c, c, 1, 1)
        return shapes | {f"{name}.beta": (1, c, 1, 1), f"{name}.gamma": (1, c, 1, 1)}

    shapes = affine("intro", 8, 3, 3, 3) | affine("ending", 3, 8, 3, 3)
    shapes |= block("encoders.0.0", 8) | affine("downs.0", 16, 8, 2, 2)
    shapes |= block("encoders.1.0", 16) | block("encoders.1.1", 16) | affine("downs.1", 32, 16, 2, 2)
    shapes |= block("middle_blks.0", 32)
    shapes |= {"ups.0.0.weight": (64, 32, 1, 1)} | block("decoders.0.0", 16)
    return shapes | {"ups.1.0.weight": (32, 16, 1, 1)}


def test_names_and_shapes_are_the_published_ones():
    found = {name: tuple(tensor.shape) for name, tensor in build(spec()).state_dict().items()}
    assert found == published_shapes()


@torch.inference_mode()
def test_a_block_computes_what_the_paper_draws():
    """Fig. 3c of the paper in plain matrix products, one pixel's neighbourhood written out."""
    net = trained(width=4)
    block = net.encoders[0][0]
    x = torch.randn(1, 4, 6, 6)

    def norm(h, layer):
        mean = h.mean(1, keepdim=True)
        spread = (h - mean).pow(2).mean(1, keepdim=True).add(1e-6).sqrt()
        return (h - mean) / spread * layer.weight[:, None, None] + layer.bias[:, None, None]

    def pixelwise(h, layer):
        return torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], h) + layer.bias[:, None, None]

    h = pixelwise(norm(x, block.norm1), block.conv1)
    around = F.pad(h, (1, 1, 1, 1))
    h = block.conv2.bias[:, None, None] + sum(
        around[:, :, i : i + 6, j : j + 6] * block.conv2.weight[:, 0, i, j, None, None]
        for i in range(3)
        for j in range(3)
    )
    h = h[:, :4] * h[:, 4:]
    h = h * pixelwise(h.mean(dim=(2, 3), keepdim=True), block.sca[1])
    y = x + block.beta * pixelwise(h, block.conv3)
    h = pixelwise(norm(y, block.norm2), block.conv4)
    want = y + block.gamma * pixelwise(h[:, :4] * h[:, 4:], block.conv5)
    torch.testing.assert_close(block(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("middle_blks.0.beta"), r"1 missing \(middle_blks\.0\.beta\)"),
        (lambda state: state.update({"dropout": torch.zeros(1)}), r"1 surplus \(dropout\)"),
        (lambda state: state.update({"intro.bias": torch.zeros(9)}), r"intro\.bias 9 instead of 8"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, change, words):
    state = build(spec()).state_dict()
    change(state)
    write_state(state, tmp_path / "tiny.safetensors", half=False)
    with pytest.raises(CheckpointError, match=words):
        load_network(spec(), tmp_path / "tiny.safetensors")


@pytest.mark.parametrize("patch", [1, 2])
@torch.inference_mode()
def test_a_new_network_gives_back_what_it_is_given(patch):
    y = drawn(2, 16)
    net = build(spec(patch=patch))
    assert torch.equal(net(y), y)
    assert torch.equal(InferenceNAFNet(net)(y), y)


def test_training_leaves_the_identity_and_reaches_every_parameter():
    net = build(spec(patch=2, dec_blk_nums=(1, 1))).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    batch = {"lq": drawn(2, 16), "hq": drawn(4, 16)[2:]}
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = EstimatorL1()(net, batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_what_training_takes_is_counted_on_shapes():
    of_weights, of_a_face = bytes_of_training(spec(patch=2), 32, 3, "bfloat16")
    assert of_weights == 5 * sum(4 * p.numel() for p in build(spec(patch=2)).parameters())
    assert of_a_face > 3 * 32 * 32 * 4


@torch.inference_mode()
def test_a_patch_is_a_pixel_unshuffle_around_the_published_network():
    outer, inner = trained(patch=2), NAFNet(NAFNetConfig(**TINY, img_channel=12)).eval()
    load_strict(inner, outer.state_dict(), "inner")
    y = drawn(2, 32)
    assert torch.equal(outer(y), F.pixel_shuffle(inner(F.pixel_unshuffle(y, 2)), 2))


@pytest.mark.parametrize(("patch", "below"), [(1, 3), (3, 11)])
@pytest.mark.parametrize("form", [lambda net: net, InferenceNAFNet])
@torch.inference_mode()
def test_odd_sides_are_filled_up_with_zeros_below_and_at_the_right(form, patch, below):
    net = form(trained(patch=patch))
    y = drawn(1, 24)[:, :, :13, :10]
    filled = F.pad(y, (0, 2, 0, below))
    out = net(y)
    assert out.shape == y.shape
    assert torch.equal(out, net(filled)[:, :, :13, :10])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dec_blk_nums": (1,)}, "one entry per level"),
        ({"enc_blk_nums": (), "dec_blk_nums": ()}, "one entry per level"),
        ({"width": 0}, "at least 1, got 0, 3 and 1"),
        ({"patch": 0}, "at least 1, got 8, 3 and 0"),
        ({"middle_blk_num": -1}, "can not be negative"),
        ({"enc_blk_nums": 2}, "must be a list of whole numbers"),
        ({"depth": 2}, "hold depth"),
    ],
)
def test_a_shape_that_can_not_be_is_refused_by_name(changed, words):
    with pytest.raises(PresetError, match=words):
        build(spec(**changed))


@pytest.mark.parametrize("patch", [1, 2])
@torch.inference_mode()
def test_the_inference_network_agrees_with_the_network_it_was_made_of(patch):
    net, y = trained(patch=patch), drawn(2, 24)
    want = net(y)
    bound = 1e-5 * float((want - y).abs().max())
    torch.testing.assert_close(InferenceNAFNet(net)(y), want, rtol=0, atol=bound)


@torch.inference_mode()
def test_the_inference_network_of_the_portrait_estimator_agrees_with_it(portrait):
    y = drawn(2, 128)
    want = portrait(y)
    assert (want - y).abs().mean() > 1e-3
    torch.testing.assert_close(InferenceNAFNet(portrait)(y), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("number_type", "least_db"), [(torch.bfloat16, 38), (torch.float16, 55)])
@torch.inference_mode()
def test_in_half_precision_the_correction_stays_near(portrait, number_type, least_db):
    y = drawn(1, 128)
    full, half = portrait(y), InferenceNAFNet(portrait, number_type)(y)
    assert half.dtype == torch.float32
    ratio = (full - half).pow(2).mean() / (full - y).pow(2).mean()
    assert -10 * torch.log10(ratio) >= least_db


@pytest.mark.parametrize("number_type", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_face_has_the_same_bits_alone_and_in_company_in_one_thread_and_in_two(portrait, number_type):
    net, y = InferenceNAFNet(portrait, number_type), drawn(4, 128)
    assert find_call_shapes(lambda n: net(y[:n]), 4, 2) == CallShapes(partial=True, threads=2)


@torch.inference_mode()
def test_restoring_takes_the_inference_network_of_a_nafnet_alone():
    device, net, other = torch.device("cpu"), trained(), golden_data.network("srcnn")
    made = inference_network(net, device, torch.bfloat16)
    assert isinstance(made, InferenceNAFNet)
    assert made.precision == torch.bfloat16
    assert inference_network(other, device, torch.float32) is other
    y = drawn(1, 32)
    with torch.autocast("cpu", torch.bfloat16):
        want = other(y)
    assert torch.equal(inference_network(other, device, torch.bfloat16)(y), want)


# ---- holes and unknown colours


def with_hole(count=2, side=24):
    """Faces with what is unknown of them, and their holes [B, 1, S, S]."""
    faces = drawn(count, side)
    hole = torch.zeros(count, 1, side, side)
    hole[0, :, 4:9, 3:20], hole[-1, :, :, : side // 2] = 1, 1
    return torch.cat([faces * (1 - hole), hole, torch.zeros_like(hole)], 1), hole


def test_a_hole_is_filled_from_around_it_and_nothing_else_changes():
    y, hole = with_hole(side=23)
    filled = fill_from_around(y[:, :3], hole)
    known = hole.expand_as(filled) == 0
    assert torch.equal(filled[known], y[:, :3][known])
    # between the least and the greatest of what is known
    inside = filled[~known]
    assert float(y[:, :3][known].min()) <= float(inside.min()) and float(inside.max()) <= float(
        y[:, :3].max()
    )
    level = torch.full((1, 3, 16, 16), 0.25)
    box = torch.zeros(1, 1, 16, 16)
    box[..., 3:11, 5:16] = 1
    torch.testing.assert_close(fill_from_around(level * (1 - box), box), level)
    # the nearer side decides
    halves = torch.zeros(1, 3, 16, 16)
    halves[..., 8:] = 1
    gap = torch.zeros(1, 1, 16, 16)
    gap[..., 4:12] = 1
    row = fill_from_around(halves * (1 - gap), gap)[0, 0, 8]
    assert float(row[4]) < 0.3 and float(row[11]) > 0.7


def test_where_nothing_is_known_a_filling_network_still_answers():
    net, y = trained(unknown_channels=2), torch.zeros(1, 5, 16, 16)
    y[:, 3] = 1
    with torch.inference_mode():
        assert torch.isfinite(net(y)).all()


@torch.inference_mode()
def test_a_filling_network_is_not_shown_what_lies_in_its_holes_and_knows_which_colours_are_unknown():
    net, (y, hole) = trained(unknown_channels=2), with_hole()
    known = build(spec(unknown_channels=2))  # new: gives back what it is given
    torch.testing.assert_close(known(y), fill_from_around(y[:, :3], hole))
    other = y.clone()
    other[:, 4] = 1
    assert not torch.equal(net(y), net(other))


@torch.inference_mode()
def test_the_inference_network_fills_as_the_network_it_was_made_of():
    net, (y, _) = trained(unknown_channels=2, patch=2), with_hole(4)
    want, form = net(y), InferenceNAFNet(net)
    torch.testing.assert_close(form(y), want, rtol=0, atol=1e-5 * float(want.abs().max()))
    assert find_call_shapes(lambda n: form(y[:n]), 4, 2) == CallShapes(partial=True, threads=2)
