"""The inference network of a trained NAFNet: the same function, arranged for speed.

- Pixels keep their channels together (channels_last) from the first convolution to the last: a layer norm then reads
  what lies side by side, and a 1x1 convolution is a matrix product. On a CPU the plain network copies every activation
  once for each norm.
- The factors of the residual branches are in the weights of the convolutions before them.
- On a CPU, convolutions go to oneDNN directly, as in `inference_unet.py`, and channel attention is a sum of products: a
  matrix product is another program for one face than for several, and rounds differently.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.inference_unet import Conv
from pipeline.networks.nafnet import LayerNorm2d, NAFBlock, NAFNet, gated, pad_to, with_holes_filled


class InferenceNAFNet(nn.Module):
    """What a NAFNet makes of a picture: float32 in [0, 1] → [B, 3, H, W] float32, not clamped; shapes as there.

    precision: number type of weights and activations; norms' statistics, channel attention, the input and its sum with
    the correction are float32. The NAFNet is not changed and not kept.
    """

    def __init__(self, nafnet: NAFNet, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.precision = precision
        self.config = nafnet.config

        def converted(blocks: nn.Module) -> nn.Sequential:
            return nn.Sequential(*(Gated(block, precision) for block in blocks.children()))

        with torch.no_grad():
            self.intro, self.ending = Conv(nafnet.intro, precision), Conv(nafnet.ending, precision)
            self.encoders = nn.ModuleList(converted(blocks) for blocks in nafnet.encoders)
            self.downs = nn.ModuleList(Conv(down, precision) for down in nafnet.downs)
            self.middle = converted(nafnet.middle_blks)
            self.ups = nn.ModuleList(Conv(next(up.children()), precision) for up in nafnet.ups)
            self.decoders = nn.ModuleList(converted(blocks) for blocks in nafnet.decoders)
        self.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, y: Tensor) -> Tensor:
        height, width = y.shape[2:]
        padded = pad_to(with_holes_filled(y, self.config), self.config.multiple)
        x = F.pixel_unshuffle(padded, self.config.patch).to(self.precision, memory_format=torch.channels_last)
        x = self.intro(x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(F.pixel_shuffle(up(x), 2).add_(skips.pop()))
        correction = F.pixel_shuffle(self.ending(x).float(), self.config.patch)
        return (padded[:, : self.config.img_channel] + correction)[:, :, :height, :width].contiguous()


class Gated(nn.Module):
    """A NAFBlock with `beta` in its third convolution and `gamma` in its fifth."""

    def __init__(self, block: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, NAFBlock)
        self.norm1, self.norm2 = Norm(block.norm1, precision), Norm(block.norm2, precision)
        self.conv1, self.conv2 = Conv(block.conv1, precision), Conv(block.conv2, precision)
        self.conv3 = Conv(block.conv3, precision, scale=block.beta[0])
        self.conv4 = Conv(block.conv4, precision)
        self.conv5 = Conv(block.conv5, precision, scale=block.gamma[0])
        self.attention = Attention(block.sca[1])

    def forward(self, x: Tensor) -> Tensor:
        h = gated(self.conv2(self.conv1(self.norm1(x))))
        x = self.conv3(h.mul_(self.attention(h))).add_(x)
        out: Tensor = self.conv5(gated(self.conv4(self.norm2(x)))).add_(x)
        return out


class Norm(nn.Module):
    """A layer norm over the channels of each pixel; statistics in float32 whatever the number type."""

    def __init__(self, norm: LayerNorm2d, precision: torch.dtype) -> None:
        super().__init__()
        # Not folded into the convolution behind it: torch's kernel without an affine is the slower one.
        self.weight = nn.Parameter(norm.weight.to(precision, copy=True))
        self.bias = nn.Parameter(norm.bias.to(precision, copy=True))
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Channel attention: the factor of each channel from the means of all channels, [B, C, H, W] → [B, C, 1, 1]."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        self.weight = nn.Parameter(conv.weight[:, :, 0, 0].clone())
        self.bias = nn.Parameter(conv.bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), dtype=torch.float32)
        factors = (self.weight * means[:, None]).sum(dim=2).add_(self.bias)
        return factors.to(x.dtype)[:, :, None, None]
