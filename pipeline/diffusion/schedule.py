"""The variance schedule: which steps the chain visits, and ᾱ at each of them.

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
    """The steps a chain may visit, in rising order. `t`, `ab`, `ab_prev` have one entry per kept step."""

    # original step numbers (0..T-1), what the network is told
    t: NDArray[np.int64]
    # ᾱ_t, float64
    ab: NDArray[np.float64]
    # ᾱ of the kept step before; 1 for the first
    ab_prev: NDArray[np.float64]

    @property
    def betas(self) -> NDArray[np.float64]:
        """β' of the kept steps, recomputed so that ᾱ is unchanged on them."""
        return 1 - self.ab / self.ab_prev

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
    ab = linear_alphas_bar(steps)[t]
    return Schedule(t=t, ab=ab, ab_prev=np.concatenate([[1.0], ab[:-1]]))


@dataclass(frozen=True)
class Chain:
    """Where a restoration enters the reverse chain, and the steps it then walks."""

    # index at which x_N is drawn (Eq. 11)
    start: int
    # indices visited, falling to 0
    walk: tuple[int, ...]


def chain_from(
    schedule: Schedule, start_step: int, rule: StartRule = "official", calls: int | None = None
) -> Chain:
    """The chain entered at original step N.

    "official" draws x_N at N and asks the network first at the kept step below, as the published program does;
    "paper" asks it first at N itself (Algorithm 1 as printed). calls: how often the network is asked, at kept
    steps spread evenly; None, or as many as there are, asks it at each.
    """
    start = schedule.index_of(start_step)
    first = start if rule == "paper" else start - 1
    if first < 0:
        raise ValueError(
            f"start step {start_step} leaves no step to walk; choose one above {int(schedule.t[0])}"
        )
    walk = range(first, -1, -1)
    if calls is not None and calls < 1:
        raise ValueError(f"a chain asks the network at least once, got {calls} calls")
    if calls is None or calls >= len(walk):
        return Chain(start, tuple(walk))
    # each call stands for an equal share of the way, and is asked at the share's upper end
    return Chain(start, tuple(walk[i * len(walk) // calls] for i in range(calls)))


def contraction(ab: NDArray[np.float64]) -> NDArray[np.float64]:
    """κ_N = ᾱ_N / (1 - ᾱ_N): how much of the estimator's squared error is left at step N (Eq. 13)."""
    return ab / (1 - ab)
