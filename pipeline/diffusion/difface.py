"""Algorithm 1 of DifFace: estimate, diffuse to step N, denoise. The reference that the engine must agree with.

Source: Yue & Loy, "DifFace: Blind Face Restoration with Diffused Error Contraction" (arXiv 2212.06512).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.diffusion.noise import DRAW_X_N, NoiseKey, key_tensor, normal_noise
from pipeline.diffusion.sampler import (
    Solver,
    StepCoefficients,
    coefficients,
    diffuse,
    predict_x0,
    solver_step,
    step_table,
)
from pipeline.diffusion.schedule import Chain, Schedule

# Noise of one draw: the step tag (an original step number, or DRAW_X_N) → [B, 3, S, S] float32.
NoiseSource = Callable[[int], Tensor]
# What holds x̂_0 of each step, [B, 3, S, S] in [-1, 1], to what is known of the faces (constraints.py).
Refinement = Callable[[Tensor], Tensor]
# ε_θ: (x [B, 3, S, S], t [B] original step numbers) → [B, 3 or 6, S, S], the first three channels being ε.
NoisePredictor = Callable[[Tensor, Tensor], Tensor]


def unrefined(x0: Tensor) -> Tensor:
    """Nothing is known of the faces but what they look like."""
    return x0


def restore(
    faces: Tensor,
    estimator: Callable[[Tensor], Tensor],
    prior: NoisePredictor,
    schedule: Schedule,
    chain: Chain,
    eta: float,
    noise: NoiseSource,
    solver: Solver = "ddim",
    refine: Refinement = unrefined,
) -> tuple[Tensor, Tensor]:
    """[B, 3, S, S] float32 degraded faces in [0, 1] → (estimated, restored), both in [0, 1]."""
    estimated = estimator(faces).clamp(0, 1)
    x_n = enter_chain(estimated, schedule, chain, noise(DRAW_X_N))
    x_0 = reverse_chain(x_n, prior, schedule, chain, eta, noise, solver, refine)
    return estimated, from_signed(x_0)


def enter_chain(estimated: Tensor, schedule: Schedule, chain: Chain, noise: Tensor) -> Tensor:
    """x_N drawn from the estimate (Eq. 11), [B, 3, S, S] float32.

    estimated: [B, 3, S, S] float32 in [0, 1]; noise: [B, 3, S, S] float32.
    """
    ab = torch.tensor(schedule.ab[chain.start])
    return diffuse(to_signed(estimated), noise, float(ab.sqrt()), float((1 - ab).sqrt()))


def reverse_chain(
    x: Tensor,
    prior: NoisePredictor,
    schedule: Schedule,
    chain: Chain,
    eta: float,
    noise: NoiseSource,
    solver: Solver = "ddim",
    refine: Refinement = unrefined,
) -> Tensor:
    """x_N → x̂_0 in [-1, 1], both [B, 3, S, S] float32, by one step per index of the chain (Algorithm 1, lines 4-6)."""
    x0 = torch.zeros_like(x)
    for index, row in zip(chain.indices, step_table(schedule, chain, eta, solver).to(x.device), strict=True):
        step = int(schedule.t[index])
        t = torch.full((len(x),), step, device=x.device)
        x, x0 = advance(x, x0, prior, t, noise(step), coefficients(row.expand(len(x), -1)), refine)
    return x


def advance(
    x: Tensor,
    x0_before: Tensor,
    prior: NoisePredictor,
    t: Tensor,
    z: Tensor,
    c: StepCoefficients,
    refine: Refinement = unrefined,
) -> tuple[Tensor, Tensor]:
    """One step of every face, each at its own timestep: x at the next step of its chain, and this step's x̂_0.

    x, x0_before, z and both results: [B, 3, S, S] float32; t: [B] int64 original step numbers.
    """
    eps, x0 = predict(x, prior, t, c)
    x0 = refine(x0)
    return solver_step(x, x0, eps, x0_before, z, c), x0


def predict(x: Tensor, prior: NoisePredictor, t: Tensor, c: StepCoefficients) -> tuple[Tensor, Tensor]:
    """ε and x̂_0 of every face, [B, 3, S, S] float32 each. t: [B] int64 original step numbers."""
    eps = prior(x, t)[:, :3].float()
    return eps, predict_x0(x, eps, c)


def face_noise(keys: list[NoiseKey], side: int, device: torch.device | str = "cpu") -> NoiseSource:
    """The noise that belongs to these faces, as `restore` draws it: [B, 3, side, side] float32."""
    words = key_tensor(keys, device)

    def draw(step: int) -> Tensor:
        steps = torch.full((len(keys),), step, dtype=torch.int64, device=words.device)
        return normal_noise(words, steps, (3, side, side))

    return draw


def to_signed(image: Tensor) -> Tensor:
    """[0, 1] → [-1, 1]."""
    return image * 2 - 1


def from_signed(x: Tensor) -> Tensor:
    """[-1, 1] → [0, 1], clamped."""
    return (x * 0.5 + 0.5).clamp(0, 1)
