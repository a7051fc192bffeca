"""The Triton norms where there is no GPU: in Triton's interpreter, and compiled for one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.networks.inference_unet import InferenceUNet
from tests import golden_data

triton = pytest.importorskip("triton", reason="this build of torch has no Triton")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_kernels_are_right_in_the_interpreter():
    """In a process of its own: Triton decides when it is imported whether it interprets."""
    tests = Path(__file__).with_name("interpreted_triton_norms.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--numprocesses", "0", str(tests)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_the_kernels_compile_for_an_h100_and_load_16_bytes_at_once():
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.networks import triton_norms

    pixels, width = 512 * 512, 32
    of = triton_norms.tiling(pixels, width, 2)
    shape = {"HW": pixels, "C": width}
    tile = shape | {"FIRST": 0, "WIDTH": width, "BLOCK": of.block, "ROWS": of.rows}
    group = {
        "GROUP": 1, "GROUP_PADDED": 1, "TILE": of.rows * of.steps, "TILES": of.tiles, "TILES_PADDED": of.tiles,
        "BY_ROW": True, "BIASED": True,
    }  # fmt: skip
    for kernel, constants, types in (
        (triton_norms._moments, tile | {"STEPS": of.steps}, {"x": "*fp16", "moments": "*fp32"}),
        (triton_norms._apply, tile | {"SILU": True}, {"x": "*fp16", "affine": "*fp32", "y": "*fp16"}),
        (
            triton_norms._affine,
            shape | group,
            dict.fromkeys(("moments", "affine"), "*fp32")
            | dict.fromkeys(("weight", "shift", "before"), "*fp16")
            | {"rows": "*i64", "eps": "fp32"},
        ),
        (
            triton_norms._add,
            {"C": width, "BLOCK": 4096, "THIRD": True},
            dict.fromkeys(("one", "two", "three", "y"), "*fp16") | {"bias": "*fp32", "count": "i32"},
        ),
    ):
        names = kernel.arg_names
        aligned = {
            (i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if types.get(n, "").startswith("*")
        }
        source = ASTSource(
            kernel,
            {name: types.get(name, "constexpr") for name in names},
            {(names.index(name),): value for name, value in constants.items()},
            aligned,
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=triton_norms._OPTIONS)
        assert compiled.asm["cubin"]
        if "BLOCK" in constants:
            assert "ld.global.v4" in compiled.asm["ptx"]


def test_without_a_gpu_or_the_interpreter_they_are_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, on which they run")
    with pytest.raises(ValueError, match="CUDA device or TRITON_INTERPRET=1"):
        InferenceUNet(golden_data.network("unet"), [0], norms="triton")
