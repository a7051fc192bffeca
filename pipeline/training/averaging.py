"""The moving average of the weights, and the end of a training whose gradients overflow."""

from collections.abc import Callable
from typing import Any

import torch

from pipeline import Refusal


class TrainingDiverged(Refusal, ArithmeticError):
    """Too many consecutive steps with a non-finite gradient."""


def warm_ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """The update of an exponential moving average whose horizon grows from a few steps to 1 / (1 - decay).

    With the full decay from the start, the average of a few thousand steps would still contain initial weights.
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, updates: Any) -> None:
        n = float(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update
