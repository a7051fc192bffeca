"""Parts of tools/gpu_check.py: how fast the engine is on a device. Each yields the rows of its measurements."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from gpu_setting import (
    BATCH_IN_USE,
    COMPILING,
    SCHEDULE,
    START_STEP,
    STEPS,
    OutOfTime,
    Row,
    Setting,
    graphed,
    job,
    milliseconds,
    release,
    run,
)
from torch import Tensor, nn

from pipeline.diffusion.engine import Engine
from pipeline.diffusion.schedule import chain_from
from pipeline.diffusion.treatment import Treatment
from pipeline.networks.inference_nafnet import InferenceNAFNet
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.precision import as_official, fix_kernels
from pipeline.networks.presets import PRESETS, NetworkSpec, find_preset, load_network
from pipeline.networks.roofline import count_call


def timing(s: Setting) -> Iterator[Row]:
    """One call of the prior in its forms, and the engine's work, in ms a face and call."""
    yield from _plain_calls(s)
    fix_kernels(s.device)
    for norms in s.norms if s.on_gpu else ("eager",):
        network = s.inference(norms)
        for batch in s.batches:
            yield from _graphed_call(
                s, network, f"{norms} norms, {str(s.half)[6:]}, graph, batch {batch}", batch
            )
    few, most = s.calls[:-1], s.calls[-1]
    for calls in few:
        for batch in s.batches:
            yield from _engine(s, s.inference(), "eager", batch, calls)
    if s.on_gpu and not s.small:
        for batch in (BATCH_IN_USE, 32):
            network = s.compiled()
            what = f"compiled, {str(s.half)[6:]}, graph, batch {batch}"
            yield from _graphed_call(s, network, what, batch, COMPILING)
            for calls in s.calls:
                yield from _engine(s, network, "compiled", batch, calls)
    for batch in s.batches:
        yield from _engine(s, s.inference(), "eager", batch, most)


def _measured(s: Setting, what: str, seconds: float, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a measurement of about so many seconds, or one that says why there are none."""
    try:
        s.allow(what, seconds)
        yield from rows()
    except OutOfTime as error:
        yield Row(what, f"skipped: {error}")
    except torch.OutOfMemoryError:
        yield Row(what, "out of memory")
    finally:
        release(s)


def _graphed_call(
    s: Setting, network: Callable[[Tensor, Tensor], Tensor], what: str, batch: int, seconds: float = 5
) -> Iterator[Row]:
    def rows() -> Iterator[Row]:
        with torch.inference_mode():
            found = milliseconds(graphed(network, s, batch), s) / batch
        yield Row(what, found, "ms a face and call")

    return _measured(s, what, 0.2 if s.small else seconds, rows)


def _plain_calls(s: Setting) -> Iterator[Row]:
    """The prior as the official program calls it, without a graph."""
    modes = [("float32", False), *([("float32, TF32", True), ("float16", True)] if s.on_gpu else [])]
    for mode, tf32 in modes:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.deterministic = False
        network = as_official(s.prior, torch.float16 if mode == "float16" else torch.float32)
        for batch in s.batches:
            what = f"plain network, {mode}, batch {batch}"
            call = partial(network, *s.inputs(batch))

            def rows(
                what: str = what, batch: int = batch, call: Callable[[], object] = call
            ) -> Iterator[Row]:
                with torch.inference_mode():
                    found = milliseconds(call, s, 3) / batch
                yield Row(what, found, "ms a face and call")

            yield from _measured(s, what, 0.15 * batch if s.on_gpu else 0.2, rows)


def _engine(
    s: Setting, prior: Callable[[Tensor, Tensor], Tensor], form: str, batch: int, calls: int
) -> Iterator[Row]:
    """Wall time of faces that fill two workers of a batch each, as a run on a GPU has them."""
    what = f"engine, {form}, batch {batch}, {calls} calls"
    slots = 2 * batch

    def rows() -> Iterator[Row]:
        engine = s.engine(batch, prior, slots)
        jobs = [job(i, s.side, chain_from(SCHEDULE, START_STEP, calls=calls)) for i in range(slots)]
        run(engine, [replace(one, treatment=Treatment("estimator")) for one in jobs])
        began = time.perf_counter()
        run(engine, jobs)
        taken = time.perf_counter() - began
        engine.close()
        yield Row(what, taken / slots / calls * 1e3, "ms a face and call")
        yield Row(what, slots / taken, "faces/s")

    # at 7 ms a face and call, and a few seconds to start
    return _measured(s, what, 0.2 if s.small else 5 + 0.007 * slots * calls, rows)


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
        cost = count_call(s.prior_spec, s.side, s.half, batch)
        unit, each = "ms a face and call", 1e3 / batch
        yield Row("floor: arithmetic", cost.flops / s.ceilings.matmul * each, unit)
        yield Row("floor: bytes of eager kernels", cost.bytes / s.ceilings.copy * each, unit)
        floor = cost.floor(s.ceilings) * each
        yield Row("floor: eager kernels, operation by operation", floor, unit)
        for kind, share in cost.shares(s.ceilings).items():
            yield Row(f"floor: {kind}", share * floor, unit)
    x, t = s.inputs(batch)
    for norms in s.norms if s.on_gpu else ("eager",):
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
