"""The device's side of the engine: faces in lanes, and the network call that moves them a step.

`Lanes` runs anywhere. `GraphedLanes` is its form for a CUDA device: the step is two captured graphs over fixed
addresses, controls go out and results come back through pinned memory, and the host never waits inside a chain.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.constraints import Constraint, Hold
from pipeline.diffusion.difface import NoisePredictor, advance, from_signed, predict
from pipeline.diffusion.noise import NoiseKey, key_tensor, normal_noise
from pipeline.diffusion.sampler import coefficients, solver_step

log = logging.getLogger(__name__)

# Columns of a step table's row.
COEFFICIENTS = 7


@dataclass(frozen=True)
class Forms:
    """Which network calls give a face the same bits as a full call in one thread does."""

    # calls of fewer faces
    narrow: bool = False
    # calls shared by so many threads
    team: int = 1


class Taken:
    """A face that left its lane, on its way to the host."""

    def __init__(self, estimated: Tensor, x: Tensor) -> None:
        finite = torch.isfinite(x).all()
        pictures = torch.stack([to_bytes(estimated), to_bytes(from_signed(x))])
        self._arrival: torch.cuda.Event | None = None
        if x.is_cuda:
            self._finite, self._pictures = _to_pinned(finite), _to_pinned(pictures)
            self._arrival = torch.cuda.Event()
            self._arrival.record()
        else:
            self._finite, self._pictures = finite, pictures

    def arrived(self) -> bool:
        return self._arrival is None or self._arrival.query()

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """(estimated, restored), [S, S, 3] each; None when the chain left the finite numbers. Waits for them."""
        if self._arrival is not None:
            self._arrival.synchronize()
        if not bool(self._finite):
            return None
        estimated, restored = self._pictures.numpy()
        return estimated, restored


class Lanes:
    """`count` faces on a device. A network call takes `width` faces, or fewer where that changes no bit."""

    def __init__(
        self,
        prior: NoisePredictor,
        side: int,
        count: int,
        width: int,
        device: torch.device,
        forms: Forms | None = None,
    ) -> None:
        self.count, self.width, self.device, self.forms = count, width, device, forms or Forms()
        self._prior = prior
        self._shape = (3, side, side)
        self._x = torch.zeros(count, *self._shape, device=device)
        self._before = torch.zeros_like(self._x)
        self._estimated = torch.zeros_like(self._x)
        # on the host, from where they go out with each step
        self._keys = torch.zeros(count, 4, dtype=torch.int64)
        self._constraints: list[Constraint | Hold | None] = [None] * count

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """What the thread that moves the faces wraps its work in."""
        with torch.inference_mode():
            yield

    def place(
        self,
        lane: int,
        estimated: Tensor,
        x: Tensor,
        key: NoiseKey,
        constraint: Constraint | Hold | None = None,
    ) -> None:
        """A face enters. estimated: [3, S, S] in [0, 1]; x: its x_N; constraint: what is known of it."""
        self._estimated[lane], self._x[lane] = estimated, x
        self._before[lane] = 0
        self._keys[lane] = key_tensor([key])[0]
        self._constraints[lane] = constraint.on(self.device) if constraint is not None else None

    def step(self, lanes: Sequence[int], rows: NDArray[np.float32], steps: NDArray[np.int64]) -> None:
        """Move the faces in `lanes`, at most `width`, a step by one call; an error leaves them where they are.

        rows: [n, 7] of their step tables; steps: [n] original step numbers.
        """
        n = len(lanes)
        filled = np.arange(n if self.forms.narrow else self.width) % n  # padding repeats what is there
        chosen = torch.from_numpy(np.array(lanes)[filled])
        at, keys = to_device(chosen, self.device), to_device(self._keys[chosen], self.device)
        t = to_device(torch.from_numpy(steps[filled]), self.device)
        c = coefficients(to_device(torch.from_numpy(rows[filled]), self.device))
        z = normal_noise(keys, t, self._shape)
        refine = partial(self._refine, [self._constraints[lane] for lane in lanes])
        x, x0 = advance(self._x[at], self._before[at], self._prior, t, z, c, refine)
        self._x[at[:n]], self._before[at[:n]] = x[:n], x0[:n]

    @staticmethod
    def _refine(constraints: Sequence[Constraint | Hold | None], x0: Tensor) -> Tensor:
        """Hold the first faces of x̂_0, each by itself, to what is known of them."""
        for place, constraint in enumerate(constraints):
            if constraint is not None:
                x0[place] = constraint.refine(x0[place])
        return x0

    def take(self, lane: int) -> Taken:
        """A face leaves."""
        self._constraints[lane] = None
        return Taken(self._estimated[lane], self._x[lane])


class GraphedLanes(Lanes):
    """Lanes of a CUDA device. Every call has all of them; those without a face compute what nobody reads."""

    def __init__(
        self, prior: NoisePredictor, side: int, count: int, width: int, device: torch.device
    ) -> None:
        super().__init__(prior, side, count, width, device)
        self._stream = torch.cuda.Stream(device)
        self._rows = torch.zeros(count, COEFFICIENTS, device=device)
        self._rows[:, 0] = 1  # an empty lane divides by its sqrt(ᾱ) too
        self._steps = torch.zeros(count, dtype=torch.int64, device=device)
        self._keys_there = torch.zeros(count, 4, dtype=torch.int64, device=device)
        self._eps, self._x0 = torch.zeros_like(self._x), torch.zeros_like(self._x)
        self._sendings = [_Sending(self._rows, self._steps, self._keys_there) for _ in range(2)]
        # what is known of a face may be held in any way: that happens between two graphs
        self._prediction, self._movement = self._capture(self._predict), self._capture(self._move)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with torch.inference_mode(), torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield

    def step(self, lanes: Sequence[int], rows: NDArray[np.float32], steps: NDArray[np.int64]) -> None:
        self._sendings[0].send(
            list(lanes), torch.from_numpy(rows), torch.from_numpy(steps), self._keys[lanes]
        )
        self._sendings.reverse()
        self._prediction.replay()
        self._refine(self._constraints, self._x0)
        self._movement.replay()

    def _capture(self, program: Callable[[], None]) -> "torch.cuda.CUDAGraph":
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self.device))  # where the weights come from
        with self.in_use():
            for _ in range(3):  # libraries choose their kernels and take their memory before the capture
                program()
            self._stream.synchronize()
            with torch.cuda.graph(graph, stream=self._stream):
                program()
        return graph

    def _predict(self) -> None:
        eps, x0 = predict(self._x, self._prior, self._steps, coefficients(self._rows))
        self._eps.copy_(eps)
        self._x0.copy_(x0)

    def _move(self) -> None:
        z = normal_noise(self._keys_there, self._steps, self._shape)
        c = coefficients(self._rows)
        self._x.copy_(solver_step(self._x, self._x0, self._eps, self._before, z, c))
        self._before.copy_(self._x0)


class _Sending:
    """Pinned controls of one step. Two of them taken in turn let the host run at most two steps ahead."""

    def __init__(self, *there: Tensor) -> None:
        self._there = there
        self._here = [tensor.cpu().pin_memory() for tensor in there]
        self._left = torch.cuda.Event()

    def send(self, lanes: list[int], *values: Tensor) -> None:
        """Rows of each tensor for these lanes; the others keep what they have."""
        self._left.synchronize()
        for here, there, rows in zip(self._here, self._there, values, strict=True):
            here[lanes] = rows
            there.copy_(here, non_blocking=True)
        self._left.record()


def make_lanes(
    prior: NoisePredictor, side: int, count: int, width: int, device: torch.device, forms: Forms
) -> Lanes:
    """The form of Lanes that fits the device."""
    if device.type == "cuda":
        try:
            return GraphedLanes(prior, side, count, width, device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("the step can not be captured as a CUDA graph (%s); going on without", error)
    return Lanes(prior, side, count, width, device, forms)


def find_forms(call: Callable[[int], Tensor], width: int, threads: int) -> Forms:
    """Which forms of a network call on this CPU agree bit for bit with that of `width` faces in one thread.

    call: so many of the same random faces → [n, ...]. A kernel is chosen by shapes and threads, never by values: a
    form that agrees on random faces always does. Restores the calling thread's number of threads.
    """
    team = 1 << (threads.bit_length() - 1)

    def agree(counts: Sequence[int], threads: int) -> bool:
        torch.set_num_threads(threads)
        return all(torch.equal(call(n), full[:n]) for n in counts)

    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            full = call(width)
            narrow = agree(range(1, width), 1)
            counts = range(1, width + 1) if narrow else [width]
            return Forms(narrow, team if team > 1 and agree(counts, team) else 1)
    finally:
        torch.set_num_threads(before)


def to_bytes(image: Tensor) -> Tensor:
    """[3, S, S] in [0, 1] → [S, S, 3] uint8, rounded."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for the device."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)


def _to_pinned(value: Tensor) -> Tensor:
    """A copy in pinned host memory, complete when the stream comes to it."""
    return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
