"""MUSIQ's network, under the names of the converted file that is in use (`musiq_koniq_ckpt-e95806b9.pth`).

Source: Ke et al., "MUSIQ: Multi-scale Image Quality Transformer" (ICCV 2021), google-research/musiq (Apache-2.0). As in
the program that the converted files belong to, GELU is exact and smaller pictures are made by bicubic interpolation.
"""

from math import ceil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import load_strict

# Longer sides of the resized pictures, network input together with the picture; side of a patch. Pixels.
SIDES, PATCH = (224, 384), 32
# Positions of patches are rounded to those of a grid of this many rows and columns.
GRID = 10
# Channels of the first convolution; width, layers, heads and inner width of the transformer.
ROOT, WIDTH, LAYERS, HEADS, HIDDEN = 64, 384, 14, 6, 1152


class StandardisedConv(nn.Conv2d):
    """A convolution whose kernels are normalised, of half its input's size where the stride is 2."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        # one pixel more on the right and below where an odd number is missing
        missing = self.kernel_size[0] - self.stride[0]
        before, after = missing // 2, missing - missing // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=self.stride)


class Bottleneck(nn.Module):
    """[B, C, H, W] → [B, 4 C, H, W]"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        out = 4 * channels
        self.conv1, self.conv2 = (StandardisedConv(channels, channels, k, bias=False) for k in (1, 3))
        self.conv3, self.conv_proj = (StandardisedConv(channels, out, 1, bias=False) for _ in range(2))
        self.gn1, self.gn2 = (nn.GroupNorm(32, channels, eps=1e-4) for _ in range(2))
        self.gn3, self.gn_proj = (nn.GroupNorm(32, out, eps=1e-4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.gn1(self.conv1(x)))
        y = F.relu(self.gn2(self.conv2(y)))
        return F.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))


class Attention(nn.Module):
    """[B, N, C] → [B, N, C]"""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for p in (self.query, self.key, self.value))
        y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """A layer of the transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
        self.attention = Attention()
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, HIDDEN), "fc2": nn.Linear(HIDDEN, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return y


class Encoder(nn.Module):
    """Patches with their places and scales → [B, WIDTH], the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.posembed_input = nn.ParameterDict({"position_emb": torch.empty(1, GRID**2, WIDTH)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.empty(len(SIDES) + 1, WIDTH)})
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": Block() for i in range(LAYERS)})
        self.encoder_norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x: Tensor, places: Tensor, scales: Tensor) -> Tensor:
        """x: [B, N, WIDTH]; places, scales: [N] int64."""
        x = x + self.posembed_input["position_emb"][0, places] + self.scaleembed_input["scale_emb"][scales]
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.transformer.values():
            x = block(x)
        y: Tensor = self.encoder_norm(x)[:, 0]
        return y


class Musiq(nn.Module):
    """[B, 3, H, W] float32 in [-1, 1], of any size → [B] opinion scores of the data that it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_root = StandardisedConv(3, ROOT, 7, 2, bias=False)
        self.gn_root = nn.GroupNorm(32, ROOT, eps=1e-6)
        self.block1 = Bottleneck(ROOT)
        self.embedding = nn.Linear(4 * ROOT * (PATCH // 4) ** 2, WIDTH)
        self.transformer_encoder = Encoder()
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches, places, scales = multiscale(x)
        y = F.relu(self.gn_root(self.conv_root(patches.flatten(0, 1))))
        y = self.block1(F.max_pool2d(F.pad(y, (0, 1, 0, 1)), 3, 2))
        # colours last, as in the original
        tokens = self.embedding(y.permute(0, 2, 3, 1).flatten(1)).unflatten(0, patches.shape[:2])
        score: Tensor = self.head(self.transformer_encoder(tokens, places, scales))
        return score[:, 0]


def multiscale(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The patches of the pictures at every scale, [B, N, 3, PATCH, PATCH], with place and scale of each, [N] int64."""
    height, width = x.shape[2:]
    patches, places, scales = [], [], []
    for scale, side in enumerate((*SIDES, None)):
        resized = x
        if side is not None:
            ratio = side / max(height, width)
            size = (round(height * ratio), round(width * ratio))
            resized = F.interpolate(x, size, mode="bicubic", align_corners=False)
        found, there = cut(resized)
        patches.append(found)
        places.append(there)
        scales.append(torch.full_like(there, scale))
    return torch.cat(patches, dim=1), torch.cat(places), torch.cat(scales)


def cut(x: Tensor) -> tuple[Tensor, Tensor]:
    """The patches of pictures padded with zeros on all sides, [B, N, 3, PATCH, PATCH], and their places, [N]."""
    rows, columns = (ceil(side / PATCH) for side in x.shape[2:])
    down, right = rows * PATCH - x.shape[2], columns * PATCH - x.shape[3]
    filled = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    patches = filled.unflatten(3, (columns, PATCH)).unflatten(2, (rows, PATCH)).permute(0, 2, 4, 1, 3, 5)
    row, column = (torch.arange(n, device=x.device) * GRID // n for n in (rows, columns))
    return patches.flatten(1, 2), (row[:, None] * GRID + column).flatten()


def load_musiq(path: Path) -> Musiq:
    """The network of a weights file, float32, on the CPU. Raises CheckpointError for another network's file."""
    state = read_archive(path)
    with torch.device("meta"):
        network = Musiq()
    load_strict(network, state, f"{path} as MUSIQ", assign=True)
    return network.eval()
