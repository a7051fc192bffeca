"""Work is counted as by hand, operation by operation, and the limits follow from it."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.presets import build, find_preset
from pipeline.networks.roofline import (
    CLASSES,
    CallCost,
    Ceilings,
    Operation,
    count,
    count_call,
    measure_ceilings,
)

# a FLOP and a byte each take a second
SLOW = Ceilings(matmul=1.0, copy=1.0)


def network(x, kernel, bias, factor, matrix):
    """[1, 3, 8, 8] → [8, 2], an operation of every class."""
    h = F.silu(F.conv2d(x, kernel, bias, padding=1))
    h = F.group_norm(h, 2, factor, factor)
    return torch.cat([h, h], dim=1).view(16, 32) @ matrix


@pytest.fixture(scope="module")
def cost():
    shapes = [(1, 3, 8, 8), (4, 3, 3, 3), (4,), (4,), (32, 2)]
    return count(network, *(torch.empty(shape, device="meta") for shape in shapes))


def test_every_operation_of_a_small_network_is_counted_as_by_hand(cost):
    h = 4 * 64 * 4  # bytes of four channels of 8x8, float32
    moments = 2 * 2 * 4
    assert cost.operations == (
        Operation("convolution", 2 * 9 * 3 * 4 * 64, 3 * 64 * 4 + 4 * 27 * 4 + 4 * 4 + h),
        Operation("elementwise", 0, h + h),
        Operation("normalisation", 0, h + 2 * 4 * 4 + h + moments),
        Operation("copies", 0, h + h + 2 * h),
        Operation("matmul and attention", 2 * 16 * 32 * 2, 2 * h + 32 * 2 * 4 + 16 * 2 * 4),
    )


def test_the_floor_is_the_sum_of_what_each_operation_takes_at_least(cost):
    # 13824 FLOPs of the convolution, and the bytes of all others: 2048, 2096, 4096, and 2432 against 2048 FLOPs
    assert cost.floor(SLOW) == 13824 + 2048 + 2096 + 4096 + 2432
    assert cost.flops == 13824 + 2048 and cost.bytes == 2240 + 2048 + 2096 + 4096 + 2432
    assert cost.fused_floor(SLOW) == cost.flops


def test_shares_are_those_of_the_floor_by_class(cost):
    shares = cost.shares(SLOW)
    assert tuple(shares) == tuple(CLASSES) and sum(shares.values()) == pytest.approx(1)
    assert shares["convolution"] == 13824 / 24496 and shares["copies"] == 4096 / 24496


def test_each_operation_is_bound_by_the_slower_of_computing_and_moving():
    ceilings = Ceilings(matmul=100.0, copy=10.0)
    computing, moving = Operation("convolution", 200.0, 10.0), Operation("copies", 0.0, 50.0)
    assert computing.floor(ceilings) == 2 and moving.floor(ceilings) == 5
    both = CallCost((computing, moving))
    assert both.floor(ceilings) == 7 and both.fused_floor(ceilings) == 6


def test_changes_of_shape_alone_move_nothing():
    x = torch.empty(2, 3, 4, 4, device="meta")
    assert count(lambda x: x.permute(1, 0, 2, 3)[:, :1].unsqueeze(0).expand(2, 3, 1, 4, 4).mT, x).bytes == 0


def test_counted_work_is_that_of_the_published_network():
    """378.3 GFLOP was counted by others for six output channels; the three of ε are computed here."""
    prior = find_preset("difface-512-swinir").prior
    cost = count_call(prior, 512, torch.float32)
    variance = 2 * 3 * 32 * 9 * 512 * 512
    assert cost.flops + variance == pytest.approx(378.3e9, rel=0.01)
    half = count_call(prior, 512, torch.bfloat16)
    assert half.flops == cost.flops and half.bytes == pytest.approx(cost.bytes / 2, rel=0.15)


def test_a_call_of_several_faces_reads_the_weights_once():
    preset = find_preset("portrait")
    one, four = (count_call(preset.prior, preset.side, torch.float32, n) for n in (1, 4))
    assert four.flops == 4 * one.flops
    with torch.device("meta"):
        weights = sum(p.nbytes for p in InferenceUNet(build(preset.prior), [0]).parameters())
    assert 4 * one.bytes - four.bytes == pytest.approx(3 * weights, rel=0.05)


def test_ceilings_are_measured():
    measured = measure_ceilings("cpu", torch.float32, seconds=0.05)
    assert measured.matmul > 1e9 and measured.copy > 1e8
