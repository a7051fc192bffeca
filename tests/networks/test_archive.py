"""Files that hold more than weights: their tensors are read, and nothing else of them."""

import os
import warnings
import zipfile

import pytest
import torch
from torch import nn

from pipeline.io.weights import resolve
from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import CheckpointError, read_state


@pytest.fixture
def network():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(inner, nn.Linear(4, 2).half()).eval()


def test_a_torchscript_program_gives_its_state_dict(network, tmp_path):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(network), tmp_path / "program.pt")
    found = read_archive(tmp_path / "program.pt")
    expected = network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in expected.items())
    assert found["1.weight"].dtype == torch.float32


class Command:
    """What a hostile file would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_that_a_file_names_is_run(network, tmp_path):
    torch.save({"state_dict": network.state_dict(), "extra": Command(tmp_path / "made")}, tmp_path / "a.pt")
    assert read_archive(tmp_path / "a.pt").keys() == network.state_dict().keys()
    assert not (tmp_path / "made").exists()


def test_a_view_and_its_storage_are_told_apart(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save({"rows": whole[1:], "columns": whole.T}, tmp_path / "a.pt")
    found = read_archive(tmp_path / "a.pt")
    assert torch.equal(found["rows"], whole[1:]) and torch.equal(found["columns"], whole.T)


def test_other_weights_files_are_read_as_ever():
    path = resolve("small_srcnn.safetensors").path
    assert read_archive(path).keys() == read_state(path).keys()


def test_a_damaged_file_is_refused(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as good, zipfile.ZipFile(tmp_path / "b.pt", "w") as bad:
        for name in good.namelist():
            if not name.endswith("data/0"):
                bad.writestr(name, good.read(name))
    with pytest.raises(CheckpointError, match=r"b\.pt"):
        read_archive(tmp_path / "b.pt")
