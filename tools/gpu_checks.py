"""Parts of tools/gpu_check.py: whether the engine is right on a device. Each yields the rows of its checks."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from gpu_setting import (
    BATCH_IN_USE,
    COMPILING,
    HALF,
    SCHEDULE,
    START_STEP,
    STEPS,
    Row,
    Setting,
    itself,
    job,
    release,
    run,
)
from torch import Tensor, nn

from pipeline.diffusion.call_shapes import CallShapes
from pipeline.diffusion.difface import restore
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.graphed_slots import GraphedSlots, make_slots
from pipeline.diffusion.noise import DRAW_X_N
from pipeline.diffusion.schedule import Chain, chain_from, make_schedule
from pipeline.networks.compiled import CompiledNetwork
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.precision import fix_kernels
from pipeline.networks.roofline import measure_ceilings
from tests import golden_data


def device(s: Setting) -> Iterator[Row]:
    """What it runs on, and the ceilings of matrix products and copies."""
    yield Row("device", torch.cuda.get_device_name(s.device) if s.on_gpu else "cpu")
    yield Row("torch", torch.__version__)
    yield Row("norms that run here", ", ".join(s.norms))
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
    networks = {norms: InferenceUNet(unet, STEPS, HALF, norms) for norms in s.norms}
    torch._dynamo.reset()
    fast = {
        f"{name}, compiled": CompiledNetwork(network, fullgraph=True) for name, network in networks.items()
    }
    with torch.inference_mode():
        wanted = networks["eager"](x, t)
        for name, network in (networks | fast).items():
            error = float((network(x, t) - wanted).norm() / wanted.norm())
            yield Row(f"{name}: relative difference from eager", error, passed=error < 0.01)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    held = graphs == len(fast) and all(network.is_compiled for network in fast.values())
    yield Row("networks that run compiled", f"{graphs} of {len(fast)}", passed=held)
    for name, network in (networks | fast).items():
        kind = type(make_slots(network, 32, 4, 4, s.device, CallShapes()))
        yield Row(f"{name}: form of the step", kind.__name__, passed=kind is GraphedSlots)


def golden(s: Setting) -> Iterator[Row]:
    """The recordings of the official program: the largest difference in float32, the distance in half precision."""
    types = (torch.float32,) if not s.on_gpu else (torch.float32, HALF, torch.bfloat16)
    names = golden_data.blind_names()
    for name in [n for n in names if "srcnn" in n] if s.small else names:
        case = golden_data.case(name)
        try:
            estimator = (
                deepcopy(golden_data.network(case.estimator)).to(s.device)
                if case.estimated
                else nn.Identity()
            )
        except ImportError as error:
            yield Row(name, f"skipped: {error}")
            continue
        schedule = make_schedule(case.respacing)
        chain = Chain(case.start, tuple(range(case.start - 1, -1, -1)))
        bank = golden_data.noise_bank()[:, : len(case.input)].to(s.device)
        drawn = {DRAW_X_N: 0} | {int(schedule.t[i]): 1 + k for k, i in enumerate(chain.indices)}
        prior = deepcopy(golden_data.network("unet")).to(s.device)
        for dtype in types:
            for norms in s.norms if s.on_gpu else ("eager",):
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
    if "triton" not in s.norms:
        yield from _interpreted_kernels(s)
        return
    from pipeline.networks.triton_norms import add_biased, group_norm

    shapes = (
        [((32,), 8), ((32, 64), 5)]
        if s.small
        else [((32,), 512), ((32, 64), 256), ((512, 256), 32), ((96,), 37)]
    )
    for widths, side in shapes:
        for dtype, limit in ((torch.float32, 1e-6), (HALF, 1e-3), (torch.bfloat16, 8e-3)):
            drawn = torch.Generator().manual_seed(0)
            sources = [torch.randn(1, w, side, side, generator=drawn).to(s.device, dtype) for w in widths]
            weight, shift = (torch.randn(sum(widths), generator=drawn).to(s.device) for _ in range(2))
            same = [x.repeat(4, 1, 1, 1).contiguous(memory_format=torch.channels_last) for x in sources]
            found = group_norm(
                same[0], same[1] if len(same) > 1 else None, weight, shift, None, None, 32, 1e-5, True
            )
            wanted = F.silu(
                F.group_norm(torch.cat(sources, 1).double(), 32, weight.double(), shift.double(), 1e-5)
            )
            total = add_biased(same[0], same[0], None, weight[: widths[0]])
            error = float((found[0].double() - wanted[0]).norm() / wanted.norm())
            what = f"{'+'.join(map(str, widths))} channels, {side} px, {str(dtype)[6:]}"
            yield Row(f"{what}: relative error", error, passed=error < limit)
            equal = torch.equal(found, found[:1].expand_as(found)) and torch.equal(
                total, total[:1].expand_as(total)
            )
            yield Row(f"{what}: positions agree", str(equal), passed=equal)


def _interpreted_kernels(s: Setting) -> Iterator[Row]:
    """The same in a process whose Triton interprets, where there is one: Triton decides it when it is imported."""
    folder = s.out / "interpreted"
    if os.environ.get("TRITON_INTERPRET") or not find_spec("triton"):
        yield Row("Triton norms", "skipped: no CUDA device and no Triton")
        return
    itself(s, "--parts", "kernels", "--out", str(folder), TRITON_INTERPRET="1")
    for row in json.loads((folder / "check.json").read_text())["rows"]:
        yield Row(row["what"] + " (interpreted)", row["value"], row["unit"], row["passed"])


def forms_in_use(s: Setting) -> Iterator[tuple[str, Callable[[Tensor, Tensor], Tensor], int]]:
    """Each form of the prior with each batch that it is called in."""
    for norms in s.norms:
        network = s.inference(norms)
        for batch in s.batches:
            yield f"{norms}, batch {batch}", network, batch
    if s.on_gpu and s.deadline - time.monotonic() > COMPILING and not s.small:
        yield f"compiled, batch {BATCH_IN_USE}", s.compiled(), BATCH_IN_USE


def digests(s: Setting) -> dict[str, str]:
    """The bits of one face in the first slot of a call, by form and batch."""
    fix_kernels(s.device)
    found = {}
    with torch.inference_mode():
        for what, network, batch in forms_in_use(s):
            out = network(*s.inputs(batch))[0].cpu().numpy()
            found[what] = hashlib.sha256(out.tobytes()).hexdigest()
    return found


def bits(s: Setting) -> Iterator[Row]:
    """A face's bits in every slot, beside other neighbours, beside NaN, in a second process, alone in the engine."""
    fix_kernels(s.device)
    here = {}
    for what, network, batch in forms_in_use(s):
        s.allow(f"bits of {what}", 0.2 if s.small else 5)
        x, t = s.inputs(batch)
        poisoned = x.clone()
        poisoned[1:] = torch.nan
        with torch.inference_mode():
            company = network(x, t)[0]
            everywhere = network(x[:1].expand_as(x).contiguous(), t[:1].expand_as(t).contiguous())
            beside_nan = network(poisoned, t)[0]
        here[what] = hashlib.sha256(company.cpu().numpy().tobytes()).hexdigest()
        slots = sum(torch.equal(one, company) for one in everywhere)
        yield Row(f"{what}: slots of the same bits", f"{slots} of {batch}", passed=slots == batch)
        equal = torch.equal(beside_nan, company)
        yield Row(f"{what}: beside faces that are NaN", str(equal), passed=equal)
        release(s)
    s.allow("a second process", 1 if s.small else 40)
    there = json.loads(itself(s, "--digests", "--out", str(s.out)).splitlines()[-1])
    for what, digest in there.items():
        equal = here.get(what) == digest
        yield Row(f"{what}: in a second process", str(equal), passed=equal)
    for batch in s.batches:
        s.allow(f"the engine at batch {batch}", 10 if s.on_gpu else 1)
        jobs = [job(i, s.side, chain_from(SCHEDULE, START_STEP, calls=2)) for i in range(batch + 1)]
        engine = s.engine(batch, s.inference())
        alone, company = run(engine, jobs[:1])[0], run(engine, jobs[::-1])[-1]
        engine.close()
        yield Row(
            f"engine, batch {batch}: alone and in company", str(alone == company), passed=alone == company
        )
        release(s)


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
