"""What a result's last bits depend on beside its settings: the processor, the libraries, and the form of the calls."""

import platform
from functools import cache
from pathlib import Path

import torch


def environment(
    device: torch.device, dtype: torch.dtype, batch: int, is_compiled: bool, slots_agree: bool = True
) -> dict[str, str]:
    """The environment of an engine, by what a reader calls each part. Equal ones give equal bits.

    batch: faces of a call of the prior. is_compiled: whether torch.compile made the prior's kernels. slots_agree:
    whether a face has the same bits in every slot.
    """
    found = {
        "device": _device_name(device),
        "torch": torch.__version__,
        "kernels": _kernels(device),
        "precision": str(dtype).removeprefix("torch."),
    }
    if (
        device.type != "cpu"
    ):  # there the tests of call_shapes.py show that the number of faces has no part in it
        found |= {"faces of a call": str(batch), "compiled": "yes" if is_compiled else "no"}
        if not slots_agree:
            found["bits of a slot"] = "its own"
    return found


@cache
def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _kernels(device: torch.device) -> str:
    """The libraries and instructions that choose and make up the kernels."""
    if device.type == "cuda":
        return f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    units = [name for name, present in _units().items() if present]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *units])


def _units() -> dict[str, bool]:
    """Instructions that multiply in half precision."""
    return {
        "AVX512_BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
