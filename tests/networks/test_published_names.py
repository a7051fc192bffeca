"""Names and shapes of the published files, written down apart from the networks.

The lists are first held against the recorded tiny networks of the official program, then, at full size, against ours.
"""

import math

import pytest
import torch
from safetensors import safe_open

from pipeline.networks.swinir import to_published
from pipeline.networks.zoo import NetworkSpec, build, find_preset
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


PUBLISHED = {"unet": unet_shapes, "swinir": swinir_shapes, "srcnn": srcnn_shapes}


def our_shapes(spec: NetworkSpec) -> Shapes:
    # SwinIR computes its masks while it is built, which needs storage; the others are built without.
    with torch.device("cpu" if spec.kind == "swinir" else "meta"):
        state = build(spec).state_dict()
    named = to_published(state) if spec.kind == "swinir" else state
    return {name: tuple(tensor.shape) for name, tensor in named.items()}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_written_list_is_that_of_the_official_program(kind):
    spec = golden.network_spec(kind)
    with safe_open(golden.GOLDEN / spec.file, "pt") as file:
        recorded = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no dict
    assert PUBLISHED[kind](dict(spec.options)) == recorded


@pytest.mark.parametrize(
    ("preset", "role", "millions"),
    [
        ("difface-512-swinir", "prior", 159.79),
        ("difface-512-swinir", "estimator", 15.79),
        ("difface-512-srcnn", "estimator", 1.03),
    ],
)
def test_the_published_512_networks_have_their_published_names_shapes_and_size(preset, role, millions):
    spec = getattr(find_preset(preset), role)
    shapes = our_shapes(spec)
    assert shapes == PUBLISHED[spec.kind](dict(spec.options))
    learnt = [s for n, s in shapes.items() if not n.endswith(("attn_mask", "relative_position_index"))]
    assert round(sum(math.prod(s) for s in learnt) / 1e6, 2) == millions


def test_the_published_256_prior_has_its_published_names_shapes_and_size():
    options = {
        "image_size": 256,
        "model_channels": 128,
        "channel_mult": (1, 1, 2, 2, 4, 4),
        "num_res_blocks": (2,) * 6,
        "attention_resolutions": (16, 8),
        "num_head_channels": 64,
        "out_channels": 6,
    }
    shapes = our_shapes(NetworkSpec("unet", options, "iddpm_ffhq256_ema750000.pth"))
    assert shapes == unet_shapes(options)
    assert round(sum(math.prod(s) for s in shapes.values()) / 1e6, 1) == 124.1
