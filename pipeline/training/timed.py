"""Training of one network for a given time, or number of steps, on one device and without Ray."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline import Refusal
from pipeline.training.averaging import TrainingDiverged, warm_ema
from pipeline.training.face_batches import Batch

# Rate at the end of the cosine, as a share of the full one.
LAST_RATE = 0.02
# Consecutive steps that may be left out for a gradient that is not finite.
MAX_BAD_STEPS = 20


class UnusableState(Refusal, ValueError):
    """A saved state that does not belong to this network."""


@dataclass(frozen=True)
class TimedConfig:
    """Hyperparameters of a timed training."""

    # AdamW's learning rate after the warm-up
    rate: float
    # seconds, or steps, of the whole cosine; exactly one of them
    seconds: float | None = None
    steps: int | None = None
    # steps over which the rate rises from 0
    warmup: int = 200
    weight_decay: float = 0.0
    # maximum gradient norm
    clip: float = 1.0
    # decay of the exponential moving average of the weights
    ema: float = 0.999
    # updates that the average counts from the start: with some, weights that are trained already do not vanish from it
    # in the first steps, which an optimiser takes that knows nothing of their gradients yet
    averaged: int = 0
    # the networks' activations in bfloat16
    bfloat16: bool = True
    # how often it is validated between beginning and end, and how often it reports
    validations: int = 5
    reports: int = 24


@dataclass(frozen=True)
class TimedHooks:
    """What a training calls on its way."""

    # a line of measurements
    report: Callable[[dict[str, Any]], None]
    # the averaged network, to be validated and kept
    validate: Callable[[nn.Module], None]
    # whether to end after this step
    stops: Callable[[], bool]


class TimedTraining:
    """A network with its average, optimiser and place in the cosine: what a saved state holds."""

    def __init__(self, network: nn.Module, config: TimedConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, multi_avg_fn=warm_ema(config.ema)).eval()
        self.average.n_averaged.fill_(config.averaged)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=device.type == "cuda",
        )
        # steps of all runs; steps and seconds of this cosine
        self.step, self.cosine_step, self.spent = 0, 0, 0.0
        self._bad_steps = 0

    @property
    def position(self) -> float:
        """How much of the cosine is done, 0..1."""
        if self.config.steps is not None:
            return min(self.cosine_step / self.config.steps, 1.0)
        assert self.config.seconds is not None
        return min(self.spent / self.config.seconds, 1.0)

    @property
    def rate(self) -> float:
        """The learning rate of the next step: a linear warm-up times a cosine."""
        cosine = (1 + math.cos(math.pi * self.position)) / 2
        warm = min(1.0, (self.cosine_step + 1) / max(self.config.warmup, 1))
        return self.config.rate * warm * (LAST_RATE + (1 - LAST_RATE) * cosine)

    def run(
        self,
        batches: Callable[[int], Batch],
        loss_of: Callable[[nn.Module, Batch], Tensor],
        hooks: TimedHooks,
    ) -> bool:
        """Train to the end of the cosine. Returns False where it was stopped before. Raises TrainingDiverged."""
        last = time.monotonic()
        hooks.validate(self.average.module)
        window, validated = _Window(self), self.position
        while self.position < 1 and not hooks.stops():
            batch = batches(self.step)
            window.add(self._take_step(batch, loss_of), len(batch["hq"]))
            now = time.monotonic()
            self.spent, last = self.spent + now - last, now
            position = self.position
            if position == 1 or position - window.position >= 1 / self.config.reports:
                hooks.report(window.summary(self))
                window = _Window(self)
            if position < 1 and position - validated >= 1 / (self.config.validations + 1):
                validated = position
                hooks.validate(self.average.module)
                window.pause(time.monotonic() - now)
        hooks.validate(self.average.module)
        return self.position == 1

    def _take_step(self, batch: Batch, loss_of: Callable[[nn.Module, Batch], Tensor]) -> Tensor:
        """One optimiser step → its loss. A step whose gradient is not finite changes no weights."""
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            loss = loss_of(self.network, batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.step, self.cosine_step = self.step + 1, self.cosine_step + 1
        # waits for the device, which also keeps the clock honest
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
            self.average.update_parameters(self.network)
            self._bad_steps = 0
            return loss.detach()
        self._bad_steps += 1
        if self._bad_steps > MAX_BAD_STEPS:
            raise TrainingDiverged(
                f"the gradient was not finite in {self._bad_steps} consecutive steps (step {self.step}); "
                "lower --rate-factor and run again"
            )
        return torch.zeros_like(loss)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.module.state_dict(),
                "averaged": int(self.average.n_averaged),
                "optimiser": self.optimiser.state_dict(),
                "counts": {"step": self.step, "cosine_step": self.cosine_step, "spent": self.spent},
            },
            partial,
        )
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Go on from a saved state. Raises UnusableState."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.module.load_state_dict(state["average"])
            self.average.n_averaged.fill_(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            counts = state["counts"]
            self.step, self.cosine_step = int(counts["step"]), int(counts["cosine_step"])
            self.spent = float(counts["spent"])
        except Exception as error:  # torch raises many kinds for a damaged or another network's file
            raise UnusableState(
                f"{path} is no state of this network ({str(error).splitlines()[0]}); remove it or give another --out"
            ) from error

    def begin_anew(self) -> None:
        """Begin another cosine with these weights and this optimiser."""
        self.cosine_step, self.spent = 0, 0.0


class _Window:
    """Losses and faces since the last report."""

    def __init__(self, training: TimedTraining) -> None:
        self.position = training.position
        self._losses: list[Tensor] = []
        self._faces, self._began = 0, time.monotonic()

    def add(self, loss: Tensor, faces: int) -> None:
        self._losses.append(loss)
        self._faces += faces

    def pause(self, seconds: float) -> None:
        """Leave out time in which there was no training."""
        self._began += seconds

    def summary(self, training: TimedTraining) -> dict[str, Any]:
        """The measurements of a report."""
        return {
            "step": training.step,
            "loss": float(torch.stack(self._losses).mean()),
            "rate": training.rate,
            "position": round(training.position, 4),
            "faces": self._faces,
            "faces_per_second": round(self._faces / max(time.monotonic() - self._began, 1e-9), 2),
        }
