"""What calls of a network change no bit: slots that agree, and shapes that were found before."""

import torch
from torch import Tensor

from pipeline.diffusion.call_shapes import CallShapes, ShapesCache, slots_agree


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


def test_shapes_found_before_are_not_found_again_unless_what_chooses_kernels_has_changed(
    tmp_path, monkeypatch
):
    found = []

    def find():
        found.append(1)
        return CallShapes(partial=True, threads=2)

    cache = ShapesCache(tmp_path / "shapes", {"device": "a processor", "networks": [("unet", {"patch": 2})]})
    call = {"network": "prior", "side": 128, "batch": 4, "threads": 2}
    assert cache.get(find, **call) == cache.get(find, **call) == CallShapes(True, 2) and len(found) == 1
    cache.get(find, **call | {"side": 192})
    ShapesCache(tmp_path / "shapes", {"device": "another"}).get(find, **call)
    assert len(found) == 3
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cache.get(find, **call)
    assert len(found) == 4


def test_a_damaged_or_closed_cache_costs_a_search_and_nothing_else(tmp_path):
    cache = ShapesCache(tmp_path / "shapes", {})
    cache.get(lambda: CallShapes(True, 1), side=64)
    for path in (tmp_path / "shapes").iterdir():
        path.write_text("{")
    assert cache.get(lambda: CallShapes(False, 2), side=64) == CallShapes(False, 2)
    (tmp_path / "file").write_text("")
    assert ShapesCache(tmp_path / "file", {}).get(CallShapes, side=64) == CallShapes()
