"""The parts of tools/gpu_check.py: each checks or measures one side of the engine on a device, and yields its rows.

Networks of the published size have random weights: how long a call takes does not depend on them, but zeros would run
faster, so that the layers which training begins with at zero are drawn as well.
"""

import hashlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.diffusion.call_shapes import CallShapes
from pipeline.diffusion.difface import restore
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.graphed_slots import GraphedSlots, make_slots
from pipeline.diffusion.noise import DRAW_X_N, noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import Chain, chain_from, make_schedule
from pipeline.diffusion.treatment import Treatment
from pipeline.networks.inference_nafnet import InferenceNAFNet
from pipeline.networks.inference_unet import InferenceUNet, Norms
from pipeline.networks.precision import fix_kernels, in_precision
from pipeline.networks.presets import PRESETS, NetworkSpec, build, find_preset, load_network
from pipeline.networks.roofline import Ceilings, count_call, measure_ceilings
from pipeline.networks.unet import UNet
from tests import golden_data

SCHEDULE = make_schedule("ddim250")
STEPS = [int(t) for t in SCHEDULE.t]
# N of the published networks' method
START_STEP = 400
HALF = torch.float16


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
    # of the matrix products and copies measured first
    ceilings: Ceilings | None = field(default=None)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def batches(self) -> tuple[int, ...]:
        """Faces of one call of the prior."""
        return (1, 2) if self.small else (1, 8, 32, 64)

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

    def norms(self) -> Sequence[Norms]:
        """The forms of the prior that run here."""
        try:
            InferenceUNet(golden_data.network("unet").to(self.device), [0], norms="triton")
        except ValueError:
            return ("eager",)
        finally:
            golden_data.network("unet").cpu()
        return ("eager", "triton")

    def inference(self, norms: Norms = "eager", dtype: torch.dtype | None = None) -> InferenceUNet:
        return InferenceUNet(self.prior, STEPS, dtype or self.half, norms)

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


def drawn_network(spec: NetworkSpec) -> nn.Module:
    """A network of random weights, none of them zero."""
    torch.manual_seed(0)
    network = build(spec).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


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


def graphed(network: Callable[[Tensor, Tensor], Tensor], setting: Setting, batch: int) -> Callable[[], object]:
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


# -- the parts -----------------------------------------------------------------------------------------------------------


def device(s: Setting) -> Iterator[Row]:
    """What it runs on, and the ceilings of matrix products and copies."""
    yield Row("device", torch.cuda.get_device_name(s.device) if s.on_gpu else "cpu")
    yield Row("torch", torch.__version__)
    yield Row("norms that run here", ", ".join(s.norms()))
    s.ceilings = measure_ceilings(s.device.type, s.half, 0.05 if s.small else 1.0)
    yield Row("matrix products", s.ceilings.matmul / 1e12, "TFLOP/s")
    yield Row("copies", s.ceilings.copy / 1e12, "TB/s")


def forms(s: Setting) -> Iterator[Row]:
    """On a GPU the step is a CUDA graph, of the eager network, of Triton's norms, and of the compiled network."""
    if not s.on_gpu:
        yield Row("CUDA graphs, compiled networks", "skipped: they are CUDA's")
        return
    unet = deepcopy(golden_data.network("unet")).to(s.device)
    x, t = torch.randn(4, 3, 32, 32, device=s.device), torch.tensor(STEPS[:4], device=s.device)
    networks = {norms: InferenceUNet(unet, STEPS, HALF, norms) for norms in s.norms()}
    compiled = {f"compiled {name}": torch.compile(n, dynamic=False, fullgraph=True) for name, n in networks.items()}
    with torch.inference_mode():
        wanted = networks["eager"](x, t)
        for name, network in (networks | compiled).items():
            error = float((network(x, t) - wanted).norm() / wanted.norm())
            yield Row(f"{name}: relative difference from eager", error, passed=error < 0.01)
    for name, network in (networks | compiled).items():
        kind = type(make_slots(network, 32, 4, 4, s.device, CallShapes()))
        yield Row(f"{name}: form of the step", kind.__name__, passed=kind is GraphedSlots)


def golden(s: Setting) -> Iterator[Row]:
    """The recordings of the official program: the largest difference in float32, the distance in half precision."""
    types = (torch.float32,) if not s.on_gpu else (torch.float32, HALF, torch.bfloat16)
    names = golden_data.blind_names()
    for name in names[:1] if s.small else names:
        case = golden_data.case(name)
        try:
            estimator = deepcopy(golden_data.network(case.estimator)).to(s.device) if case.estimated else nn.Identity()
        except ImportError as error:
            yield Row(name, f"skipped: {error}")
            continue
        schedule = make_schedule(case.respacing)
        chain = Chain(case.start, tuple(range(case.start - 1, -1, -1)))
        bank = golden_data.noise_bank()[:, : len(case.input)].to(s.device)
        drawn = {DRAW_X_N: 0} | {int(schedule.t[i]): 1 + k for k, i in enumerate(chain.indices)}
        prior = deepcopy(golden_data.network("unet")).to(s.device)
        for dtype in types:
            for norms in s.norms() if s.on_gpu else ("eager",):
                network = InferenceUNet(prior, [int(t) for t in schedule.t], dtype, norms)
                with torch.inference_mode():
                    _, restored = restore(
                        case.input.to(s.device), estimator, network, schedule, chain, case.eta,
                        lambda step, bank=bank, drawn=drawn: bank[drawn[step]],
                    )  # fmt: skip
                error = (restored.cpu() - case.arrays["final"]).double()
                what = f"{name}, {str(dtype)[6:]}, {norms}"
                if dtype == torch.float32:
                    yield Row(what, float(error.abs().max()), "at most", float(error.abs().max()) < 1e-4)
                else:
                    decibels = -10 * float(error.square().mean().log10())
                    yield Row(what, decibels, "dB", decibels > (60 if dtype == HALF else 45))


def kernels(s: Setting) -> Iterator[Row]:
    """The Triton norms against float64, and the same face in every position."""
    if "triton" not in s.norms():
        yield Row("Triton norms", "skipped: no CUDA device, and Triton's interpreter is off (TRITON_INTERPRET=1)")
        return
    from pipeline.networks.triton_norms import add_biased, group_norm

    shapes = [((32,), 8), ((32, 64), 5)] if s.small else [((32,), 512), ((32, 64), 256), ((512, 256), 32), ((96,), 37)]
    for widths, side in shapes:
        for dtype, limit in ((torch.float32, 1e-6), (HALF, 1e-3), (torch.bfloat16, 8e-3)):
            drawn = torch.Generator().manual_seed(0)
            sources = [torch.randn(1, w, side, side, generator=drawn).to(s.device, dtype) for w in widths]
            weight, shift = (torch.randn(sum(widths), generator=drawn).to(s.device) for _ in range(2))
            same = [x.repeat(4, 1, 1, 1).contiguous(memory_format=torch.channels_last) for x in sources]
            found = group_norm(same[0], same[1] if len(same) > 1 else None, weight, shift, None, None, 32, 1e-5, True)
            wanted = F.silu(F.group_norm(torch.cat(sources, 1).double(), 32, weight.double(), shift.double(), 1e-5))
            total = add_biased(same[0], same[0], None, weight[: widths[0]])
            error = float((found[0].double() - wanted[0]).norm() / wanted.norm())
            what = f"{'+'.join(map(str, widths))} channels, {side} px, {str(dtype)[6:]}"
            yield Row(f"{what}: relative error", error, passed=error < limit)
            equal = torch.equal(found, found[:1].expand_as(found)) and torch.equal(total, total[:1].expand_as(total))
            yield Row(f"{what}: positions agree", str(equal), passed=equal)


def digests(s: Setting) -> dict[str, str]:
    """The bits of one face in the first slot of a call, by norms and batch."""
    fix_kernels(s.device)
    found = {}
    with torch.inference_mode():
        for norms in s.norms():
            network = s.inference(norms)
            for batch in s.batches:
                out = network(*s.inputs(batch))[0].cpu().numpy()
                found[f"{norms}, batch {batch}"] = hashlib.sha256(out.tobytes()).hexdigest()
    return found


def bits(s: Setting) -> Iterator[Row]:
    """A face's bits in every slot, beside other neighbours, beside NaN, in a second process, alone in the engine."""
    fix_kernels(s.device)
    for norms in s.norms():
        network = s.inference(norms)
        for batch in s.batches:
            what = f"{norms}, batch {batch}"
            s.allow(f"bits of {what}", 5)
            x, t = s.inputs(batch)
            with torch.inference_mode():
                company = network(x, t)[0]
                everywhere = network(x[:1].expand_as(x).contiguous(), t[:1].expand_as(t).contiguous())
                poisoned = x.clone()
                poisoned[1:] = torch.nan
                beside_nan = network(poisoned, t)[0]
            slots = sum(torch.equal(one, company) for one in everywhere)
            yield Row(f"{what}: slots of the same bits", f"{slots} of {batch}", passed=slots == batch)
            equal = torch.equal(beside_nan, company)
            yield Row(f"{what}: beside a face that is NaN", str(equal), passed=equal)
            release(s)
    s.allow("a second process", 1 if s.small else 40)
    here, there = digests(s), _digests_elsewhere(s)
    for what, digest in here.items():
        equal = there.get(what) == digest
        yield Row(f"{what}: in a second process", str(equal), passed=equal)
    for batch in s.batches:
        s.allow(f"the engine at batch {batch}", 10 if s.on_gpu else 1)
        jobs = [job(i, s.side, chain_from(SCHEDULE, START_STEP, calls=2)) for i in range(batch + 1)]
        engine = s.engine(batch, s.inference())
        alone, company = run(engine, jobs[:1])[0], run(engine, jobs[::-1])[-1]
        engine.close()
        yield Row(f"engine, batch {batch}: alone and in company", str(alone == company), passed=alone == company)
        release(s)


def _digests_elsewhere(s: Setting) -> dict[str, str]:
    script = Path(__file__).with_name("gpu_check.py")
    command = [sys.executable, str(script), "--digests", "--device", str(s.device), *(["--small"] if s.small else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory(s: Setting) -> Iterator[Row]:
    """With half the memory it needs, the engine takes half the slots, and every face comes out."""
    batch = s.batches[-1]
    network = s.inference()
    jobs = [job(i, s.side, chain_from(SCHEDULE, START_STEP, calls=2)) for i in range(2 * batch)]
    logging.getLogger("pipeline.diffusion").setLevel(logging.ERROR)
    if s.on_gpu:
        engine = _engine_without_memory(s, network, batch)
    else:
        limited = _Limited(network, batch // 2)
        engine = s.engine(batch, limited)
        limited.active = True
    try:
        restored = run(engine, jobs)
        engine.close()
    finally:
        if s.on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0, s.device)
    yield Row("slots left", f"{engine.slots} of {batch}", passed=1 <= engine.slots < batch)
    yield Row("faces restored", f"{len(restored)} of {len(jobs)}", passed=len(restored) == len(jobs))


def _engine_without_memory(s: Setting, network: InferenceUNet, batch: int) -> Engine:
    """An engine of `batch` slots in a process that may take about 70 % of what a call of them takes."""
    release(s)
    held = torch.cuda.memory_allocated(s.device)
    torch.cuda.reset_peak_memory_stats(s.device)
    with torch.inference_mode():
        network(*s.inputs(batch))
    needed = torch.cuda.max_memory_allocated(s.device) - held
    release(s)
    total = torch.cuda.get_device_properties(s.device).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 0.7 * needed) / total, s.device)
    return s.engine(batch, network)


class _Limited:
    """A prior that has memory for so many faces; on a CPU, where memory can not be withheld."""

    def __init__(self, network: InferenceUNet, most: int) -> None:
        self.network, self.most, self.active = network, most, False

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.active and len(x) > self.most:
            raise torch.OutOfMemoryError(f"a call of {len(x)} faces, with memory for {self.most}")
        return self.network(x, t)


def timing(s: Setting) -> Iterator[Row]:
    """One call of the prior in its forms, and the engine, in ms a face and call."""
    yield from _plain_calls(s)
    fix_kernels(s.device)
    with torch.inference_mode():
        for norms in s.norms() if s.on_gpu else ("eager",):
            yield from _calls(s, s.inference(norms), f"inference network, {norms} norms, {str(s.half)[6:]}, graph", 5)
    yield from _engine_calls(s)
    if s.on_gpu:
        with torch.inference_mode():
            # a compiled network is compiled for each batch
            compiled = torch.compile(s.inference(), dynamic=False)
            yield from _calls(s, compiled, "inference network, compiled, graph", 90, s.batches[2:3])


def _calls(
    s: Setting, network: Callable[[Tensor, Tensor], Tensor], what: str, seconds: float, batches: Sequence[int] = ()
) -> Iterator[Row]:
    for batch in batches or s.batches:
        s.allow(f"{what}, batch {batch}", seconds if s.on_gpu else 1)
        try:
            yield Row(f"{what}, batch {batch}", milliseconds(graphed(network, s, batch), s) / batch, "ms a face and call")
        except torch.OutOfMemoryError:
            yield Row(f"{what}, batch {batch}", "out of memory")
        release(s)


def _plain_calls(s: Setting) -> Iterator[Row]:
    """The prior as the official program calls it, without a graph."""
    modes = [("float32", False), *([("float32, TF32", True), ("float16", True)] if s.on_gpu else [])]
    for mode, tf32 in modes:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.deterministic = False
        network = official_half(s.prior) if mode == "float16" else s.prior
        for batch in s.batches:
            what = f"plain network, {mode}, batch {batch}"
            s.allow(what, 0.15 * batch if s.on_gpu else 1)
            x, t = s.inputs(batch)
            x = x.half() if mode == "float16" else x
            try:
                with torch.inference_mode():
                    yield Row(what, milliseconds(lambda: network(x, t), s, 3) / batch, "ms a face and call")  # noqa: B023
            except torch.OutOfMemoryError:
                yield Row(what, "out of memory")
            release(s)


def official_half(unet: UNet) -> UNet:
    """The official program's half precision: float16 convolutions of all blocks but the last layer."""
    half = deepcopy(unet)
    for blocks in (half.input_blocks, half.middle_block, half.output_blocks):
        for module in blocks.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.half()
    return half


def _engine_calls(s: Setting) -> Iterator[Row]:
    """Two workers of a batch each on a GPU, as a run has them; wall time of faces that fill them."""
    for batch in s.batches:
        slots = 2 * batch
        a_call = 0.01
        for calls in s.calls:
            what = f"engine, batch {batch}, {calls} calls"
            s.allow(what, 10 + a_call * slots * calls if s.on_gpu else 1)
            engine = s.engine(batch, s.inference(), slots)
            chain = chain_from(SCHEDULE, START_STEP, calls=calls)
            jobs = [job(i, s.side, chain) for i in range(slots)]
            run(engine, [replace(one, treatment=Treatment("estimator")) for one in jobs])
            began = time.perf_counter()
            run(engine, jobs)
            taken = time.perf_counter() - began
            engine.close()
            del engine
            release(s)
            a_call = taken / slots / calls
            yield Row(what, a_call * 1e3, "ms a face and call")
            yield Row(what, slots / taken, "faces/s")


def portrait(s: Setting) -> Iterator[Row]:
    """The shipped preset of 128 px, with its own weights: chains of four calls, held to the estimate."""
    preset = find_preset("portrait")
    fix_kernels(s.device)

    def loaded(spec: NetworkSpec) -> nn.Module:
        return load_network(spec, PRESETS / "weights" / spec.file).to(s.device)

    batch, faces = (preset.lanes_gpu, 1024) if s.on_gpu and not s.small else (2, 2)
    prior, estimator = loaded(preset.prior), loaded(preset.estimator)
    chain = chain_from(SCHEDULE, 252, preset.start_rule, 4)
    jobs = [job(i, preset.side, chain, preset.hold) for i in range(faces)]
    steps = [t for t in STEPS if t <= preset.max_step]
    engine = Engine(
        InferenceNAFNet(estimator, s.half), InferenceUNet(prior, steps, s.half), SCHEDULE, preset.side, batch,
        2 * batch if s.on_gpu else batch, s.device, estimator_batch=max(batch // 4, 1),
    )  # fmt: skip
    run(engine, jobs[:batch])
    began = time.perf_counter()
    run(engine, jobs)
    taken = time.perf_counter() - began
    engine.close()
    yield Row(f"portrait, batch {batch}, 4 calls", faces / taken, "faces/s")


# Classes of kernels by what their names contain; the first that fits.
CLASSES = {
    "norms": ("_moments", "_affine", "_apply", "norm", "moments"),
    "sums with bias": ("_add",),
    "attention": ("attention", "flash", "fmha"),
    "convolutions": ("conv", "fprop", "implicit", "xmma", "cudnn", "winograd"),
    "matrix products": ("gemm", "matmul", "::mm", "bmm", "cublas", "nvjet", "cutlass"),
    "concatenation": ("cat",),
    "upsampling": ("upsample",),
    "elementwise and copies": ("elementwise", "copy", "add", "mul", "silu", "memcpy", "memset", "aten::"),
}


def profile(s: Setting) -> Iterator[Row]:
    """Where the time of one call goes, by class of kernels, beside the floor that work and bytes set."""
    batch = 2 if s.small else 16
    activity = torch.profiler.ProfilerActivity.CUDA if s.on_gpu else torch.profiler.ProfilerActivity.CPU
    fix_kernels(s.device)
    if s.ceilings is not None:
        cost = count_call(s.prior_spec, s.side, s.half)
        unit = "ms a face and call"
        yield Row("floor: arithmetic", cost.flops / s.ceilings.matmul * 1e3, unit)
        yield Row("floor: bytes of eager kernels", cost.bytes / s.ceilings.copy * 1e3, unit)
    x, t = s.inputs(batch)
    for norms in s.norms() if s.on_gpu else ("eager",):
        network = s.inference(norms)
        with torch.inference_mode():
            network(x, t)
            release(s)
            with torch.profiler.profile(activities=[activity]) as found:
                network(x, t)
                release(s)
        sums: dict[str, float] = {}
        for event in found.key_averages():
            microseconds = event.self_device_time_total if s.on_gpu else event.self_cpu_time_total
            name = _class_of(event.key)
            sums[name] = sums.get(name, 0.0) + microseconds / 1e3 / batch
        for name, taken in sorted(sums.items(), key=lambda one: -one[1]):
            yield Row(f"{norms} norms: {name}", taken, "ms a face and call")


def _class_of(kernel: str) -> str:
    name = kernel.lower()
    return next((c for c, signs in CLASSES.items() if any(sign in name for sign in signs)), "other")


# In the order of what is most needed; the seconds that a part takes at least on a GPU.
PARTS: tuple[tuple[Callable[[Setting], Iterator[Row]], float], ...] = (
    (device, 0),
    (forms, 30),
    (golden, 20),
    (kernels, 10),
    (bits, 10),
    (memory, 15),
    (timing, 10),
    (portrait, 10),
    (profile, 10),
)
