"""Number types of the networks."""

import pytest
import torch
from torch import nn

from pipeline.networks.precision import as_official, in_precision, number_type
from tests import golden_data


class Noted(nn.Module):
    """Notes the number type that its matrix products have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(4, 4), []

    def forward(self, x):
        y = self.linear(x)
        self.seen.append(y.dtype)
        return y.float()


class Fourier(Noted):
    needs_float32 = True


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_computes_in_the_number_type_unless_it_needs_float32(dtype):
    cpu, x = torch.device("cpu"), torch.ones(1, 4)
    plain, fourier = Noted(), Fourier()
    in_precision(plain, cpu, dtype)(x)
    in_precision(fourier, cpu, dtype)(x)
    assert plain.seen == [dtype] and fourier.seen == [torch.float32]


def test_lama_has_fourier_transforms_and_says_so():
    from pipeline.networks.lama import LaMa

    assert LaMa.needs_float32


def test_auto_is_float16_on_a_gpu_and_what_the_processor_multiplies_in_on_a_cpu(monkeypatch):
    assert number_type("auto", on_cpu=False) == torch.float16
    for amx, avx512, wanted in (
        (True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx512=avx512: avx512)
        assert number_type("auto", on_cpu=True) == wanted
    assert number_type("bfloat16", on_cpu=False) == torch.bfloat16


@torch.inference_mode()
def test_the_official_programs_half_precision_gives_its_recording():
    recorded, unet = golden_data.arrays("unet_forward"), golden_data.network("unet")
    x, t = recorded["x"], torch.full((2,), 396)
    wanted, full = golden_data.arrays("unet_fp16")["out_t396"], unet(x, t)
    got = as_official(unet, torch.float16)(x, t)
    rounding = (wanted - full).square().mean().sqrt()
    assert got.dtype == torch.float32
    assert 0 < (got - full).square().mean().sqrt() < 1.5 * rounding
    assert as_official(unet, torch.float32) is unet


def test_a_number_type_is_that_of_a_copy():
    unet = golden_data.network("unet")
    as_official(unet, torch.bfloat16)
    assert {p.dtype for p in unet.parameters()} == {torch.float32}
