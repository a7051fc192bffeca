"""What the two training commands share: from options to a finished training. Not a command itself."""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline import store, tracking
from pipeline.config import UsageError
from pipeline.networks import zoo
from pipeline.networks.checkpoint import CheckpointError
from pipeline.training import workers
from pipeline.training.loop import (
    LoopConfig,
    Objective,
    TrainingDiverged,
    UnusableCheckpoint,
    load_checkpoint,
)
from pipeline.training.options import TrainingOptions
from pipeline.training.progress import duration
from pipeline.training.samples import FaceAddress, SampleError, Spoil, check_side, find_shards, list_faces
from pipeline.training.validation import Preview

# What the user can put right: one sentence, exit code 2.
REFUSALS = (UsageError, zoo.PresetError, CheckpointError, SampleError, UnusableCheckpoint, store.StoreError)
DONE, UNEXPECTED, REFUSED, INTERRUPTED = 0, 1, 2, 130

# Settings that a training can not change half-way: the samples or the network would be others.
FIXED = ("network", "seed", "batch", "flip", "max_step", "faces")


@dataclass(frozen=True)
class Task:
    """What a training command trains, and on what."""

    spec: zoo.NetworkSpec
    objective: Objective
    preview: Preview
    # makes the estimator's input of a clean face; a prior has none
    spoil: Spoil | None = None


def run(options: TrainingOptions, make_task: Callable[[zoo.Preset], Task]) -> int:
    """Export, describe or train, as the options say. Returns the exit code."""
    try:
        preset = zoo.find_preset(options.preset)
        task = make_task(preset)
        if options.export:
            return export(options, task.spec)
        plan = make_plan(options, task, preset.side)
        check_continues(options, plan)
        if options.dry_run:
            print(describe(plan))
            return DONE
        return fit(options, plan)
    except REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except TrainingDiverged as error:
        print(f"error: {error}", file=sys.stderr)
        return UNEXPECTED
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


def make_plan(options: TrainingOptions, task: Task, side: int) -> workers.TrainingPlan:
    """The plan that travels to the workers; looks at every shard first."""
    faces = found_faces(options.shards or "", side)
    output = absolute(options.output)
    return workers.TrainingPlan(
        spec=task.spec,
        objective=task.objective,
        preview=task.preview,
        loop=LoopConfig(
            steps=options.steps,
            batch=options.batch,
            lr=options.lr,
            lr_final=options.lr_final,
            warmup=options.warmup,
            weight_decay=options.weight_decay,
            clip=options.clip,
            ema=options.ema,
            precision=options.precision,
            log_every=options.log_every,
            checkpoint_every=options.checkpoint_every,
            validate_every=options.validate_every,
            seed=options.seed,
        ),
        faces=tuple(faces),
        held_out=tuple(found_faces(options.validation, side)) if options.validation else (),
        side=side,
        seed=options.seed,
        spoil=task.spoil,
        flip=options.flip,
        output=output,
        validation_faces=options.validation_faces,
        loaders=options.loaders,
        open_tracker=tracker(options, output),
    )


def found_faces(uri: str, side: int) -> list[FaceAddress]:
    """The faces of the shards at `uri`, the first of each shard looked at."""
    faces = list_faces(find_shards(absolute(uri)))
    check_side(faces, side)
    return faces


def tracker(options: TrainingOptions, output: str) -> "partial[tracking.RunTracker] | None":
    """Opens the MLflow run on the worker that reports, the only one that writes to it."""
    if options.mlflow_uri == "none":
        return None
    return partial(
        tracking.RunTracker.open,
        mlflow_uri(options, output),
        options.experiment,
        options.run_name or store.name_of(output),
        params=asdict(options),
        state_uri=store.join(output, "_tracking.json"),
    )


def mlflow_uri(options: TrainingOptions, output: str) -> str:
    """The tracking address, with a file's path made absolute: workers run in folders of their own."""
    uri = options.mlflow_uri or tracking.default_uri(output)
    path = uri.removeprefix("sqlite:///")
    return uri if path == uri or path.startswith("/") else f"sqlite:///{Path(path).absolute()}"


def check_continues(options: TrainingOptions, plan: workers.TrainingPlan) -> None:
    """Remember what is trained here. Raises UsageError when the output holds another training."""
    settings = {
        "network": {"kind": plan.spec.kind} | dict(plan.spec.options),
        "seed": plan.seed,
        "batch": plan.loop.batch,
        "flip": plan.flip,
        "max_step": getattr(plan.objective, "max_step", None),
        "faces": faces_digest(plan.faces),
    }
    uri = store.join(plan.output, "training.json")
    if store.exists(uri):
        before = json.loads(store.read_bytes(uri))
        changed = [name for name in FIXED if before[name] != json.loads(json.dumps(settings[name]))]
        if changed:
            raise UsageError(
                f"{plan.output} holds a training with another {' and '.join(changed)}; "
                "give the options it was started with, or a new --output"
            )
    elif not options.dry_run:
        store.check_writable(plan.output)
        store.write_bytes(uri, json.dumps(settings, indent=1).encode())


def faces_digest(faces: tuple[FaceAddress, ...]) -> str:
    """Names a set of shards by their names and the places of their faces, wherever the shards lie."""
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{store.name_of(face.shard)} {face.offset} {face.length}\n".encode())
    return digest.hexdigest()[:16]


def describe(plan: workers.TrainingPlan) -> str:
    """What would be trained, and how far it is."""
    with torch.device("meta"):
        size = sum(p.numel() for p in zoo.build(plan.spec).parameters())
    step, loop = steps_done(plan), plan.loop
    epochs = loop.steps * loop.batch / len(plan.faces)
    shards = len({face.shard for face in plan.faces})
    lines = [
        f"network     {plan.spec.kind}, {size / 1e6:.2f} M parameters, {plan.side}x{plan.side} faces",
        f"faces       {len(plan.faces):,} in {shards} shards; {len(plan.held_out):,} held out for validation",
        f"training    {loop.steps:,} steps of {loop.batch} faces: each face {epochs:,.1f} times",
        f"output      {plan.output}: {f'continues from step {step:,}' if step else 'nothing there yet'}",
    ]
    rate = last_rate(plan)
    if rate:
        lines.append(
            f"time left   {duration((loop.steps - step) * loop.batch / rate)} at the last {rate:,.1f} faces/s"
        )
    return "\n".join(lines)


def steps_done(plan: workers.TrainingPlan) -> int:
    """Steps of the checkpoint in the output, 0 without one."""
    state = load_checkpoint(store.join(plan.output, workers.CHECKPOINT))
    return int(state["step"]) if state else 0


def last_rate(plan: workers.TrainingPlan) -> float | None:
    """Faces a second that the output's last report tells, if there is one."""
    uri = store.join(plan.output, "metrics.jsonl")
    reports = [json.loads(line) for line in store.read_bytes(uri).splitlines()] if store.exists(uri) else []
    rates = [r["faces_per_second"] for r in reports if r.get("faces_per_second")]
    return rates[-1] if rates else None


def export(options: TrainingOptions, spec: zoo.NetworkSpec) -> int:
    """Write the averaged weights of the output's checkpoint, checked against the preset's network."""
    uri = store.join(absolute(options.output), workers.CHECKPOINT)
    state = load_checkpoint(uri)
    if state is None:
        raise UsageError(f"no checkpoint at {uri}; train first, or give the --output it was trained with")
    target = absolute(options.export or "")
    workers.export(state, target)
    if not store.is_remote(target):
        zoo.load_network(spec, target)
    print(f"averaged weights of step {state['step']:,} written to {target}")
    return DONE


def fit(options: TrainingOptions, plan: workers.TrainingPlan) -> int:
    """Train on Ray's workers."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    if not ray.is_initialized():
        address = options.ray_address or os.environ.get("RAY_ADDRESS", "local")
        ray.init(address=address, include_dashboard=False if address == "local" else None, log_to_driver=True)
    trainer = TorchTrainer(
        workers.train_under_ray,
        train_loop_config={"plan": plan},
        scaling_config=ScalingConfig(
            num_workers=options.workers,
            use_gpu=takes_gpus(options),
            resources_per_worker={"CPU": options.cpus_per_worker}
            | ({"GPU": 1} if takes_gpus(options) else {}),
        ),
        run_config=RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=store.join(plan.output, "_ray"),
            failure_config=FailureConfig(max_failures=options.max_failures),
        ),
    )
    try:
        with interruptible():
            trainer.fit()
    except WorkerGroupError as error:
        raise known_cause(error) from error
    print(
        f"trained to step {plan.loop.steps:,}: averaged weights in {store.join(plan.output, workers.WEIGHTS)}"
    )
    if plan.open_tracker:
        print(f"curves:  {tracking.ui_command(mlflow_uri(options, plan.output))}")
    return DONE


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the workers and come out as KeyboardInterrupt.

    Ray's own handler ends the process with code 0, as if the training were done.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def takes_gpus(options: TrainingOptions) -> bool:
    """Whether workers run on GPUs. Raises UsageError when they are wanted and not there."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    if options.device == "gpu" and gpus < options.workers:
        raise UsageError(
            f"--device gpu wants {options.workers} GPUs, the cluster has {gpus:.0f}; lower --workers"
        )
    return options.device == "gpu" or (options.device == "auto" and gpus >= options.workers)


def known_cause(error: Any) -> BaseException:
    """The first worker's own error where it is one of ours, else the whole error."""
    for failure in error.worker_failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, (*REFUSALS, TrainingDiverged)):
                return cause
            cause = cause.__cause__ or getattr(cause, "_base_exc", None)
    return error  # type: ignore[no-any-return]  # Ray's own, an exception


def absolute(uri: str) -> str:
    """A local path made absolute, since workers run in folders of their own; other addresses as they are."""
    return uri if store.is_remote(uri) else str(Path(uri.removeprefix("file://")).expanduser().absolute())
