"""Names and shapes of the published files, written down independently of the networks.

The lists are first held against the recorded tiny networks of the official program, then, at full size, against ours.
"""

import math

import pytest
import torch
from safetensors import safe_open

from pipeline.networks.presets import NetworkSpec, build, find_preset
from tests import golden_data as golden

Shapes = dict[str, tuple[int, ...]]


def affine(name: str, *weight: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def unet_shapes(o: dict) -> Shapes:
    """The residual blocks, attention blocks and resamplings of improved DDPM, in the order of their numbers."""
    ch = o["model_channels"]
    emb = 4 * ch

    def res(name: str, i: int, out: int) -> Shapes:
        shapes = affine(f"{name}.in_layers.0", i) | affine(f"{name}.in_layers.2", out, i, 3, 3)
        shapes |= affine(f"{name}.emb_layers.1", 2 * out, emb)
        shapes |= affine(f"{name}.out_layers.0", out) | affine(f"{name}.out_layers.3", out, out, 3, 3)
        return shapes if i == out else shapes | affine(f"{name}.skip_connection", out, i, 1, 1)

    def attend(name: str, c: int) -> Shapes:
        return (
            affine(f"{name}.norm", c)
            | affine(f"{name}.qkv", 3 * c, c, 1)
            | affine(f"{name}.proj_out", c, c, 1)
        )

    shapes = affine("time_embed.0", emb, ch) | affine("time_embed.2", emb, emb)
    shapes |= affine("input_blocks.0.0", ch, 3, 3, 3)
    side, width, number, skips = o["image_size"], ch, 1, [ch]
    levels = list(zip(o["channel_mult"], o["num_res_blocks"], strict=True))
    for level, (mult, blocks) in enumerate(levels):
        for _ in range(blocks):
            shapes |= res(f"input_blocks.{number}.0", width, mult * ch)
            width = mult * ch
            if side in o["attention_resolutions"]:
                shapes |= attend(f"input_blocks.{number}.1", width)
            skips.append(width)
            number += 1
        if level < len(levels) - 1:
            shapes |= affine(f"input_blocks.{number}.0.op", width, width, 3, 3)
            skips.append(width)
            number += 1
            side //= 2
    shapes |= res("middle_block.0", width, width) | attend("middle_block.1", width)
    shapes |= res("middle_block.2", width, width)
    number = 0
    for level, (mult, blocks) in reversed(list(enumerate(levels))):
        for block in range(blocks + 1):
            shapes |= res(f"output_blocks.{number}.0", width + skips.pop(), mult * ch)
            width, place = mult * ch, 1
            if side in o["attention_resolutions"]:
                shapes |= attend(f"output_blocks.{number}.1", width)
                place = 2
            if level and block == blocks:
                shapes |= affine(f"output_blocks.{number}.{place}.conv", width, width, 3, 3)
                side *= 2
            number += 1
    return shapes | affine("out.0", width) | affine("out.2", o["out_channels"], width, 3, 3)


def swinir_shapes(o: dict) -> Shapes:
    """Swin transformer groups between an unshuffling first convolution and doubling last ones."""
    c, window, side = o["embed_dim"], o["window_size"], o["img_size"]
    hidden, area = int(o["mlp_ratio"] * c), window**2
    shapes = affine("conv_first.1", c, 3 * o["start_unshuffle"] ** 2, 3, 3) | affine("patch_embed.norm", c)
    for group, (depth, heads) in enumerate(zip(o["depths"], o["num_heads"], strict=True)):
        for number in range(depth):
            name = f"layers.{group}.residual_group.blocks.{number}"
            shapes |= affine(f"{name}.norm1", c) | affine(f"{name}.norm2", c)
            shapes |= affine(f"{name}.attn.qkv", 3 * c, c) | affine(f"{name}.attn.proj", c, c)
            shapes |= affine(f"{name}.mlp.fc1", hidden, c) | affine(f"{name}.mlp.fc2", c, hidden)
            shapes[f"{name}.attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads)
            shapes[f"{name}.attn.relative_position_index"] = (area, area)
            if number % 2:
                shapes[f"{name}.attn_mask"] = ((side // window) ** 2, area, area)
        shapes |= affine(f"layers.{group}.conv", c, c, 3, 3)
    shapes |= affine("norm", c) | affine("conv_after_body", c, c, 3, 3)
    shapes |= affine("conv_before_upsample.0", 64, c, 3, 3)
    for number in range(int(math.log2(o["upscale"]))):
        shapes |= affine(f"conv_up{number + 1}", 64, 64, 3, 3)
    return shapes | affine("conv_hr", 64, 64, 3, 3) | affine("conv_last", 3, 64, 3, 3)


def srcnn_shapes(o: dict) -> Shapes:
    """Quarter size by two unshuffles, a body of 5x5 convolutions, full size by two shuffles."""
    c = o["num_chns"]
    shapes = affine("head.1", c, 12, 3, 3) | affine("head.2", c // 4, c, 5, 5) | affine("head.5", c, c, 3, 3)
    for layer in range(o["depth"] - 1):
        shapes |= affine(f"body.{2 * layer}", c, c, 5, 5)
    shapes |= affine("tail.0", c, c, 3, 3) | affine("tail.3", c // 4, c // 4, 3, 3)
    return shapes | affine("tail.6", 3, c // 16, 5, 5)


def lama_shapes(o: dict) -> Shapes:
    """Halving convolutions, residual blocks of a local and a global branch, doubling transposed convolutions.

    Counted in the generator's own order, in which paddings and activations without weights have numbers, too.
    """

    def norm(name: str, c: int) -> Shapes:
        return {f"{name}.{of}": (c,) for of in ("weight", "bias", "running_mean", "running_var")} | {
            f"{name}.num_batches_tracked": ()
        }

    def conv(name: str, kind: str, out: int, i: int, size: int) -> Shapes:
        return {f"{name}.ffc.conv{kind}.weight": (out, i, size, size)}

    def fourier(name: str, c: int) -> Shapes:
        # the spectrum's real and imaginary parts are channels
        half = c // 2
        return (
            {f"{name}.conv1.0.weight": (half, c, 1, 1), f"{name}.conv2.weight": (c, half, 1, 1)}
            | {f"{name}.fu.conv_layer.weight": (2 * half, 2 * half, 1, 1)}
            | norm(f"{name}.conv1.1", half)
            | norm(f"{name}.fu.bn", 2 * half)
        )

    ngf, halvings = o["ngf"], o["n_downsampling"]
    shapes = conv("model.1", "l2l", ngf, 4, 7) | norm("model.1.bn_l", ngf)
    for number in range(2, 1 + halvings):
        shapes |= conv(f"model.{number}", "l2l", 2 * ngf, ngf, 3) | norm(f"model.{number}.bn_l", 2 * ngf)
        ngf *= 2
    width = 2 * ngf
    world = 3 * width // 4
    near, number = width - world, 1 + halvings
    shapes |= conv(f"model.{number}", "l2l", near, ngf, 3) | conv(f"model.{number}", "l2g", world, ngf, 3)
    shapes |= norm(f"model.{number}.bn_l", near) | norm(f"model.{number}.bn_g", world)
    for number in range(2 + halvings, 2 + halvings + o["n_blocks"]):
        for name in (f"model.{number}.conv1", f"model.{number}.conv2"):
            shapes |= conv(name, "l2l", near, near, 3) | conv(name, "l2g", world, near, 3)
            shapes |= conv(name, "g2l", near, world, 3) | fourier(f"{name}.ffc.convg2g", world)
            shapes |= norm(f"{name}.bn_l", near) | norm(f"{name}.bn_g", world)
    number = 3 + halvings + o["n_blocks"]
    for _ in range(halvings):
        shapes |= {f"model.{number}.weight": (width, width // 2, 3, 3), f"model.{number}.bias": (width // 2,)}
        shapes |= norm(f"model.{number + 1}", width // 2)
        width //= 2
        number += 3
    return shapes | affine(f"model.{number + 1}", 3, width, 7, 7)


PUBLISHED = {"unet": unet_shapes, "swinir": swinir_shapes, "srcnn": srcnn_shapes, "lama": lama_shapes}
# What a file holds beside learnt numbers.
COUNTED_OUT = ("attn_mask", "relative_position_index", "running_mean", "running_var", "num_batches_tracked")


def our_shapes(spec: NetworkSpec) -> Shapes:
    # SwinIR computes its masks while it is built, which needs storage; the others are built without.
    with torch.device("cpu" if spec.kind == "swinir" else "meta"):
        state = build(spec).state_dict()
    named = {name: tuple(tensor.shape) for name, tensor in state.items()}
    # published with a pixel-unshuffle in front of the first convolution, which moves its name
    if spec.kind == "swinir":
        for part in ("weight", "bias"):
            named[f"conv_first.1.{part}"] = named.pop(f"conv_first.{part}")
    return named


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_written_list_is_that_of_the_official_program(kind):
    spec = golden.network_spec(kind)
    with safe_open(golden.GOLDEN / spec.file, "pt") as file:
        recorded = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no dict
    assert PUBLISHED[kind](dict(spec.options)) == recorded


@pytest.mark.parametrize(
    ("preset", "role", "file", "millions"),
    [
        ("difface-512-swinir", "prior", "iddpm_ffhq512_ema500000.pth", 159.79),
        ("difface-512-swinir", "estimator", "swinir_restoration512_L1.pth", 15.79),
        ("difface-512-srcnn", "prior", "iddpm_ffhq512_ema500000.pth", 159.79),
        ("difface-512-srcnn", "estimator", "srcnn_restoration512_L1.pth", 1.03),
        ("difface-256-inpaint", "prior", "iddpm_ffhq256_ema750000.pth", 124.06),
        ("difface-256-inpaint", "estimator", "lama_inpainting256.pth", 50.98),
    ],
)
def test_the_published_networks_have_their_published_names_shapes_and_size(preset, role, file, millions):
    spec = getattr(find_preset(preset), role)
    assert spec.file == file
    shapes = our_shapes(spec)
    assert shapes == PUBLISHED[spec.kind](dict(spec.options))
    learnt = [shape for name, shape in shapes.items() if not name.endswith(COUNTED_OUT)]
    assert round(sum(math.prod(shape) for shape in learnt) / 1e6, 2) == millions
