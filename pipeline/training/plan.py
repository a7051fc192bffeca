"""Everything that the workers of a training need, made from its options."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from pipeline.datasets.faces import FaceAddress, Found, check_side, find_faces
from pipeline.io import layout, store
from pipeline.networks import presets
from pipeline.tracking.address import NO_TRACKING, absolute_uri, settle_uri
from pipeline.tracking.tracker import RunTracker
from pipeline.training.init import find_init
from pipeline.training.loop import LoopConfig, Objective
from pipeline.training.options import TrainingOptions
from pipeline.training.progress import Tracker
from pipeline.training.samples import Degrade
from pipeline.training.task import Task
from pipeline.training.validation import Preview, Scores


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that a worker needs; pickled to the workers."""

    spec: presets.NetworkSpec
    objective: Objective
    preview: Preview
    loop: LoopConfig
    # training faces, and held-out faces for validation
    faces: tuple[FaceAddress, ...]
    held_out: tuple[FaceAddress, ...]
    side: int
    seed: int
    # makes the estimator's input from a clean face; None for a prior
    degrade: Degrade | None
    # half of the samples are mirrored
    flip: bool
    # folder or prefix of checkpoint, weights, metrics and sample grids
    output: str
    # name → reason of each shard member that cannot be a face
    left_out: Mapping[str, str]
    # makes the scores of validations, on the reporting worker
    make_scores: Callable[[], Scores]
    # weights to start from; None: random ones
    init: presets.NetworkSpec | None = None
    # folder or prefix that is searched for weights first
    weights_dir: str | None = None
    # faces of the fixed validation batch
    validation_faces: int = 64
    # data loader processes of each worker
    loaders: int = 0
    # opens the tracker, on the reporting worker
    open_tracker: Callable[[], Tracker] | None = None


def make_plan(options: TrainingOptions, task: Task, side: int) -> TrainingPlan:
    """The plan for the workers; checks every shard first."""
    found = found_faces(options.shards or "", side)
    held_out = found_faces(options.validation, side) if options.validation else Found()
    output = store.absolute(options.output)
    return TrainingPlan(
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
        degrade=task.degrade,
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
    """The faces in the shards at `uri`; one face of each shard is checked."""
    found = find_faces(store.absolute(uri))
    check_side(found.faces, side)
    return found


def tracker(options: TrainingOptions, output: str) -> "partial[RunTracker] | None":
    """A function that opens the MLflow run, called on the reporting worker; None where nothing is tracked."""
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
    """The tracking URI; file paths are made absolute, as workers run in folders of their own."""
    return absolute_uri(settle_uri(options.mlflow_uri, output))
