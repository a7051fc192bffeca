"""Training of a prior."""

from dataclasses import dataclass
from functools import partial

from pipeline.console.options import UsageError, option
from pipeline.networks import presets
from pipeline.training.objectives import PriorEps
from pipeline.training.options import TrainingOptions
from pipeline.training.task import Task
from pipeline.training.validation import PriorPreview, PriorScores

LAST_STEP = 999


@dataclass(frozen=True)
class PriorOptions(TrainingOptions):
    """The options of one training of a prior."""

    steps: int = option(500_000, help="total optimiser steps, over all restarts", group="training")
    batch: int = option(64, help="faces per step, over all workers", group="training")
    lr: float = option(1e-4, help="AdamW's learning rate after the warm-up", group="training")
    lr_final: float = option(1e-4, help="learning rate at the end of the cosine decay", group="training")
    max_step: int | None = option(
        None,
        help="highest of the 1000 diffusion steps trained on; a prior that is only entered at step N needs no "
        "training above it (default: the preset's)",
        group="training",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_step is not None and not 0 <= self.max_step <= LAST_STEP:
            raise UsageError(f"--max-step must lie between 0 and {LAST_STEP}, got {self.max_step}")


def make_task(options: PriorOptions, preset: presets.Preset) -> Task:
    """The preset's prior, trained to predict the noise in a face."""
    highest = preset.max_step if options.max_step is None else options.max_step
    objective = PriorEps(options.seed, max_step=highest + 1)
    preview = PriorPreview(min(preset.start_step, highest))
    return Task("prior", preset.prior, objective, preview, partial(PriorScores, objective))
