"""The dry run of a training: what it would do, and how far it is."""

import json

from pipeline.io import store
from pipeline.networks import memory, presets
from pipeline.training.checkpoint import CHECKPOINT, load_checkpoint
from pipeline.training.plan import TrainingPlan
from pipeline.training.progress import duration


def describe(plan: TrainingPlan, number: int) -> str:
    """What `number` workers would train, and the steps already done."""
    step, loop = steps_done(plan), plan.loop
    epochs = loop.steps * loop.batch / len(plan.faces)
    shards = len({face.shard for face in plan.faces})
    at_once = max(loop.batch // number // loop.accumulate, 1)
    channels = 3 + presets.unknown_channels(plan.spec)
    network, face = memory.bytes_of_training(plan.spec, plan.side, channels, loop.precision)
    lines = [
        f"network     {plan.spec.kind}, {network / memory.BYTES_PER_WEIGHT / 1e6:.2f} M parameters, "
        f"{plan.side}x{plan.side} faces; starts from "
        f"{f'{plan.init.file}, sha256 {plan.init.sha256}' if plan.init else 'random weights'}",
        f"faces       {len(plan.faces):,} in {shards} shards; {len(plan.held_out):,} held out for validation",
        f"training    {loop.steps:,} steps of {loop.batch} faces: each face {epochs:,.1f} times",
        f"memory      about {size_of(network + at_once * face)} of each worker: {size_of(network)} for the network "
        f"and {size_of(face)} for each of the {at_once} faces it computes at once ({loop.precision}; --accumulate "
        "lowers it)",
        f"output      {plan.output}: {f'continues from step {step:,}' if step else 'nothing there yet'}",
    ]
    if plan.left_out:
        some = next(iter(plan.left_out.items()))
        lines.insert(2, f"left out    {len(plan.left_out):,} members of the shards, as {some[0]}: {some[1]}")
    rate = last_rate(plan)
    if rate:
        lines.append(
            f"time left   {duration((loop.steps - step) * loop.batch / rate)} at the last {rate:,.1f} faces/s"
        )
    return "\n".join(lines)


def size_of(size: int) -> str:
    """A number of bytes as text."""
    return f"{size / 2**30:,.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:,.0f} MiB"


def steps_done(plan: TrainingPlan) -> int:
    """Steps of the checkpoint in the output, 0 without one."""
    state = load_checkpoint(store.join(plan.output, CHECKPOINT))
    return int(state["step"]) if state else 0


def last_rate(plan: TrainingPlan) -> float | None:
    """Faces per second in the last line of the output's metrics.jsonl; None without one."""
    uri = store.join(plan.output, "metrics.jsonl")
    reports = [json.loads(line) for line in store.read_bytes(uri).splitlines()] if store.exists(uri) else []
    rates = [r["faces_per_second"] for r in reports if r.get("faces_per_second")]
    return rates[-1] if rates else None
