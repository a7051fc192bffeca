"""What tools/gpu_check.py works with: the device, its networks and faces, the time that is left, a row of the report.

Networks of the published size have random weights: how long a call takes does not depend on them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.diffusion.engine import Engine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import Chain, make_schedule
from pipeline.diffusion.treatment import Treatment
from pipeline.networks.compiled import CompiledNetwork, compiled
from pipeline.networks.drawn import drawn_network
from pipeline.networks.inference_unet import InferenceUNet, Norms
from pipeline.networks.precision import in_precision
from pipeline.networks.presets import NetworkSpec, find_preset
from pipeline.networks.roofline import Ceilings
from pipeline.networks.unet import UNet
from tests import golden_data

SCHEDULE = make_schedule("ddim250")
STEPS = [int(t) for t in SCHEDULE.t]
# N of the published networks' method
START_STEP = 400
HALF = torch.float16
# batch of the published presets on a GPU
BATCH_IN_USE = 16
# Seconds to compile the prior of 512 px for one batch.
COMPILING = 90


@dataclass(frozen=True)
class Row:
    """One line of the report. passed: None where nothing is asserted."""

    what: str
    value: float | str
    unit: str = ""
    passed: bool | None = None


class OutOfTime(Exception):
    """The next measurement would take longer than the seconds that are left."""


@dataclass
class Setting:
    """What is checked where, and until when."""

    device: torch.device
    # tiny networks and few repetitions: that every part works, not what it measures
    small: bool
    # time.monotonic() at which the check ends
    deadline: float
    # folder of the report, and of what torch.compile makes
    out: Path
    # of the matrix products and copies measured first
    ceilings: Ceilings | None = field(default=None)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def batches(self) -> tuple[int, ...]:
        """Faces of one call of the prior."""
        return (1, 2) if self.small else (1, 8, BATCH_IN_USE, 32, 64)

    @property
    def calls(self) -> tuple[int, ...]:
        """Network calls of a chain, the fewest first, so that most is known when time runs out."""
        return (2, 3) if self.small else (10, 20, 100)

    @property
    def side(self) -> int:
        return 32 if self.small else 512

    @property
    def prior_spec(self) -> NetworkSpec:
        return golden_data.network_spec("unet") if self.small else find_preset("difface-512-srcnn").prior

    @cached_property
    def prior(self) -> UNet:
        """The prior on the device, the same in every process."""
        network = drawn_network(self.prior_spec)
        assert isinstance(network, UNet)
        return network.to(self.device)

    @cached_property
    def estimator(self) -> Callable[[Tensor], Tensor]:
        spec = golden_data.network_spec("srcnn") if self.small else find_preset("difface-512-srcnn").estimator
        return in_precision(drawn_network(spec).to(self.device), self.device, self.half)

    @property
    def half(self) -> torch.dtype:
        """The number type that is measured: CPUs convolve in float32."""
        return HALF if self.on_gpu else torch.float32

    @cached_property
    def norms(self) -> Sequence[Norms]:
        """The forms of the prior's norms that run here."""
        try:
            InferenceUNet(deepcopy(golden_data.network("unet")).to(self.device), [0], norms="triton")
        except ValueError:
            return ("eager",)
        return ("eager", "triton")

    def inference(self, norms: Norms = "eager", dtype: torch.dtype | None = None) -> InferenceUNet:
        return InferenceUNet(self.prior, STEPS, dtype or self.half, norms)

    def compiled(self) -> CompiledNetwork:
        """The prior as a run on a GPU has it. Former ones no longer count towards dynamo's limit of recompilations."""
        torch._dynamo.reset()
        network = compiled(self.inference(), self.device, self.out / "inductor")
        assert isinstance(network, CompiledNetwork)
        return network

    def inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """x and t of one call, the same in every process."""
        x = torch.randn(batch, 3, self.side, self.side, generator=torch.Generator().manual_seed(1))
        return x.to(self.device), torch.tensor(STEPS, device=self.device)[torch.arange(batch) * 7 % 100]

    def engine(self, batch: int, prior: Callable[[Tensor, Tensor], Tensor], slots: int = 0) -> Engine:
        return Engine(
            self.estimator, prior, SCHEDULE, self.side, batch, slots, self.device,
            estimator_batch=max(batch // 4, 1),
        )  # fmt: skip

    def allow(self, what: str, seconds: float) -> None:
        """Raises OutOfTime where the next measurement, of about so many seconds, does not end in time."""
        left = self.deadline - time.monotonic()
        if seconds > left:
            raise OutOfTime(f"{what} takes about {seconds:.0f} s, and {max(left, 0):.0f} s are left")


def milliseconds(call: Callable[[], object], setting: Setting, repeats: int = 8) -> float:
    """The median time of a call, by CUDA's events on a GPU."""
    call()
    if not setting.on_gpu:
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1e3
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def graphed(
    network: Callable[[Tensor, Tensor], Tensor], setting: Setting, batch: int
) -> Callable[[], object]:
    """A call of `batch` faces as a CUDA graph; on a CPU the call itself."""
    x, t = setting.inputs(batch)
    if not setting.on_gpu:
        return lambda: network(x, t)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(x, t)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(x, t)
    return graph.replay


def release(setting: Setting) -> None:
    if setting.on_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def job(number: int, side: int, chain: Chain, hold: float = 0.0) -> FaceJob:
    crop = np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), 0.5, Treatment("chain", chain, hold))


def run(engine: Engine, jobs: Sequence[FaceJob], seconds: float = 300) -> list[bytes]:
    """The restored faces. Raises what a face's future raises."""
    futures = [engine.submit(one) for one in jobs]
    return [future.result(timeout=seconds).restored.tobytes() for future in futures]


def itself(s: Setting, *arguments: str, **environment: str) -> str:
    """What another process of this check prints."""
    script = Path(__file__).with_name("gpu_check.py")
    command = [sys.executable, str(script), "--device", str(s.device), *(["--small"] if s.small else [])]
    command += ["--seconds", str(s.deadline - time.monotonic()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stdout
