"""One training on one or many workers. Ray Train is at the door: inside, a worker is a rank and a device."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.datasets.faces import FaceAddress
from pipeline.io import store
from pipeline.io.weights import resolve
from pipeline.networks import presets
from pipeline.networks.checkpoint import write_state
from pipeline.training.loop import LoopConfig, Metrics, Objective, Trainer, load_checkpoint, save_checkpoint
from pipeline.training.progress import Progress, Tracker
from pipeline.training.samples import FaceSamples, Spoil, StepSampler
from pipeline.training.validation import FixedBatch, Preview, Scores

CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.safetensors"


@dataclass(frozen=True)
class TrainingPlan:
    """Everything a worker needs to know; it travels to the workers by pickle."""

    spec: presets.NetworkSpec
    objective: Objective
    preview: Preview
    loop: LoopConfig
    # faces trained on, and faces only looked at
    faces: tuple[FaceAddress, ...]
    held_out: tuple[FaceAddress, ...]
    side: int
    seed: int
    # makes the estimator's input of a clean face; a prior has none
    spoil: Spoil | None
    # half of the samples are mirrored
    flip: bool
    # folder or prefix of checkpoint, weights, metrics and sample grids
    output: str
    # members of the shards that can hold no face, and why
    left_out: Mapping[str, str]
    # makes what validations tell besides the loss, on the one reporting worker
    make_scores: Callable[[], Scores]
    # weights that the training starts from, if it does not start from random ones
    init: presets.NetworkSpec | None = None
    # folder or prefix where weights are looked for first
    weights_dir: str | None = None
    # faces of the fixed validation batch
    validation_faces: int = 64
    # processes that read and degrade, for each worker
    loaders: int = 0
    # made on the one reporting worker
    open_tracker: Callable[[], Tracker] | None = None


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the others."""

    rank: int
    world: int
    device: torch.device
    # makes a network one of several workers' (DDP)
    wrap: Callable[[nn.Module], nn.Module]
    # tells the others' coordinator the numbers; called on all workers at the same steps
    report: Callable[[Metrics], None]


ALONE = Place(0, 1, torch.device("cpu"), wrap=lambda network: network, report=lambda metrics: None)


def train_under_ray(config: dict[str, Any]) -> None:
    """What Ray Train runs on every worker. config: `plan`, a TrainingPlan."""
    import ray.train
    from ray.train.torch import get_device, prepare_model

    context = ray.train.get_context()
    device = get_device()
    train(
        config["plan"],
        Place(
            rank=context.get_world_rank(),
            world=context.get_world_size(),
            device=device[0] if isinstance(device, list) else device,
            wrap=prepare_model,
            report=ray.train.report,
        ),
    )


def train(plan: TrainingPlan, place: Place) -> None:
    """Train to the plan's last step, from the output's checkpoint where there is one."""
    cv2.setNumThreads(1)  # samples are made side by side already
    torch.manual_seed(plan.loop.seed)
    saved = load_checkpoint(store.join(plan.output, CHECKPOINT))
    network = presets.build(plan.spec)
    if plan.init and not saved:
        network.load_state_dict(load_init(plan.init, plan.weights_dir).state_dict())
    trainer = Trainer(network, plan.loop, place.device, place.rank)
    if saved:
        trainer.restore(saved)
    tracker = plan.open_tracker() if plan.open_tracker and place.rank == 0 else None
    progress = Progress(plan.output, trainer.step, plan.loop.steps, tracker) if place.rank == 0 else None
    finished = False
    try:
        _run(plan, place, trainer, progress)
        if progress:
            export(trainer.state(), store.join(plan.output, WEIGHTS))
        finished = True
    finally:
        if progress:
            progress.finish(finished)


def load_init(init: presets.NetworkSpec, weights_dir: str | None) -> nn.Module:
    """The network that a training starts from. Raises WeightsError or CheckpointError."""
    return presets.load_network(init, resolve(init.file, init.url, init.sha256, weights_dir).path)


def _run(plan: TrainingPlan, place: Place, trainer: Trainer, progress: Progress | None) -> None:
    """The loop with its reports; only the worker with a progress writes anything."""
    fixed, scores = None, None
    if progress and plan.loop.validate_every:
        watched = plan.held_out or plan.faces
        fixed = FixedBatch(watched, plan.side, plan.seed, plan.spoil, plan.validation_faces)
        scores = plan.make_scores()
    if progress:
        progress.left_out(plan.left_out)
    samples = FaceSamples(plan.faces, plan.side, plan.seed, plan.spoil, plan.flip)

    def on_metrics(step: int, metrics: Metrics) -> None:
        if progress:
            progress.metrics(step, metrics)
        place.report({"step": float(step)} | metrics)

    def on_validation(step: int) -> None:
        if progress and fixed and scores:
            averaged = trainer.ema.module
            together = max(plan.loop.batch // place.world // plan.loop.accumulate, 1)
            measured = fixed.measure(averaged, plan.objective, scores, place.device, together)
            progress.validation(step, measured, fixed.grid(averaged, plan.preview, place.device))

    def on_passed_over(faces: set[int]) -> None:
        if progress:
            progress.left_out({plan.faces[n].name: samples.why(n) for n in sorted(faces)})

    def on_checkpoint(state: dict[str, Any]) -> None:
        if progress:
            progress.checkpoint()
            save_checkpoint(state, store.join(plan.output, CHECKPOINT))

    batches = make_batches(plan, samples, place, trainer.step)
    model = place.wrap(trainer.network)
    trainer.run(batches, plan.objective, model, on_metrics, on_checkpoint, on_validation, on_passed_over)


def make_batches(
    plan: TrainingPlan, samples: FaceSamples, place: Place, first: int
) -> DataLoader[dict[str, torch.Tensor]]:
    """This worker's share of every batch, from step `first` on."""
    return DataLoader(
        samples,
        batch_sampler=StepSampler(first, plan.loop.steps, plan.loop.batch, place.rank, place.world),
        num_workers=plan.loaders,
        pin_memory=place.device.type == "cuda",
        worker_init_fn=_start_loader if plan.loaders else None,
    )


def _start_loader(number: int) -> None:
    cv2.setNumThreads(1)


def export(state: dict[str, Any], uri: str, half: bool = True) -> None:
    """The averaged weights of a checkpoint as safetensors, float16 by default."""
    if not store.is_remote(uri):
        write_state(state["ema"], Path(uri), half=half)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        write_state(state["ema"], path, half=half)
        store.write_bytes(uri, path.read_bytes())
