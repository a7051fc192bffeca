import os
import pickle

import pytest
import torch
from torch import nn

from pipeline.networks.checkpoint import CheckpointError, load_strict, read_state, write_state
from pipeline.networks.presets import load_network
from tests import golden_data as golden

STATE = {"a.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "a.bias": torch.tensor([5.0, 6.0])}


def assert_same(read: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor] = STATE) -> None:
    assert read.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE},
        {"params": STATE},
        {"params_ema": STATE, "params": {"other": torch.zeros(1)}},
        {"module." + k: v for k, v in STATE.items()},
        {"state_dict": {"module._orig_mod." + k: v for k, v in STATE.items()}, "epoch": 3},
        {k: v.half() for k, v in STATE.items()},
        {k: v.bfloat16() for k, v in STATE.items()},
        {k: v.double() for k, v in STATE.items()},
    ],
    ids=["bare", "state_dict", "params", "ema first", "prefixed", "both", "float16", "bfloat16", "float64"],
)
def test_weights_are_read_whatever_they_are_wrapped_in(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert_same(read_state(tmp_path / "w.pth"))


def test_the_old_pytorch_format_is_read(tmp_path):
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_same(read_state(tmp_path / "w.pth"))


def test_a_prefix_that_only_some_names_have_is_part_of_the_name(tmp_path):
    mixed = {"module.weight": torch.ones(1), "weight": torch.ones(2)}
    torch.save(mixed, tmp_path / "w.pth")
    assert_same(read_state(tmp_path / "w.pth"), mixed)


def test_written_halves_come_back_as_float32_and_whole_numbers_untouched(tmp_path):
    shared = torch.tensor([0.5, 0.25])
    state = {"x": shared, "y": shared, "index": torch.tensor([2**40])}
    write_state(state, tmp_path / "w.safetensors")
    assert_same(read_state(tmp_path / "w.safetensors"), state)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_written_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        write_state(STATE, tmp_path / "w.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_name_of_a_file_does_not_decide_how_it_is_read(tmp_path):
    write_state(STATE, tmp_path / "w.pth", half=False)
    assert_same(read_state(tmp_path / "w.pth"))


def test_a_weight_too_large_for_float16_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="'big' does not fit into float16"):
        write_state({"big": torch.tensor([1e6])}, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


class Trap:
    """Would make a folder when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_file_that_holds_code_is_refused_and_never_run(tmp_path, writer):
    writer({"a": Trap(str(tmp_path / "ran"))}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth.*would run as code"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 1, 7, 40_000])
def test_an_empty_or_foreign_file_is_refused(tmp_path, size):
    (tmp_path / "w.safetensors").write_bytes(b"not weights " * (size // 12) + b"." * (size % 12))
    with pytest.raises(CheckpointError, match=f"got {size} bytes that are neither"):
        read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(STATE, path)
    else:
        write_state(STATE, path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="only a part of one"):
        read_state(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth.*can not be read"):
        read_state(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "optimiser": {}}, "got entries epoch, optimiser"),
        ({}, "no entry at all"),
        ([torch.ones(1)], "got a list"),
        ({"params": {}}, "no entry at all"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=words):
        read_state(tmp_path / "w.pth")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="tensor 'a' holds numbers that are not finite"):
        read_state(tmp_path / "w.pth")


def test_a_misfit_names_missing_surplus_and_misshapen_tensors():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    state = {
        "0.weight": torch.ones(2, 4),
        "0.bias": torch.ones(2),
        "1.weight": torch.ones(3, 2),
        "extra": torch.ones(1),
    }
    before = net[0].bias.clone()
    with pytest.raises(CheckpointError) as caught:
        load_strict(net, state, "w.pth as test")
    assert str(caught.value) == (
        "w.pth as test: wanted exactly the network's 4 tensors, got 1 missing (1.bias), 1 surplus (extra), "
        "1 of another shape (0.weight 2x4 instead of 2x2); "
        "give the file that belongs to this network or correct the preset's options"
    )
    assert torch.equal(net[0].bias, before)


def test_long_lists_of_names_are_cut():
    with pytest.raises(CheckpointError, match=r"8 surplus \(k0, k1, k2, k3, k4 and 3 more\)"):
        load_strict(nn.Identity(), {f"k{i}": torch.ones(1) for i in range(8)}, "w")


@pytest.mark.parametrize("kind", ["unet", "srcnn", "swinir", "lama"])
def test_a_network_whose_file_lacks_one_tensor_and_has_one_too_many_is_refused(tmp_path, kind):
    spec = golden.network_spec(kind)
    state = read_state(golden.GOLDEN / spec.file)
    gone = next(k for k in state if k.endswith(".weight"))
    state["surplus.weight"] = state.pop(gone)
    write_state(state, tmp_path / "w.safetensors", half=False)
    with pytest.raises(CheckpointError, match=r"1 missing .*1 surplus \(surplus\.weight\)"):
        load_network(spec, tmp_path / "w.safetensors")


@pytest.mark.parametrize("kind", ["unet", "srcnn", "swinir", "lama"])
def test_a_wrapped_prefixed_half_file_loads_to_nearly_the_same_network(tmp_path, kind):
    spec = golden.network_spec(kind)
    state = read_state(golden.GOLDEN / spec.file)
    halves = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"state_dict": halves}, tmp_path / "w.pth")
    net = load_network(spec, tmp_path / "w.pth")
    assert not net.training
    for name, tensor in net.state_dict().items():
        assert tensor.device.type == "cpu"
        assert tensor.dtype in (torch.float32, torch.int64)
        wanted = golden.network(kind).state_dict()[name]
        torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-6)
