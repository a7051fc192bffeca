"""The environment of a result names what its last bits depend on."""

import pytest
import torch

from pipeline.networks import environment as module
from pipeline.networks.environment import environment
from pipeline.records.marker import environment_text


def test_on_a_cpu_it_names_processor_instructions_and_number_type():
    found = environment(torch.device("cpu"), torch.bfloat16, 4, is_compiled=False)
    assert found["device"] and found["torch"] == torch.__version__ and found["precision"] == "bfloat16"
    assert found["kernels"].split()[0] == torch.backends.cpu.get_cpu_capability()
    # the number of faces of a call changes no bit there
    assert found == environment(torch.device("cpu"), torch.bfloat16, 1, is_compiled=False)


@pytest.fixture
def card(monkeypatch) -> torch.device:
    """A GPU by name."""
    monkeypatch.setattr(module, "_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91400)
    return torch.device("cuda")


@pytest.mark.parametrize("other", [{"batch": 32}, {"is_compiled": False}, {"slots_agree": False}])
def test_on_a_gpu_faces_of_a_call_and_its_form_belong_to_it(card, other):
    usual = {"batch": 64, "is_compiled": True}
    found = environment(card, torch.float16, **usual)
    assert found["device"] == "NVIDIA H200" and "cuDNN 91400" in found["kernels"]
    assert environment(card, torch.float16, **usual | other) != found


def test_it_is_shown_in_a_line(card):
    text = environment_text(environment(card, torch.float16, 64, is_compiled=True))
    assert text.startswith(f"NVIDIA H200, torch {torch.__version__}, CUDA ")
    assert text.endswith(", cuDNN 91400, float16, faces of a call 64, compiled yes")
    assert environment_text({}) == ""
