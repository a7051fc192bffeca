"""One training on one or many workers. Only `train_under_ray` knows of Ray Train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.io import store
from pipeline.networks import presets
from pipeline.training.checkpoint import CHECKPOINT, WEIGHTS, load_checkpoint, save_checkpoint, write_averaged
from pipeline.training.init import load_init
from pipeline.training.loop import Metrics, Trainer
from pipeline.training.plan import TrainingPlan
from pipeline.training.progress import Progress
from pipeline.training.samples import FaceSamples, StepSampler
from pipeline.training.validation import FixedBatch


@dataclass(frozen=True)
class WorkerContext:
    """A worker's rank, device, and means to reach the other workers."""

    rank: int
    world: int
    device: torch.device
    # wraps a network for data-parallel training (DDP)
    wrap: Callable[[nn.Module], nn.Module]
    # reports metrics to the coordinator; called on all workers at the same steps
    report: Callable[[Metrics], None]


SINGLE_PROCESS = WorkerContext(
    0, 1, torch.device("cpu"), wrap=lambda network: network, report=lambda metrics: None
)


def train_under_ray(config: dict[str, Any]) -> None:
    """The entry point of a Ray Train worker. config: `plan`, a TrainingPlan."""
    import ray.train
    from ray.train.torch import get_device, prepare_model

    ray_context = ray.train.get_context()
    device = get_device()
    train(
        config["plan"],
        WorkerContext(
            rank=ray_context.get_world_rank(),
            world=ray_context.get_world_size(),
            device=device[0] if isinstance(device, list) else device,
            wrap=prepare_model,
            report=ray.train.report,
        ),
    )


def train(plan: TrainingPlan, context: WorkerContext) -> None:
    """Train to the plan's last step, from the output's checkpoint if there is one."""
    cv2.setNumThreads(1)  # samples are made in parallel already
    torch.manual_seed(plan.loop.seed)
    saved = load_checkpoint(store.join(plan.output, CHECKPOINT))
    network = presets.build(plan.spec)
    if plan.init and not saved:
        network.load_state_dict(load_init(plan.init, plan.weights_dir).state_dict())
    trainer = Trainer(network, plan.loop, context.device, context.rank)
    if saved:
        trainer.restore(saved)
    tracker = plan.open_tracker() if plan.open_tracker and context.rank == 0 else None
    progress = Progress(plan.output, trainer.step, plan.loop.steps, tracker) if context.rank == 0 else None
    finished = False
    try:
        _run(plan, context, trainer, progress)
        if progress:
            write_averaged(trainer.state(), store.join(plan.output, WEIGHTS))
        finished = True
    finally:
        if progress:
            progress.finish(finished)


def _run(plan: TrainingPlan, context: WorkerContext, trainer: Trainer, progress: Progress | None) -> None:
    """The loop with its reports; only the worker with a Progress writes anything."""
    fixed, scores = None, None
    if progress and plan.loop.validate_every:
        watched = plan.held_out or plan.faces
        fixed = FixedBatch(watched, plan.side, plan.seed, plan.degrade, plan.validation_faces)
        scores = plan.make_scores()
    if progress:
        progress.left_out(plan.left_out)
    samples = FaceSamples(plan.faces, plan.side, plan.seed, plan.degrade, plan.flip)

    def on_metrics(step: int, metrics: Metrics) -> None:
        if progress:
            progress.metrics(step, metrics)
        context.report({"step": float(step)} | metrics)

    def on_validation(step: int) -> None:
        if progress and fixed and scores:
            averaged = trainer.ema.module
            faces_per_call = max(plan.loop.batch // context.world // plan.loop.accumulate, 1)
            measured = fixed.measure(averaged, plan.objective, scores, context.device, faces_per_call)
            progress.validation(step, measured, fixed.grid(averaged, plan.preview, context.device))

    def on_passed_over(faces: set[int]) -> None:
        if progress:
            progress.left_out({plan.faces[n].name: samples.why(n) for n in sorted(faces)})

    def on_checkpoint(state: dict[str, Any]) -> None:
        if progress:
            progress.checkpoint()
            save_checkpoint(state, store.join(plan.output, CHECKPOINT))

    batches = make_batches(plan, samples, context, trainer.step)
    model = context.wrap(trainer.network)
    trainer.run(batches, plan.objective, model, on_metrics, on_checkpoint, on_validation, on_passed_over)


def make_batches(
    plan: TrainingPlan, samples: FaceSamples, context: WorkerContext, first: int
) -> DataLoader[dict[str, torch.Tensor]]:
    """This worker's share of every batch, from step `first` on."""
    return DataLoader(
        samples,
        batch_sampler=StepSampler(first, plan.loop.steps, plan.loop.batch, context.rank, context.world),
        num_workers=plan.loaders,
        pin_memory=context.device.type == "cuda",
        worker_init_fn=_start_loader if plan.loaders else None,
    )


def _start_loader(number: int) -> None:
    cv2.setNumThreads(1)
