"""What a training is made of, and whether it continues the one that is there."""

import hashlib
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from pipeline.console.options import UsageError
from pipeline.datasets.faces import FaceAddress, Found, check_side, find_faces
from pipeline.io import layout, store
from pipeline.io.weights import resolve
from pipeline.networks import presets
from pipeline.tracking.address import NO_TRACKING, absolute_uri, settle_uri
from pipeline.tracking.tracker import RunTracker
from pipeline.training import workers
from pipeline.training.loop import LoopConfig
from pipeline.training.options import TrainingOptions
from pipeline.training.task import Task

# Settings that a training can not change half-way: the samples or the network would be others.
FIXED = ("network", "seed", "batch", "flip", "max_step", "faces", "init")


def make_plan(options: TrainingOptions, task: Task, side: int) -> workers.TrainingPlan:
    """The plan that travels to the workers; looks at every shard first."""
    found = found_faces(options.shards or "", side)
    held_out = found_faces(options.validation, side) if options.validation else Found()
    output = store.absolute(options.output)
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
    found = find_faces(store.absolute(uri))
    check_side(found.faces, side)
    return found


def find_init(options: TrainingOptions, task: Task) -> presets.NetworkSpec:
    """The weights to start from, seen to fit, with the digest that every worker will want of them."""
    name = options.init or ""
    if name in presets.preset_names() or name.endswith(".toml"):
        spec: presets.NetworkSpec = getattr(presets.find_preset(name), task.role)
    else:
        file = store.absolute(name) if Path(name).expanduser().exists() else name
        spec = presets.NetworkSpec(task.spec.kind, task.spec.options, file)
    spec = replace(spec, kind=task.spec.kind, options=task.spec.options)
    spec = replace(spec, sha256=resolve(spec.file, spec.url, spec.sha256, options.weights_dir).sha256)
    workers.load_init(spec, options.weights_dir)
    return spec


def tracker(options: TrainingOptions, output: str) -> "partial[RunTracker] | None":
    """Opens the MLflow run on the worker that reports, the only one that writes to it."""
    uri = mlflow_uri(options, output)
    if uri == NO_TRACKING:
        return None
    return partial(
        RunTracker.open,
        uri,
        options.experiment,
        options.run_name or store.name_of(output),
        params=asdict(options),
        state_uri=store.join(output, layout.TRACKING_WITHOUT_LEDGER),
        warn=partial(print, "warning:", flush=True),
    )


def mlflow_uri(options: TrainingOptions, output: str) -> str:
    """The tracking address, with a file's path made absolute: workers run in folders of their own."""
    return absolute_uri(settle_uri(options.mlflow_uri, output))


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
