"""Group norms that keep 16-bit activations, for the training of a UNet on a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.unet import GroupNorm32


class HalfGroupNorm(GroupNorm32):
    """The same norm without a float32 copy of its input: the kernel's own statistics are float32 all the same."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def keep_half(network: nn.Module) -> None:
    """Make every GroupNorm32 of a network a HalfGroupNorm, in place; parameters and their names stay."""
    for module in network.modules():
        if type(module) is GroupNorm32:
            module.__class__ = HalfGroupNorm
