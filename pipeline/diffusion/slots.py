"""The device's side of the engine: the faces in the slots of one worker, and the call that moves them a step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.call_shapes import CallShapes
from pipeline.diffusion.constraints import Constraint, Hold
from pipeline.diffusion.difface import NoisePredictor, advance
from pipeline.diffusion.noise import NoiseKey, key_tensor, normal_noise
from pipeline.diffusion.sampler import coefficients
from pipeline.diffusion.transfers import Readback, to_device


class Slots:
    """`count` slots on a device. A call of the prior takes `batch` faces, or fewer where that changes no bit."""

    def __init__(
        self,
        prior: NoisePredictor,
        side: int,
        count: int,
        batch: int,
        device: torch.device,
        shapes: CallShapes | None = None,
    ) -> None:
        self.count, self.batch, self.device, self.shapes = count, batch, device, shapes or CallShapes()
        self._prior = prior
        self._shape = (3, side, side)
        self._x = torch.zeros(count, *self._shape, device=device)
        self._x0_before = torch.zeros_like(self._x)
        self._estimated = torch.zeros_like(self._x)
        # on the host, from where they go out with each step
        self._keys = torch.zeros(count, 4, dtype=torch.int64)
        self._constraints: list[Constraint | Hold | None] = [None] * count

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The context in which a worker's thread makes its calls."""
        with torch.inference_mode():
            yield

    def place(
        self,
        slot: int,
        estimated: Tensor,
        x_n: Tensor,
        key: NoiseKey,
        constraint: Constraint | Hold | None = None,
    ) -> None:
        """A face enters a slot.

        estimated: [3, S, S] float32 in [0, 1]; x_n: [3, S, S] float32; constraint: what is known of the face.
        """
        self._estimated[slot], self._x[slot] = estimated, x_n
        self._x0_before[slot] = 0
        self._keys[slot] = key_tensor([key])[0]
        self._constraints[slot] = constraint.on(self.device) if constraint is not None else None

    def step(self, slots: Sequence[int], rows: NDArray[np.float32], timesteps: NDArray[np.int64]) -> None:
        """Move the faces in `slots`, at most `batch`, a step by one call; an error leaves them where they are.

        rows: [n, 7] float32 of their step tables; timesteps: [n] int64 original step numbers.
        """
        n = len(slots)
        filled = np.arange(n if self.shapes.partial else self.batch) % n  # padding repeats what is there
        chosen = torch.from_numpy(np.array(slots)[filled])
        at, keys = to_device(chosen, self.device), to_device(self._keys[chosen], self.device)
        t = to_device(torch.from_numpy(timesteps[filled]), self.device)
        c = coefficients(to_device(torch.from_numpy(rows[filled]), self.device))
        z = normal_noise(keys, t, self._shape)
        refine = partial(self._refine, [self._constraints[slot] for slot in slots])
        x, x0 = advance(self._x[at], self._x0_before[at], self._prior, t, z, c, refine)
        self._x[at[:n]], self._x0_before[at[:n]] = x[:n], x0[:n]

    @staticmethod
    def _refine(constraints: Sequence[Constraint | Hold | None], x0: Tensor) -> Tensor:
        """Hold the first faces of x̂_0, each by itself, to what is known of them."""
        for index, constraint in enumerate(constraints):
            if constraint is not None:
                x0[index] = constraint.refine(x0[index])
        return x0

    def take(self, slot: int) -> Readback:
        """A face leaves its slot."""
        self._constraints[slot] = None
        return Readback(self._estimated[slot], self._x[slot])
