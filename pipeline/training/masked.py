"""The losses of the portrait networks' training, in which pixels beyond a picture's border weigh nothing."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.diffusion.sampler import diffuse
from pipeline.diffusion.schedule import linear_alphas_bar
from pipeline.training.face_batches import Batch


def masked_l1(network: nn.Module, batch: Batch) -> Tensor:
    """mean |f(y_0) - x_0| over the pixels of the pictures: the estimator's only loss."""
    return _mean((network(batch["lq"]).float() - batch["hq"]).abs(), batch["mask"])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of [B, 3, S, S] where [B, 1, S, S] is 1."""
    return (values * mask).sum() / (values.shape[1] * mask.sum()).clamp(min=1)


@dataclass(frozen=True)
class MaskedEps:
    """mean ‖ε - ε_θ(x_t, t)‖² over the pixels of the pictures, t uniform up to `max_step` (Ho et al., Eq. 14)."""

    device: torch.device
    # highest timestep
    max_step: int
    ab: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # ᾱ_t, float32
        object.__setattr__(self, "ab", torch.from_numpy(linear_alphas_bar()).float().to(self.device))

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """The mean loss over the batch; steps and noise follow from its `seed`."""
        generator = torch.Generator(self.device).manual_seed(int(batch["seed"]))
        shape = batch["hq"].shape
        t = torch.randint(0, self.max_step + 1, shape[:1], device=self.device, generator=generator)
        eps = torch.randn(shape, device=self.device, generator=generator)
        return self.at(network, batch, t, eps)

    def at(self, network: nn.Module, batch: Batch, t: Tensor, eps: Tensor) -> Tensor:
        """The loss at given steps [B] and noises [B, 3, S, S]."""
        ab = self.ab[t][:, None, None, None]
        x_t = diffuse(batch["hq"] * 2 - 1, eps, ab.sqrt(), (1 - ab).sqrt())
        x_t = x_t.to(memory_format=torch.channels_last)
        return _mean((network(x_t, t)[:, :3].float() - eps).square(), batch["mask"])
