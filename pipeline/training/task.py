"""What is trained, and on what."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.networks import presets
from pipeline.training.loop import Objective
from pipeline.training.samples import Spoil
from pipeline.training.validation import Preview, Scores

Role = Literal["prior", "estimator"]


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
