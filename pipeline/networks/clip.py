"""CLIP with the image network RN50, under the names of OpenAI's published file.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021).
"""

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import load_strict

# Numbers of the published program that are no weights.
SETTINGS = ("input_resolution", "context_length", "vocab_size")
# Residual blocks of the image network's four layers, its first width, and the side of its training pictures.
LAYERS, WIDTH, SIDE = (3, 4, 6, 3), 64, 224
# Length of the common embedding; the text network's vocabulary, longest text, width and layers.
LENGTH, WORDS, CONTEXT, TEXT_WIDTH, TEXT_LAYERS = 1024, 49408, 77, 512, 12
# Channels of one attention head, of either network.
HEAD = 64


class Bottleneck(nn.Module):
    """Three convolutions beside the input; one that halves the picture does so by averaging."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        out = 4 * channels
        self.conv1, self.bn1 = nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.conv3, self.bn3 = nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
        self.stride = stride
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != out:
            self.downsample = nn.Sequential(
                OrderedDict(
                    [
                        ("-1", nn.AvgPool2d(stride)),
                        ("0", nn.Conv2d(channels_in, out, 1, bias=False)),
                        ("1", nn.BatchNorm2d(out)),
                    ]
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(F.avg_pool2d(y, self.stride)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class AttentionPool(nn.Module):
    """[B, C, H, W] → [B, LENGTH]: the mean over the picture attends to the mean and to every place.

    Without the positions that the network was trained with, so that pictures may have any size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty((SIDE // 32) ** 2 + 1, channels))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, LENGTH)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        q, k, v = (
            projection(values).unflatten(2, (-1, HEAD)).transpose(1, 2)
            for projection, values in (
                (self.q_proj, tokens[:, :1]),
                (self.k_proj, tokens),
                (self.v_proj, tokens),
            )
        )
        pooled = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        embedding: Tensor = self.c_proj(pooled[:, 0])
        return embedding


class ImageNetwork(nn.Module):
    """[B, 3, H, W] float32, normalised → [B, LENGTH]; sides of at least 32."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTH // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        before, layers = WIDTH, []
        for i, count in enumerate(LAYERS):
            channels, blocks = WIDTH * 2**i, []
            for j in range(count):
                blocks.append(Bottleneck(before, channels, 2 if i and not j else 1))
                before = 4 * channels
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.attnpool = AttentionPool(before)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)))
        x = F.avg_pool2d(x, 2)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        embedding: Tensor = self.attnpool(x)
        return embedding


class QuickGELU(nn.Module):
    """The approximation of GELU that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TextBlock(nn.Module):
    """Attention of each word to those before it, then a network for each word."""

    def __init__(self) -> None:
        super().__init__()
        width = TEXT_WIDTH
        self.attn = nn.MultiheadAttention(width, width // HEAD, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                [
                    ("c_fc", nn.Linear(width, 4 * width)),
                    ("gelu", QuickGELU()),
                    ("c_proj", nn.Linear(4 * width, width)),
                ]
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=later)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class CLIP(nn.Module):
    """Both networks."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = ImageNetwork()
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.Sequential(*(TextBlock() for _ in range(TEXT_LAYERS)))}
        )
        self.token_embedding = nn.Embedding(WORDS, TEXT_WIDTH)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, TEXT_WIDTH))
        self.ln_final = nn.LayerNorm(TEXT_WIDTH)
        self.text_projection = nn.Parameter(torch.empty(TEXT_WIDTH, LENGTH))
        # logarithm of what cosines are multiplied by
        self.logit_scale = nn.Parameter(torch.empty(()))

    def embed_text(self, tokens: Tensor) -> Tensor:
        """[N, LENGTH] of length 1 for texts of one length. tokens: [N, T] int64, with the start and end tokens."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer["resblocks"](x))
        return F.normalize(x[:, -1] @ self.text_projection, dim=1)

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """[B, LENGTH] of length 1. pictures: [B, 3, H, W] float32, normalised."""
        return F.normalize(self.visual(pictures), dim=1)


def load_clip(path: Path) -> CLIP:
    """The networks of OpenAI's RN50.pt or of its state dict, float32, on the CPU. Raises CheckpointError."""
    state = {name: value for name, value in read_archive(path).items() if name not in SETTINGS}
    with torch.device("meta"):
        network = CLIP()
    load_strict(network, state, f"{path} as CLIP RN50", assign=True)
    return network.eval()
