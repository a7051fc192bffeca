"""The network of a training command, with its loss, previews, scores and degradation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.networks import presets
from pipeline.training.loop import Objective
from pipeline.training.samples import Degrade
from pipeline.training.validation import Preview, Scores

Role = Literal["prior", "estimator"]


@dataclass(frozen=True)
class Task:
    """What a training command trains."""

    role: Role
    spec: presets.NetworkSpec
    objective: Objective
    preview: Preview
    # makes the scores of validations, on the reporting worker
    make_scores: Callable[[], Scores]
    # makes the estimator's input from a clean face; None for a prior
    degrade: Degrade | None = None
