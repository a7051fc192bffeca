"""What a slot takes, and how many fit."""

import torch

from pipeline.networks.memory import bytes_per_slot
from pipeline.networks.presets import find_preset
from pipeline.stages.engines import SHARE_OF_FREE, fitting_slots, free_bytes


def test_bytes_of_a_slot_grow_with_the_side_and_shrink_with_the_number_type():
    small, large = find_preset("small-swinir"), find_preset("difface-512-swinir")
    sizes = {p.side: bytes_per_slot(p.prior, p.side, torch.float32) for p in (small, large)}
    # the concatenated skip of the first level alone: twice its channels, float32
    assert sizes[64] > 2 * 32 * 64 * 64 * 4
    assert 150e6 < sizes[512] < 1e9
    assert sizes[512] > 1.5 * bytes_per_slot(large.prior, 512, torch.bfloat16) > sizes[64]


def test_slots_are_the_useful_ones_or_those_that_fit_and_one_at_least():
    assert fitting_slots(8, each=10, free=10_000) == 8
    assert fitting_slots(8, each=10, free=50) == int(50 * SHARE_OF_FREE) // 10
    assert fitting_slots(8, each=10, free=3) == 1


def test_free_memory_is_what_the_machine_has_left():
    assert 2**26 < free_bytes(torch.device("cpu")) < 2**45
