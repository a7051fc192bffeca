"""A network whose bits depend on the slot is found out before a face is restored with it."""

import torch
from torch import Tensor

from pipeline.diffusion.call_shapes import slots_agree


def test_slots_of_a_pointwise_network_agree():
    assert slots_agree(torch.sin, 5, (3, 4, 4))


def test_a_network_with_other_bits_in_its_last_slot_is_found_out():
    def by_slot(x: Tensor) -> Tensor:
        out = torch.sin(x)
        out[-1] = torch.nextafter(out[-1], out[-1] + 1)
        return out

    assert not slots_agree(by_slot, 5, (3, 4, 4))


def test_a_network_whose_bits_depend_on_the_neighbours_is_found_out():
    assert not slots_agree(lambda x: x + x.mean(), 5, (3, 4, 4))
