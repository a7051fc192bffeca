"""MANIQA's network, under the names of its published file (`ckpt_koniq10k.pt`, Apache-2.0).

Source: Yang et al., "MANIQA: Multi-dimension Attention Network for No-Reference Image Quality Assessment" (CVPRW 2022).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import load_strict

# Side of a picture and of its patches, pixels; patches along a side.
SIDE, PATCH = 224, 8
GRID = SIDE // PATCH
# Width, layers and heads of the vision transformer, and the layers whose outputs are taken.
WIDTH, LAYERS, HEADS = 768, 12, 12
TAKEN = (6, 7, 8, 9)
# Side of an attention window in patches, heads, and width inside a block of the two stages that follow.
WINDOW, WINDOW_HEADS, HIDDEN = 4, 4, 768
# Share of a layer's output that is added to its input.
SCALE = 0.8


class Mlp(nn.Module):
    """Two linear layers for each place."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Attention(nn.Module):
    """Attention among the places of each row: [B, N, C] → [B, N, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """bias: added to the products of queries and keys, broadcast to [B, heads, N, N]."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """A layer of the vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn, self.mlp = Attention(WIDTH, HEADS), Mlp(WIDTH, 4 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class VisionTransformer(nn.Module):
    """[B, 3, SIDE, SIDE] → [B, N, 4 WIDTH], the outputs of the taken layers without the class token.

    The layers behind them, the last norm and the classes are in the published file and not used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + GRID**2, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1000)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embed
        taken = []
        for i, block in enumerate(self.blocks[: TAKEN[-1] + 1]):
            x = block(x)
            if i in TAKEN:
                taken.append(x[:, 1:])
        return torch.cat(taken, dim=2)


class TransposedAttention(nn.Module):
    """Attention among channels: [B, C, N] → [B, C, N]."""

    def __init__(self) -> None:
        super().__init__()
        self.c_q, self.c_k, self.c_v = (nn.Linear(GRID**2, GRID**2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(self.c_q(x), self.c_k(x), self.c_v(x))
        # transposed without being transposed back, as the network was trained
        return y.transpose(1, 2).reshape(x.shape) + x


class WindowAttention(Attention):
    """Attention among the places of a window, with a learnt bias for each displacement."""

    relative_position_index: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, WINDOW_HEADS)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, WINDOW_HEADS))
        self.register_buffer("relative_position_index", torch.empty(WINDOW**2, WINDOW**2, dtype=torch.int64))

    def displaced(self) -> Tensor:
        """[heads, N, N] the biases."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)


class WindowBlock(nn.Module):
    """A layer of attention in windows, which may be shifted by half a window: [B, GRID, GRID, C] → the same."""

    attn_mask: Tensor

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp, self.shift = WindowAttention(width), Mlp(width, HIDDEN), shift
        if shift:
            # the published file has it: 0 between places of one region, -100 between others
            self.register_buffer("attn_mask", torch.empty((GRID // WINDOW) ** 2, WINDOW**2, WINDOW**2))

    def forward(self, x: Tensor) -> Tensor:
        count, windows = len(x), GRID // WINDOW
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.unflatten(2, (windows, WINDOW)).unflatten(1, (windows, WINDOW)).transpose(2, 3)
        bias = self.attn.displaced()[None]
        if self.shift:
            bias = (bias + self.attn_mask[:, None]).repeat(count, 1, 1, 1)
        y = self.attn(y.reshape(-1, WINDOW**2, x.shape[3]), bias)
        y = y.reshape(count, windows, windows, WINDOW, WINDOW, -1).transpose(2, 3).reshape(x.shape)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class WindowLayer(nn.Module):
    """Two window blocks, the second one shifted, and a convolution: [B, GRID, GRID, C] → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.blocks = nn.Sequential(WindowBlock(width, 0), WindowBlock(width, WINDOW // 2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.blocks(x).permute(0, 3, 1, 2))
        return F.relu(y).permute(0, 2, 3, 1)


class WindowStage(nn.Module):
    """[B, C, GRID, GRID] → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(WindowLayer(width), WindowLayer(width))
        # in the published file, and not used
        self.downsample = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for layer in self.layers:
            x = SCALE * layer(x) + x
        return x.permute(0, 3, 1, 2)


class Maniqa(nn.Module):
    """[B, 3, 224, 224] float32 in [-1, 1] → [B] opinion scores in 0 (bad) to about 1 (good)."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTH // 2
        self.vit = VisionTransformer()
        self.tablock1, self.tablock2 = (
            nn.Sequential(TransposedAttention(), TransposedAttention()) for _ in range(2)
        )
        self.conv1, self.conv2 = nn.Conv2d(len(TAKEN) * WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, half, 1)
        self.swintransformer1, self.swintransformer2 = WindowStage(WIDTH), WindowStage(half)
        self.fc_score = nn.Sequential(
            nn.Linear(half, half), nn.ReLU(), nn.Dropout(), nn.Linear(half, 1), nn.ReLU()
        )
        self.fc_weight = nn.Sequential(
            nn.Linear(half, half), nn.ReLU(), nn.Dropout(), nn.Linear(half, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.vit(x).transpose(1, 2)
        y = self.swintransformer1(self.conv1(self.tablock1(y).unflatten(2, (GRID, GRID)))).flatten(2)
        y = self.swintransformer2(self.conv2(self.tablock2(y).unflatten(2, (GRID, GRID)))).flatten(2)
        places = y.transpose(1, 2)
        weight = self.fc_weight(places)
        scores: Tensor = (self.fc_score(places) * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))
        return scores


def load_maniqa(path: Path) -> Maniqa:
    """The network of a weights file, float32, on the CPU. Raises CheckpointError for another network's file."""
    state = read_archive(path)
    with torch.device("meta"):
        network = Maniqa()
    load_strict(network, state, f"{path} as MANIQA", assign=True)
    return network.eval()
