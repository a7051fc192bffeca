"""The variance schedule: which timesteps the chain visits, and ᾱ at each of them.

Source: Ho et al., DDPM (arXiv 2006.11239) for the linear schedule, Nichol & Dhariwal (arXiv 2102.09672) for
respacing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

StartRule = Literal["official", "paper"]


@dataclass(frozen=True)
class Schedule:
    """The timesteps a chain may visit, in rising order. `t` and `ab` have one entry per kept timestep."""

    # original step numbers (0..T-1), the network's second input
    t: NDArray[np.int64]
    # ᾱ_t, float64
    ab: NDArray[np.float64]

    def index_of(self, step: int) -> int:
        """Index of an original step number N. Raises ValueError naming the neighbours when it is not kept."""
        found = np.flatnonzero(self.t == step)
        if len(found):
            return int(found[0])
        near = self.t[np.argsort(np.abs(self.t - step))[:2]]
        raise ValueError(
            f"start step {step} is not among the {len(self.t)} kept steps "
            f"({self.t[0]}..{self.t[-1]}); nearest are {sorted(int(n) for n in near)}"
        )


def linear_alphas_bar(steps: int = 1000) -> NDArray[np.float64]:
    """ᾱ of the linear schedule, β from 1e-4 to 0.02 (both scaled by 1000/T for T other than 1000)."""
    scale = 1000 / steps
    betas = np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)
    ab: NDArray[np.float64] = np.cumprod(1 - betas, dtype=np.float64)
    return ab


def kept_steps(respacing: str, steps: int = 1000) -> NDArray[np.int64]:
    """Original step numbers of a respacing: `ddimK` takes every s-th step, `K` spreads K steps over both ends."""
    digits = respacing.removeprefix("ddim")
    if not digits.isdecimal() or not 1 <= int(digits) <= steps:
        raise ValueError(f"steps must be 'ddimK' or 'K' with K from 1 to {steps}, got {respacing!r}")
    wanted = int(digits)
    if respacing.startswith("ddim"):
        for stride in range(1, steps + 1):
            if len(range(0, steps, stride)) == wanted:
                return np.arange(0, steps, stride)
        raise ValueError(
            f"no whole stride keeps exactly {wanted} of {steps} steps; try {wanted!r} without 'ddim'"
        )
    if wanted == 1:
        return np.zeros(1, dtype=np.int64)
    return np.array([round(i * (steps - 1) / (wanted - 1)) for i in range(wanted)])


def make_schedule(respacing: str = "ddim250", steps: int = 1000) -> Schedule:
    """The schedule that visits the kept steps of a `steps`-step linear schedule."""
    t = kept_steps(respacing, steps)
    return Schedule(t=t, ab=linear_alphas_bar(steps)[t])


@dataclass(frozen=True)
class Chain:
    """Where a restoration enters the reverse chain, and the steps it then takes: indices into a Schedule."""

    # index at which x_N is drawn (Eq. 11)
    start: int
    # of each network call, falling to 0
    indices: tuple[int, ...]


def chain_from(
    schedule: Schedule,
    start_step: int,
    rule: StartRule = "official",
    calls: int | None = None,
    last_step: int | None = None,
) -> Chain:
    """The chain entered at original step N.

    "official" draws x_N at N and makes its first network call at the kept step below, as the published program does;
    "paper" makes it at N itself (Algorithm 1 as printed). calls: number of network calls, at kept steps spread evenly;
    None, or as many as there are, makes one at each. last_step: original step at or below which the last of several
    calls is made; None, or one that leaves too few steps above it, makes it where the last equal share of the steps
    begins. Raises ValueError when N is not kept or leaves no step.
    """
    start = schedule.index_of(start_step)
    first = start if rule == "paper" else start - 1
    if first < 0:
        raise ValueError(
            f"start step {start_step} leaves the chain without a step; choose one above {int(schedule.t[0])}"
        )
    indices = range(first, -1, -1)
    if calls is not None and calls < 1:
        raise ValueError(f"a chain makes at least one network call, got {calls} calls")
    if calls is None or calls >= len(indices):
        return Chain(start, tuple(indices))
    last = 0 if last_step is None else max(int(np.searchsorted(schedule.t, last_step, side="right")) - 1, 0)
    if last_step is not None and first - last >= calls - 1 > 0:
        return Chain(start, tuple(first - (first - last) * i // (calls - 1) for i in range(calls)))
    # each call covers an equal share of the steps, and is made at the share's upper end
    return Chain(start, tuple(indices[i * len(indices) // calls] for i in range(calls)))


def contraction(ab: NDArray[np.float64]) -> NDArray[np.float64]:
    """κ_N = ᾱ_N / (1 - ᾱ_N): how much of the estimator's squared error is left at step N (Eq. 13)."""
    return ab / (1 - ab)
