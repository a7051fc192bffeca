"""Slots of a CUDA device: the step is two captured graphs over fixed addresses.

Inputs go out and results come back through pinned memory, and the host never waits inside a chain.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.diffusion.call_shapes import CallShapes
from pipeline.diffusion.difface import NoisePredictor, predict
from pipeline.diffusion.noise import normal_noise
from pipeline.diffusion.sampler import COEFFICIENTS, coefficients, solver_step
from pipeline.diffusion.slots import Slots
from pipeline.diffusion.transfers import PinnedInputs

log = logging.getLogger(__name__)

# Runs before a capture, in which libraries choose their kernels and take their memory.
WARM_UPS = 3


class GraphedSlots(Slots):
    """Slots of a CUDA device. Every call has all of them; those without a face compute what is never read."""

    def __init__(
        self, prior: NoisePredictor, side: int, count: int, batch: int, device: torch.device
    ) -> None:
        super().__init__(prior, side, count, batch, device)
        self._stream = torch.cuda.Stream(device)
        self._rows = torch.zeros(count, COEFFICIENTS, device=device)
        self._rows[:, 0] = 1  # an empty slot divides by its sqrt(ᾱ) too
        self._timesteps = torch.zeros(count, dtype=torch.int64, device=device)
        self._keys_on_device = torch.zeros(count, 4, dtype=torch.int64, device=device)
        self._eps, self._x0 = torch.zeros_like(self._x), torch.zeros_like(self._x)
        self._inputs = [PinnedInputs(self._rows, self._timesteps, self._keys_on_device) for _ in range(2)]
        # a constraint may run any code: that happens between two graphs
        self._prediction, self._movement = self._capture(self._predict), self._capture(self._move)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with torch.inference_mode(), torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield

    def step(self, slots: Sequence[int], rows: NDArray[np.float32], timesteps: NDArray[np.int64]) -> None:
        self._inputs[0].send(
            list(slots), torch.from_numpy(rows), torch.from_numpy(timesteps), self._keys[slots]
        )
        self._inputs.reverse()
        self._prediction.replay()
        self._refine(self._constraints, self._x0)
        self._movement.replay()

    def _capture(self, program: Callable[[], None]) -> "torch.cuda.CUDAGraph":
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self.device))  # where the weights come from
        with self.in_use():
            for _ in range(WARM_UPS):
                program()
            self._stream.synchronize()
            with torch.cuda.graph(graph, stream=self._stream):
                program()
        return graph

    def _predict(self) -> None:
        eps, x0 = predict(self._x, self._prior, self._timesteps, coefficients(self._rows))
        self._eps.copy_(eps)
        self._x0.copy_(x0)

    def _move(self) -> None:
        z = normal_noise(self._keys_on_device, self._timesteps, self._shape)
        c = coefficients(self._rows)
        self._x.copy_(solver_step(self._x, self._x0, self._eps, self._x0_before, z, c))
        self._x0_before.copy_(self._x0)


def make_slots(
    prior: NoisePredictor, side: int, count: int, batch: int, device: torch.device, shapes: CallShapes
) -> Slots:
    """`count` slots of the kind that fits the device; without graphs where the step can not be captured."""
    if device.type == "cuda":
        try:
            return GraphedSlots(prior, side, count, batch, device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("the step can not be captured as a CUDA graph (%s); going on without", error)
    return Slots(prior, side, count, batch, device, shapes)
