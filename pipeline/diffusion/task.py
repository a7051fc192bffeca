"""The task, and the constraint that it puts on each face."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # readers and publishers know their task, and need none of torch
    from pipeline.diffusion.constraints import Constraint, Degradation

TaskName = Literal["restore", "inpaint", "colourise", "upscale"]


@dataclass(frozen=True)
class Task:
    """One of the tasks, and how closely it holds to what is known (Eqs. 14-16)."""

    name: TaskName = "restore"
    # λ; None holds exactly
    weight: float | None = None
    # gradient steps instead of the closed form, each of `rate`
    steps: int = 0
    rate: float = 0.5
    # of an upscaling: how many times smaller the face was seen; 0 derives it from the face's size
    factor: int = 0

    @property
    def is_blind(self) -> bool:
        """Nothing is known but the degraded face."""
        return self.name == "restore"

    def constraint(
        self, crop: NDArray[np.uint8], hole: NDArray[np.bool_] | None, scale: float
    ) -> "Constraint | None":
        """What is known of a face. crop: [S, S, 3]; hole: [S, S]; scale: picture pixels per crop pixel."""
        how = self._degradation(hole, scale, len(crop))
        if how is None:
            return None
        import torch

        from pipeline.diffusion.constraints import Constraint

        x = torch.from_numpy(crop.transpose(2, 0, 1).copy()).float() / 127.5 - 1
        weight = float("inf") if self.weight is None else self.weight
        return Constraint(how, how.observe(x), weight, self.steps, self.rate)

    def _degradation(self, hole: NDArray[np.bool_] | None, scale: float, side: int) -> "Degradation | None":
        import torch

        from pipeline.diffusion.constraints import Grey, Inpaint, Shrink

        if self.name == "inpaint" and hole is not None:
            return Inpaint(torch.from_numpy(~hole)[None].float())
        if self.name == "colourise":
            return Grey()
        if self.name == "upscale":
            return Shrink(self.factor or shrinking(scale, side))
        return None


BLIND = Task()


def shrinking(scale: float, side: int) -> int:
    """How many times smaller than the crop a face was seen: the nearest power of two that divides the side."""
    wanted = 2 ** max(round(float(np.log2(1 / scale))), 0)
    return int(np.gcd(wanted, side))
