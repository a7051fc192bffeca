"""One training loop for estimators and priors: same samples, same checkpoints, whatever stops it."""

import io
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from pipeline import Refusal
from pipeline.io import store

Metrics = dict[str, float]
Precision = Literal["float32", "bfloat16", "float16"]


class Objective(Protocol):
    """What is minimised: a model and a batch give a scalar loss."""

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss over the batch."""


class TrainingDiverged(Refusal, ArithmeticError):
    """Too many steps in a row whose gradient is not finite."""


class UnusableCheckpoint(Refusal, ValueError):
    """A checkpoint that is not one of this training."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how hard to train."""

    # optimiser steps in all, counted over restarts
    steps: int
    # faces a step, over all workers
    batch: int = 32
    # parts of a worker's share of the batch that go through the network one after the other, to save memory
    accumulate: int = 1
    # AdamW's learning rate after the warm-up
    lr: float = 5e-5
    # learning rate at the end of the cosine decay
    lr_final: float = 5e-6
    # steps over which the learning rate rises from 0
    warmup: int = 100
    weight_decay: float = 0.0
    # largest gradient norm; 0 leaves gradients as they are
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
    # seed of the networks' own randomness (dropout); samples carry their own
    seed: int = 0
    # steps in a row that may be left out for a gradient that is not finite
    patience: int = 20


def learning_rate(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then cosine from `lr` to `lr_final`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr_final + (config.lr - config.lr_final) * (1 + math.cos(math.pi * done)) / 2


def warm_ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """The update of an exponential moving average whose memory grows from a few steps to 1 / (1 - decay).

    With the full decay from the start, a run of a few thousand steps would keep a share of its random beginning.
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, updates: Any) -> None:
        n = float(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


class Trainer:
    """A model in training with all that a checkpoint needs: weights, EMA, optimiser, step.

    rank: which of several workers this is. All workers walk the same steps and hold the same weights.
    """

    def __init__(self, network: nn.Module, config: LoopConfig, device: torch.device, rank: int = 0) -> None:
        self.config = config
        self.device = device
        self.rank = rank
        self.network = network.to(device)
        self.ema = AveragedModel(self.network, multi_avg_fn=warm_ema(config.ema))
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.step = 0
        self._bad_steps = 0

    def state(self) -> dict[str, Any]:
        """Everything that continues this training exactly."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "ema": self.ema.module.state_dict(),
            "ema_updates": int(self.ema.n_averaged),
            "optimiser": self.optimiser.state_dict(),
        }
        return state | {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave. Raises UnusableCheckpoint when it belongs to another network."""
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
        """Train until `config.steps`. model: the network, wrapped for several workers where there are several.

        Metrics are the means over the steps since they were last reported; a checkpoint always reports, so
        that a continued run reports what an undisturbed one does. on_passed_over hears the numbers of faces that
        some worker could not use. on_checkpoint is called on every worker.
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

        A step whose gradient is not finite leaves the weights as they are. The norm is taken after the
        workers' gradients were averaged, so all workers leave out the same steps.
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
            if self._bad_steps > self.config.patience:
                raise TrainingDiverged(
                    f"the gradient was not finite for {self._bad_steps} steps in a row (loss {loss.item():g} at step "
                    f"{self.step}); lower --lr and run again, training continues from the last checkpoint"
                )
        self.scaler.update()
        self.step += 1
        return loss, norm.detach()

    def _backward(self, model: nn.Module, objective: Objective, batch: dict[str, Tensor]) -> Tensor:
        """Gradients of the batch's mean loss, part by part, and that loss; with the last the workers' are averaged."""
        parts = self.config.accumulate
        size = len(next(iter(batch.values()))) // parts
        losses = []
        for n in range(parts):
            part = {
                k: v[n * size : (n + 1) * size].to(self.device, non_blocking=True) for k, v in batch.items()
            }
            waits = n < parts - 1 and isinstance(model, DistributedDataParallel)
            with DistributedDataParallel.no_sync(model) if waits else nullcontext():  # type: ignore[arg-type]
                with self.precision():
                    loss = objective(model, part) / parts
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _seed(self) -> None:
        """Give this step and worker their own random numbers, the same after a restart."""
        words = np.random.SeedSequence([self.config.seed, 3, self.step, self.rank]).generate_state(2)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context of `config.precision`."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.config.precision))


class _Window:
    """Losses since the last report."""

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
        """Means over the window, and over the workers where there are several; and the faces passed over."""
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


def save_checkpoint(state: dict[str, Any], uri: Path | str) -> None:
    """Write whole and last, so that a killed run never leaves a half checkpoint. uri: local, or what store opens."""
    if store.is_remote(str(uri)):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        store.write_bytes(str(uri), buffer.getvalue())
        return
    path = Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:  # straight to the disk: a large network's state would not fit twice
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(uri: Path | str) -> dict[str, Any] | None:
    """The state of the last checkpoint, or None where there is none. Raises UnusableCheckpoint."""
    remote = store.is_remote(str(uri))
    if not (store.exists(str(uri)) if remote else Path(uri).exists()):
        return None
    source = io.BytesIO(store.read_bytes(str(uri))) if remote else Path(uri)
    try:
        state: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise UnusableCheckpoint(f"{uri} is not a training checkpoint; move it away to start anew") from error
    return state
