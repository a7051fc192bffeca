"""What the two training commands share: from options to a finished training. Not a command itself."""

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.console.options import UsageError, parse
from pipeline.datasets.faces import FaceAddress, Found, SampleError, check_side, find_faces
from pipeline.io import store
from pipeline.io.weights import WeightsError, resolve
from pipeline.networks import memory, presets
from pipeline.networks.checkpoint import CheckpointError
from pipeline.restoration.cluster import hearing, join
from pipeline.tracking import tracker as tracking
from pipeline.training import workers
from pipeline.training.configs import Trains, with_config
from pipeline.training.loop import (
    LoopConfig,
    Objective,
    TrainingDiverged,
    UnusableCheckpoint,
    load_checkpoint,
)
from pipeline.training.options import TrainingOptions
from pipeline.training.preset import Role, export_preset
from pipeline.training.progress import duration
from pipeline.training.samples import Spoil
from pipeline.training.validation import Preview, Scores

Options = TypeVar("Options", bound=TrainingOptions)

# What the user can put right: one sentence, exit code 2.
REFUSALS = (
    *(UsageError, presets.PresetError, CheckpointError, WeightsError, SampleError, UnusableCheckpoint),
    store.StoreError,
)
DONE, UNEXPECTED, REFUSED, INTERRUPTED = 0, 1, 2, 130

# Settings that a training can not change half-way: the samples or the network would be others.
FIXED = ("network", "seed", "batch", "flip", "max_step", "faces", "init")
# What terms hold for weights that nobody gave any.
TERMS = "that of whoever trained it"


@dataclass(frozen=True)
class Task:
    """What a training command trains, and on what."""

    role: Role
    spec: presets.NetworkSpec
    objective: Objective
    preview: Preview
    # makes the scores of a validation, where it is made
    make_scores: Callable[[], Scores]
    # makes the estimator's input of a clean face; a prior has none
    spoil: Spoil | None = None


def parse_options(
    cls: type[Options], argv: Sequence[str] | None, description: str, trains: Trains
) -> Options:
    """The options of the command line and its --config. Wrong ones exit with code 2."""
    try:
        return parse(cls, with_config(sys.argv[1:] if argv is None else argv, cls, trains), description)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(REFUSED) from error


def run(options: TrainingOptions, make_task: Callable[[presets.Preset], Task]) -> int:
    """Export, describe or train, as the options say. Returns the exit code."""
    try:
        preset = presets.find_preset(options.preset)
        task = make_task(preset)
        if options.export or options.export_preset:
            return export(options, task, preset)
        plan = make_plan(options, task, preset.side)
        check_continues(options, plan)
        if options.dry_run:
            print(describe(plan, options.workers))
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
    found = found_faces(options.shards or "", side)
    held_out = found_faces(options.validation, side) if options.validation else Found()
    output = absolute(options.output)
    return workers.TrainingPlan(
        spec=task.spec,
        objective=task.objective,
        preview=task.preview,
        loop=LoopConfig(
            steps=options.steps,
            batch=options.batch,
            accumulate=options.accumulate,
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
        faces=tuple(found.faces),
        held_out=tuple(held_out.faces),
        left_out=found.left_out | held_out.left_out,
        side=side,
        seed=options.seed,
        spoil=task.spoil,
        flip=options.flip,
        make_scores=task.make_scores,
        init=find_init(options, task) if options.init else None,
        weights_dir=options.weights_dir,
        output=output,
        validation_faces=options.validation_faces,
        loaders=options.loaders,
        open_tracker=tracker(options, output),
    )


def found_faces(uri: str, side: int) -> Found:
    """What lies in the shards at `uri`, a face of each shard looked at."""
    found = find_faces(absolute(uri))
    check_side(found.faces, side)
    return found


def find_init(options: TrainingOptions, task: Task) -> presets.NetworkSpec:
    """The weights to start from, seen to fit, with the digest that every worker will want of them."""
    name = options.init or ""
    if name in presets.preset_names() or name.endswith(".toml"):
        spec: presets.NetworkSpec = getattr(presets.find_preset(name), task.role)
    else:
        file = absolute(name) if Path(name).expanduser().exists() else name
        spec = presets.NetworkSpec(task.spec.kind, task.spec.options, file)
    spec = replace(spec, kind=task.spec.kind, options=task.spec.options)
    spec = replace(spec, sha256=resolve(spec.file, spec.url, spec.sha256, options.weights_dir).sha256)
    workers.load_init(spec, options.weights_dir)
    return spec


def tracker(options: TrainingOptions, output: str) -> "partial[tracking.RunTracker] | None":
    """Opens the MLflow run on the worker that reports, the only one that writes to it."""
    uri = mlflow_uri(options, output)
    if uri == tracking.NOBODY:
        return None
    return partial(
        tracking.RunTracker.open,
        uri,
        options.experiment,
        options.run_name or store.name_of(output),
        params=asdict(options),
        state_uri=store.join(output, "_tracking.json"),
        warn=partial(print, "warning:", flush=True),
    )


def mlflow_uri(options: TrainingOptions, output: str) -> str:
    """The tracking address, with a file's path made absolute: workers run in folders of their own."""
    return tracking.absolute_uri(tracking.settle_uri(options.mlflow_uri, output))


def check_continues(options: TrainingOptions, plan: workers.TrainingPlan) -> None:
    """Remember what is trained here. Raises UsageError when the output holds another training."""
    settings = {
        "network": {"kind": plan.spec.kind} | dict(plan.spec.options),
        "seed": plan.seed,
        "batch": plan.loop.batch,
        "flip": plan.flip,
        "max_step": getattr(plan.objective, "max_step", None),
        "faces": faces_digest(plan.faces),
        "init": plan.init.sha256 if plan.init else None,
    }
    uri = store.join(plan.output, "training.json")
    if store.exists(uri):
        before = json.loads(store.read_bytes(uri))
        changed = [name for name in FIXED if before.get(name) != json.loads(json.dumps(settings[name]))]
        if changed:
            raise UsageError(
                f"{plan.output} holds a training with another {' and '.join(changed)}; "
                "give the options it was started with, or a new --output"
            )
    elif not options.dry_run:
        store.check_writable(plan.output)
        about = {"init_file": plan.init.file, "init_licence": plan.init.licence} if plan.init else {}
        store.write_bytes(uri, json.dumps(settings | about, indent=1).encode())


def faces_digest(faces: tuple[FaceAddress, ...]) -> str:
    """Names a set of shards by their names and the places of their faces, wherever the shards lie."""
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{store.name_of(face.shard)} {face.offset} {face.length}\n".encode())
    return digest.hexdigest()[:16]


def describe(plan: workers.TrainingPlan, number: int) -> str:
    """What would be trained by that number of workers, and how far it is."""
    step, loop = steps_done(plan), plan.loop
    epochs = loop.steps * loop.batch / len(plan.faces)
    shards = len({face.shard for face in plan.faces})
    at_once = max(loop.batch // number // loop.accumulate, 1)
    channels = 4 if presets.takes_mask(plan.spec) else 3
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
    """Bytes for people."""
    return f"{size / 2**30:,.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:,.0f} MiB"


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


def export(options: TrainingOptions, task: Task, base: presets.Preset) -> int:
    """Write the averaged weights of the output's checkpoint, and a preset with them, checked against the network."""
    output = absolute(options.output)
    uri = store.join(output, workers.CHECKPOINT)
    state = load_checkpoint(uri)
    if state is None:
        raise UsageError(f"no checkpoint at {uri}; train first, or give the --output it was trained with")
    if options.export:
        target = absolute(options.export)
        workers.export(state, target)
        if not store.is_remote(target):
            presets.load_network(task.spec, target)
        print(f"averaged weights of step {state['step']:,} written to {target}")
    if options.export_preset:
        path = preset_path(options.export_preset, store.name_of(output))
        trained = json.loads(store.read_bytes(store.join(output, "training.json")))
        highest = trained["max_step"] - 1 if task.role == "prior" else None
        licence = options.licence or terms(trained)
        written = export_preset(base, task.role, state["ema"], path, licence, highest)
        print(f"preset of step {state['step']:,} written: give --preset {path} to any job")
        print(f"licence of {Path(getattr(written, task.role).file).name}: {licence}; --licence says another")
    return DONE


def preset_path(place: str, name: str) -> Path:
    """Where the preset file is written. Raises UsageError on what is no place on this machine."""
    if store.is_remote(place):
        raise UsageError(
            f"--export-preset wants a place on this machine, got {place}; write it here and put it there with "
            "`python -m jobs.models mirror NAME.toml --to ...`"
        )
    path = Path(absolute(place))
    return path if path.suffix == ".toml" else path / f"{name}.toml"


def terms(trained: dict[str, Any]) -> str:
    """The licence of weights for which none is given; those that began as others' keep their terms."""
    if not trained.get("init"):
        return TERMS
    return f"{trained['init_licence']}; trained further from weights under these terms"


def fit(options: TrainingOptions, plan: workers.TrainingPlan) -> int:
    """Train on Ray's workers."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    join(options.ray_address, log_to_driver=True)
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
        with interruptible(), hearing("RayTrainWorker"):
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
