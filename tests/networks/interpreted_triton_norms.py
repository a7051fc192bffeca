"""The Triton norms in Triton's interpreter, which `test_triton_norms.py` starts: against float64, and bit by bit.

Every output and buffer is filled with NaN before a kernel writes it.
"""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from pipeline.networks import triton_norms
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.triton_norms import add_biased, group_norm, tiling
from pipeline.networks.unet import UNet, UNetConfig
from tests import golden_data

STEPS = [0, 20, 400]
# relative error (root mean square) of a rounding to the number type, with slack; the interpreter truncates to bfloat16
TYPES = {torch.float32: 1e-6, torch.float16: 4e-4, torch.bfloat16: 4e-3}


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """New tensors hold NaN until they are written."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def drawn(*shape, dtype=torch.float32, seed=0, mean=0.0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return values.to(dtype, memory_format=layout)


def reference(x, skip, weight, shift, rows, bias, groups, eps, silu):
    """The same in float64 by PyTorch's own operations."""
    v = torch.cat([s.double() for s in (x, skip) if s is not None], dim=1)
    v = v if bias is None else v + bias.double()[:, None, None]
    weight, shift = (p.double() if rows is None else p.double()[rows] for p in (weight, shift))
    v = F.group_norm(v, groups, eps=eps) * weight[..., None, None] + shift[..., None, None]
    return F.silu(v) if silu else v


def relative(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("widths", "sides", "groups"),
    [
        ((32,), (16, 16), 32),
        ((96, 32), (8, 12), 32),
        ((32, 64), (7, 13), 32),
        ((12, 20), (5, 3), 4),
        ((64,), (1, 1), 32),
    ],
)
def test_it_agrees_with_float64_for_one_and_two_sources_and_odd_sizes(widths, sides, groups, dtype):
    x, *others = (drawn(2, width, *sides, dtype=dtype, seed=width) for width in widths)
    c = sum(widths)
    tables = drawn(5, c, dtype=dtype, seed=1, mean=1.0), drawn(5, c, dtype=dtype, seed=2)
    skip = others[0] if others else None
    bias = None if others else drawn(c, dtype=dtype, seed=3)
    by_row = (x, skip, *tables, torch.tensor([4, 2]), bias, groups, 1e-5, True)
    by_channel = (x, skip, tables[0][0], tables[1][1], None, None, groups, 1e-5, False)
    for arguments in (by_row, by_channel) if dtype == torch.float32 else (by_row,):
        found, wanted = group_norm(*arguments), reference(*arguments)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
        assert relative(found, wanted) < TYPES[dtype]


def test_it_agrees_with_float64_where_a_program_takes_several_tiles(monkeypatch):
    """As it does from 256 px on, for which the interpreter would take minutes."""
    monkeypatch.setattr(triton_norms, "_MOST_TILES", 4)
    tiling.cache_clear()
    assert tiling(40 * 50, 32, 4).steps == 8
    x = drawn(1, 32, 40, 50, mean=3.0)
    arguments = (x, None, drawn(32, seed=1), drawn(32, seed=2), None, None, 32, 1e-5, True)
    assert relative(group_norm(*arguments), reference(*arguments)) < 1e-6
    tiling.cache_clear()


def test_channels_far_from_zero_keep_their_variance():
    x = drawn(1, 32, 8, 9, mean=3000.0)
    arguments = (x, None, torch.ones(32), torch.zeros(32), None, None, 32, 1e-5, False)
    assert relative(group_norm(*arguments), reference(*arguments)) < 1e-3


@pytest.mark.parametrize("dtype", TYPES)
def test_a_face_has_the_same_bits_in_every_position_and_batch(dtype):
    x, skip = (drawn(1, width, 3, 5, dtype=dtype, seed=width) for width in (32, 64))
    weight, shift = drawn(2, 96, dtype=dtype, seed=1), drawn(2, 96, dtype=dtype, seed=2)
    bias = drawn(32, dtype=dtype)

    def results(x, skip, rows):
        return (
            group_norm(x, skip, weight, shift, rows, None, 8, 1e-5, True),
            add_biased(x, x, x, bias),
        )

    lone = results(x, skip, torch.ones(1, dtype=torch.int64))
    for batch in (4, 16):
        everywhere = results(
            *(s.repeat(batch, 1, 1, 1) for s in (x, skip)), torch.ones(batch, dtype=torch.int64)
        )
        others = [drawn(batch, *s.shape[1:], dtype=dtype, seed=9) for s in (x, skip)]
        others[0][0::3] = torch.nan  # neighbours that left the finite numbers
        for other, own in zip(others, (x, skip), strict=True):
            other[2] = own[0]
        company = results(*others, torch.tensor([0, 0, 1, *[0] * (batch - 3)]))
        for alone, same, mixed in zip(lone, everywhere, company, strict=True):
            assert torch.equal(same, alone.expand_as(same)) and torch.equal(mixed[2], alone[0])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(2, 32, 8, 8), (3, 20, 5, 7)])
def test_sums_are_rounded_once(shape, dtype):
    one, two, three = (drawn(*shape, dtype=dtype, seed=i) for i in range(3))
    bias = drawn(shape[1], dtype=dtype, seed=4)
    for third in (None, three):
        terms = [one, two, *([] if third is None else [third]), bias[:, None, None]]
        wanted = sum(term.double() for term in terms)
        assert relative(add_biased(one, two, third, bias), wanted) < TYPES[dtype]


def test_tiles_depend_on_the_shape_of_a_face_and_divide_its_channels():
    for pixels, channels, size in (
        (512 * 512, 32, 2),
        (256 * 256, 64, 2),
        (64, 1024, 4),
        (35, 20, 2),
        (1, 32, 4),
    ):
        of = tiling(pixels, channels, size)
        assert channels % of.block == 0 and of.tiles <= 256
        assert of.rows * of.steps * (of.tiles - 1) < pixels <= of.rows * of.steps * of.tiles
    assert tiling(512 * 512, 32, 2).tiles == tiling(256 * 256, 64, 2).tiles == 256


def test_the_operators_satisfy_pytorchs_own_checks():
    x, weight = drawn(2, 32, 4, 4), torch.ones(32)
    torch.library.opcheck(group_norm, (x, x, torch.ones(64), torch.zeros(64), None, None, 32, 1e-5, True))
    by_row = weight[None], weight[None], torch.zeros(2, dtype=torch.int64)
    torch.library.opcheck(group_norm, (x, None, *by_row, weight, 32, 1e-5, False))
    torch.library.opcheck(add_biased, (x, x, None, weight))


# -- the network that is made of them ----------------------------------------------------------------------------------


@torch.inference_mode()
def test_the_recorded_network_gives_the_same_by_either_norms():
    x, t = drawn(1, 3, 16, 16), torch.tensor([400])
    unet = golden_data.network("unet")
    wanted = unet(x, t)[:, :3]
    fused = InferenceUNet(unet, STEPS, norms="triton")
    torch.testing.assert_close(fused(x, t), wanted, rtol=0, atol=1e-5)
    half = InferenceUNet(unet, STEPS, torch.bfloat16, norms="triton")(x, t)
    eager = InferenceUNet(unet, STEPS, torch.bfloat16)(x, t)
    assert relative(half, wanted) < 1.5 * relative(eager, wanted)


@torch.inference_mode()
def test_a_network_inside_a_pixel_unshuffle_gives_the_same_by_either_norms():
    torch.manual_seed(0)
    unet = UNet(UNetConfig(16, 32, (1, 3), (1, 1), (8,), 32, patch=2)).eval()
    for parameter in unet.parameters():  # a new network's zeroed layers would hide most of it
        torch.nn.init.normal_(parameter, std=0.05)
    x, t = drawn(2, 3, 32, 32), torch.tensor([0, 400])
    wanted = InferenceUNet(unet, STEPS)(x, t)
    found = InferenceUNet(unet, STEPS, norms="triton")(x, t)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_it_runs_in_the_interpreter():
    assert triton_norms.INTERPRETED
