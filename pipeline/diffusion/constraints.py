"""What is known of a face beyond its degraded picture, and how a step of the chain is held to it (Eqs. 14-16).

Of a blind face the low frequencies are known, from its estimate: `Hold` keeps those, and the prior adds the rest.

A `Degradation` is A in y = A(x): what an observer sees of a clean face. A `Constraint` is A with what was seen; it
pulls each step's x̂_0 towards the faces of which that could have been seen. A degradation of one's own needs `observe`
alone, any differentiable function; `project` is its closed form, where it has one.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# Luminance of linear RGB is not meant here: these are the weights of the luma of JPEG and television (BT.601).
LUMA = (0.299, 0.587, 0.114)
# w·w in float32: known beforehand, so that no step waits for the device
LUMA_SQUARED = float((torch.tensor(LUMA) ** 2).sum())


class Degradation(Protocol):
    """A known, differentiable way of losing information."""

    def observe(self, x: Tensor) -> Tensor:
        """A(x) of a clean face [3, S, S] in [-1, 1]."""
        ...

    def project(self, x0: Tensor, seen: Tensor, weight: float) -> Tensor | None:
        """The x that minimises ‖x - x0‖² + weight ‖A(x) - seen‖²; inf gives A(x) = seen. None: no closed form."""
        ...


@dataclass(frozen=True)
class Inpaint:
    """The pixels outside a hole are seen."""

    # [1, S, S] float32, 1 where a pixel is known: K
    known: Tensor

    def observe(self, x: Tensor) -> Tensor:
        return self.known * x

    def project(self, x0: Tensor, seen: Tensor, weight: float) -> Tensor:
        """(x̂_0 + λ K y) / (1 + λ K)  (Eq. 16)."""
        if weight == float("inf"):
            return torch.where(self.known > 0, seen, x0)
        return (x0 + weight * seen) / (1 + weight * self.known)


@dataclass(frozen=True)
class Grey:
    """The luma is seen, the colour is not."""

    # [3, 1, 1] float32, on the device of the faces
    luma: Tensor = field(default_factory=lambda: torch.tensor(LUMA).view(3, 1, 1))

    def observe(self, x: Tensor) -> Tensor:
        """[3, S, S] → [1, S, S]."""
        return (x * self.luma).sum(0, keepdim=True)

    def project(self, x0: Tensor, seen: Tensor, weight: float) -> Tensor:
        """A step along the luma's direction w: x̂_0 + w (y - w·x̂_0) / (1/λ + w·w)."""
        return x0 + self.luma * (seen - self.observe(x0)) / (1 / weight + LUMA_SQUARED)


@dataclass(frozen=True)
class Shrink:
    """Means of blocks of `factor` x `factor` pixels are seen."""

    factor: int

    def observe(self, x: Tensor) -> Tensor:
        """[3, S, S] → [3, S / factor, S / factor]."""
        return F.avg_pool2d(x, self.factor)

    def project(self, x0: Tensor, seen: Tensor, weight: float) -> Tensor:
        """Every pixel of a block moves alike: by (y - mean) / (1 + factor² / λ)."""
        off = (seen - self.observe(x0)) / (1 + self.factor**2 / weight)
        return x0 + off.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)


@dataclass(frozen=True)
class Constraint:
    """What was seen of one face, and how closely each step is held to it."""

    degradation: Degradation
    # A(x) of the unknown clean face
    seen: Tensor
    # λ of Eq. 15, where there is a closed form and `steps` is 0; inf holds exactly
    weight: float = float("inf")
    # gradient steps instead, each by `rate`; 1 and 0.5 are the official program's
    steps: int = 0
    rate: float = 0.5

    def on(self, device: torch.device) -> "Constraint":
        """The same with all its tensors on a device."""
        return replace(self, degradation=_moved(self.degradation, device), seen=self.seen.to(device))

    def refine(self, x0: Tensor) -> Tensor:
        """x̂_0, [3, S, S] in [-1, 1], moved towards what was seen."""
        if not self.steps:
            projected = self.degradation.project(x0, self.seen, self.weight)
            if projected is not None:
                return projected
        for _ in range(max(self.steps, 1)):
            x0 = x0 - self.rate * self._gradient(x0)
        return x0

    def _gradient(self, x0: Tensor) -> Tensor:
        """∇ ‖A(x̂_0) - y‖²."""
        # the chain runs in inference mode, whose tensors take part in no gradient
        with torch.inference_mode(False), torch.enable_grad():
            x = x0.clone().requires_grad_()
            seen = self.seen.clone()
            (gradient,) = torch.autograd.grad((self.degradation.observe(x) - seen).square().sum(), x)
        return gradient


@dataclass(frozen=True)
class Hold:
    """The low frequencies of a face's estimate, which each step keeps.

    Source: DynFaceRestore (arXiv 2507.13797).
    """

    # width (standard deviation) of the Gaussian G_σ, pixels
    sigma: float
    # G_σ * f(y), [3, S, S] in [-1, 1]
    low: Tensor
    # w: 1 keeps them exactly
    weight: float = 1.0

    @classmethod
    def to(cls, estimated: Tensor, sigma: float, weight: float = 1.0) -> "Hold":
        """Hold to an estimate, [3, S, S] in [-1, 1]."""
        return cls(sigma, low_frequencies(estimated, sigma), weight)

    def on(self, device: torch.device) -> "Hold":
        """The same on a device."""
        return replace(self, low=self.low.to(device))

    def refine(self, x0: Tensor) -> Tensor:
        """x̂_0 + w (G_σ * f(y) - G_σ * x̂_0), [3, S, S]."""
        return x0 + self.weight * (self.low - low_frequencies(x0, self.sigma))


def low_frequencies(x: Tensor, sigma: float) -> Tensor:
    """G_σ * x over the last two dimensions, [..., S, S], which mirror at their edges; σ in pixels.

    A sum of shifted pictures in a fixed order, so that its bits depend on neither threads nor batch.
    """
    return _blurred(_blurred(x, sigma, -1), sigma, -2)


def _blurred(x: Tensor, sigma: float, dim: int) -> Tensor:
    """The Gaussian along one dimension, cut off behind three σ."""
    size = x.shape[dim]
    reach = min(int(3 * sigma + 0.5), size - 1)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(reach + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    # the edge's own pixel is not repeated
    mirrored = torch.cat(
        [x.narrow(dim, 1, reach).flip(dim), x, x.narrow(dim, size - 1 - reach, reach).flip(dim)], dim
    )
    blurred = x * (weights[0] / total)
    for k in range(1, reach + 1):
        both = mirrored.narrow(dim, reach - k, size) + mirrored.narrow(dim, reach + k, size)
        blurred = blurred.add_(both, alpha=weights[k] / total)
    return blurred


def _moved(degradation: Any, device: torch.device) -> Any:
    """A dataclass with its tensors on the device; anything else as it is."""
    if not is_dataclass(degradation) or isinstance(degradation, type):
        return degradation
    values = {f.name: getattr(degradation, f.name) for f in fields(degradation)}
    return replace(degradation, **{n: v.to(device) for n, v in values.items() if isinstance(v, Tensor)})
