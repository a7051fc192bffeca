"""The training loop of estimators and priors; a resumed training gives the same weights as an uninterrupted one."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from pipeline.training.averaging import TrainingDiverged, warm_ema
from pipeline.training.checkpoint import UnusableCheckpoint

Metrics = dict[str, float]
Precision = Literal["float32", "bfloat16", "float16"]


class Objective(Protocol):
    """A loss function of model and batch."""

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss over the batch."""


@dataclass(frozen=True)
class LoopConfig:
    """Hyperparameters and intervals of a training."""

    # total optimiser steps, over all restarts
    steps: int
    # faces per step, over all workers
    batch: int = 32
    # gradient accumulation: parts into which a worker's share of the batch is split, to save memory
    accumulate: int = 1
    # AdamW's learning rate after the warm-up
    lr: float = 5e-5
    # learning rate at the end of the cosine decay
    lr_final: float = 5e-6
    # steps over which the learning rate rises from 0
    warmup: int = 100
    weight_decay: float = 0.0
    # maximum gradient norm; 0 disables clipping
    clip: float = 1.0
    # decay of the exponential moving average of the weights
    ema: float = 0.999
    # autocast type of the networks' activations; weights and optimiser stay float32
    precision: Precision = "float32"
    # steps between reported metrics
    log_every: int = 50
    # steps between checkpoints
    checkpoint_every: int = 500
    # steps between validations; 0 never validates
    validate_every: int = 0
    # seed of the networks' randomness (dropout); samples are seeded separately
    seed: int = 0
    # consecutive steps that may be skipped for a non-finite gradient
    max_bad_steps: int = 20


def learning_rate(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then cosine from `lr` to `lr_final`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr_final + (config.lr - config.lr_final) * (1 + math.cos(math.pi * done)) / 2


class Trainer:
    """A model in training with the state of its checkpoint: weights, EMA, optimiser, step.

    rank: of this worker. All workers take the same steps and have the same weights.
    """

    def __init__(self, network: nn.Module, config: LoopConfig, device: torch.device, rank: int = 0) -> None:
        self.config = config
        self.device = device
        self.rank = rank
        # the convolutions of most estimators are half as fast with channels apart
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.ema = AveragedModel(self.network, multi_avg_fn=warm_ema(config.ema))
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.step = 0
        self._bad_steps = 0

    def state(self) -> dict[str, Any]:
        """Everything needed to continue this training exactly."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "ema": self.ema.module.state_dict(),
            "ema_updates": int(self.ema.n_averaged),
            "optimiser": self.optimiser.state_dict(),
        }
        return state | {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned. Raises UnusableCheckpoint when it belongs to another network."""
        try:
            self.network.load_state_dict(state["network"])
            self.ema.module.load_state_dict(state["ema"])
            self.ema.n_averaged.fill_(state["ema_updates"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UnusableCheckpoint(
                f"the checkpoint does not fit this network ({str(error).splitlines()[0]}); "
                "give the preset it was trained with, or another --output"
            ) from error
        if self.scaler.is_enabled() and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])

    def run(
        self,
        batches: Iterable[dict[str, Tensor]],
        objective: Objective,
        model: nn.Module,
        on_metrics: Callable[[int, Metrics], None],
        on_checkpoint: Callable[[dict[str, Any]], None],
        on_validation: Callable[[int], None] | None = None,
        on_passed_over: Callable[[set[int]], None] | None = None,
    ) -> None:
        """Train until `config.steps`. model: the network, wrapped (DDP) where there are several workers.

        Metrics are means over the steps since the last report; a checkpoint always reports, so that a resumed run
        reports the same numbers as an uninterrupted one. on_passed_over gets the indices of faces that some worker
        could not use. on_checkpoint is called on every worker.
        """
        config = self.config
        window = _Window(config.batch)
        model.train()
        for batch in batches:
            self._seed()
            loss, norm = self._take_step(model, objective, batch)
            window.add(loss, norm, batch.get("passed_over"))
            done = self.step == config.steps
            saves = done or self.step % config.checkpoint_every == 0
            if saves or self.step % config.log_every == 0:
                metrics, passed_over = window.metrics(self.device)
                if passed_over and on_passed_over:
                    on_passed_over(passed_over)
                on_metrics(self.step, metrics | {"lr": learning_rate(self.step - 1, config)})
                window = _Window(config.batch)
            if on_validation and config.validate_every and (done or self.step % config.validate_every == 0):
                on_validation(self.step)
                model.train()
            if saves:
                on_checkpoint(self.state())

    def _take_step(
        self, model: nn.Module, objective: Objective, batch: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One optimiser step → the loss and the gradient's norm.

        A step with a non-finite gradient does not change the weights. The norm is computed after averaging the
        workers' gradients, so that all workers skip the same steps.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._backward(model, objective, batch)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip or math.inf)
        if torch.isfinite(norm):
            self.scaler.step(self.optimiser)
            self.ema.update_parameters(self.network)
            self._bad_steps = 0
        else:
            self._bad_steps += 1
            if self._bad_steps > self.config.max_bad_steps:
                raise TrainingDiverged(
                    f"the gradient was not finite in {self._bad_steps} consecutive steps (loss {loss.item():g} at step "
                    f"{self.step}); lower --lr and run again, training continues from the last checkpoint"
                )
        self.scaler.update()
        self.step += 1
        return loss, norm.detach()

    def _backward(self, model: nn.Module, objective: Objective, batch: dict[str, Tensor]) -> Tensor:
        """Accumulate gradients over the batch's parts. Returns the mean loss; the last part averages over workers."""
        parts = self.config.accumulate
        size = len(next(iter(batch.values()))) // parts
        losses = []
        for n in range(parts):
            part = {
                k: v[n * size : (n + 1) * size].to(self.device, non_blocking=True) for k, v in batch.items()
            }
            deferred = n < parts - 1 and isinstance(model, DistributedDataParallel)
            with DistributedDataParallel.no_sync(model) if deferred else nullcontext():  # type: ignore[arg-type]
                with self.precision():
                    loss = objective(model, part) / parts
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _seed(self) -> None:
        """Seed torch by step and worker, so that a restart draws the same numbers."""
        words = np.random.SeedSequence([self.config.seed, 3, self.step, self.rank]).generate_state(2)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context of `config.precision`."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.config.precision))


class _Window:
    """Losses and gradient norms since the last report."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._passed_over: list[Tensor] = []
        self._began = time.monotonic()

    def add(self, loss: Tensor, norm: Tensor, passed_over: Tensor | None) -> None:
        self._losses.append(loss)
        self._norms.append(norm)
        if passed_over is not None:
            self._passed_over.append(passed_over)

    def metrics(self, device: torch.device) -> tuple[Metrics, set[int]]:
        """Means over the window and over all workers, and the indices of skipped faces."""
        norms = torch.stack(self._norms)
        good = torch.isfinite(norms)
        loss = torch.stack(self._losses)[good].float().mean() if good.any() else torch.tensor(math.nan)
        loss = loss.to(device)
        passed_over = torch.cat([p.flatten() for p in self._passed_over] or [torch.empty(0)]).to(device)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(loss)
            loss = loss / dist.get_world_size()
            of_each = [torch.empty_like(passed_over) for _ in range(dist.get_world_size())]
            dist.all_gather(of_each, passed_over)
            passed_over = torch.cat(of_each)
        faces = passed_over[passed_over >= 0].tolist()
        return {
            "loss": float(loss),
            "grad_norm": float(norms[good].mean()) if good.any() else math.nan,
            "left_out_steps": float((~good).sum()),
            "passed_over": float(len(faces)),
            "faces_per_second": len(norms) * self._batch / max(time.monotonic() - self._began, 1e-9),
        }, {int(face) for face in faces}
