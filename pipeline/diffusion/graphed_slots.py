"""Slots of which every call has all: the step is two programs over fixed addresses, on a GPU two captured CUDA graphs.

Inputs go out and results come back through pinned memory, and the host never waits inside a chain. On a CPU the same
programs run uncaptured: the tests compare them with the plain slots there.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.diffusion.call_shapes import CallShapes
from pipeline.diffusion.difface import NoisePredictor, predict
from pipeline.diffusion.noise import normal_noise
from pipeline.diffusion.recovery import out_of_memory
from pipeline.diffusion.sampler import COEFFICIENTS, coefficients, solver_step
from pipeline.diffusion.slots import Slots
from pipeline.diffusion.transfers import StepInputs

log = logging.getLogger(__name__)

# Runs before a capture, in which libraries choose their kernels and take their memory.
WARM_UPS = 3


class Program(Protocol):
    """Work on the device that can be done again and again."""

    def replay(self) -> None: ...


class Uncaptured:
    """A program that is no graph."""

    def __init__(self, program: Callable[[], None]) -> None:
        self.replay = program


class GraphedSlots(Slots):
    """Slots that a call computes all of. Only the faces it is asked for move; what else comes out is never read."""

    def __init__(
        self, prior: NoisePredictor, side: int, count: int, batch: int, device: torch.device
    ) -> None:
        super().__init__(prior, side, count, batch, device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._rows = torch.zeros(count, COEFFICIENTS, device=device)
        self._rows[:, 0] = 1  # an empty slot divides by its sqrt(ᾱ) too
        self._timesteps = torch.zeros(count, dtype=torch.int64, device=device)
        self._keys_on_device = torch.zeros(count, 4, dtype=torch.int64, device=device)
        # which slots the call moves: a neighbour must not take its step twice where a constraint raises in between
        self._moves = torch.zeros(count, 1, 1, 1, dtype=torch.bool, device=device)
        self._eps, self._x0 = torch.zeros_like(self._x), torch.zeros_like(self._x)
        on_device = (self._rows, self._timesteps, self._keys_on_device, self._moves)
        self._inputs = [StepInputs(*on_device) for _ in range(2)]
        # a constraint may run any code: that happens between two graphs
        self._prediction, self._movement = self._program(self._predict), self._program(self._move)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        if self._stream is None:
            with torch.inference_mode():
                yield
        else:
            with torch.inference_mode(), torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                yield

    def step(self, slots: Sequence[int], rows: NDArray[np.float32], timesteps: NDArray[np.int64]) -> None:
        moves = torch.zeros(self.count, 1, 1, 1, dtype=torch.bool)
        moves[list(slots)] = True
        values = (torch.from_numpy(rows), torch.from_numpy(timesteps), self._keys[slots])
        self._inputs[0].send(list(slots), *values, whole=moves)
        self._inputs.reverse()
        self._prediction.replay()
        for slot in slots:
            if (constraint := self._constraints[slot]) is not None:
                self._x0[slot] = constraint.refine(self._x0[slot])
        self._movement.replay()

    def _program(self, program: Callable[[], None]) -> Program:
        if self._stream is None:
            return Uncaptured(program)
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self.device))  # where the weights come from
        with self.in_use():
            for _ in range(WARM_UPS):
                program()
            self._stream.synchronize()
            # calls of other threads have no part in this capture
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                program()
        return graph

    def _predict(self) -> None:
        eps, x0 = predict(self._x, self._prior, self._timesteps, coefficients(self._rows))
        self._eps.copy_(eps)
        self._x0.copy_(x0)

    def _move(self) -> None:
        z = normal_noise(self._keys_on_device, self._timesteps, self._shape)
        c = coefficients(self._rows)
        x = solver_step(self._x, self._x0, self._eps, self._x0_before, z, c)
        self._x.copy_(torch.where(self._moves, x, self._x))
        self._x0_before.copy_(torch.where(self._moves, self._x0, self._x0_before))


def make_slots(
    prior: NoisePredictor, side: int, count: int, batch: int, device: torch.device, shapes: CallShapes
) -> Slots:
    """`count` slots of the kind that fits the device; without graphs where the step can not be captured.

    Raises what says that memory is exhausted.
    """
    if device.type == "cuda":
        try:
            return GraphedSlots(prior, side, count, batch, device)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            log.warning("the step can not be captured as a CUDA graph (%s); going on without", error)
    return Slots(prior, side, count, batch, device, shapes)
