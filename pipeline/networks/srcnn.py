"""The convolutional estimator f(y_0) of the paper, with the state-dict names of its published layout.

Halving by pixel-unshuffle, 5x5 convolutions at the small size, doubling by pixel-shuffle.
"""

from dataclasses import dataclass
from math import log2

from torch import Tensor, nn


@dataclass(frozen=True)
class SRCNNConfig:
    """Shape of the estimator. The side of an image must be a multiple of `down_scale_factor`."""

    num_chns: int = 64
    depth: int = 10
    # how much smaller the body works, a power of two
    down_scale_factor: int = 4
    in_chns: int = 3

    def __post_init__(self) -> None:
        factor = self.down_scale_factor
        if factor < 2 or factor & (factor - 1):
            raise ValueError(f"down_scale_factor must be a power of two, 2 or more, got {factor}")
        if self.num_chns % 4 ** (factor.bit_length() - 1):
            raise ValueError(
                f"num_chns must be a multiple of {4 ** (factor.bit_length() - 1)} to be shuffled into "
                f"{factor} times the side, got {self.num_chns}"
            )


class SRCNN(nn.Module):
    """[B, 3, S, S] float32 in [0, 1] → the same shape, not clamped."""

    def __init__(self, config: SRCNNConfig) -> None:
        super().__init__()
        self.config = config
        halvings = round(log2(config.down_scale_factor))
        width = config.num_chns

        head: list[nn.Module] = []
        channels = config.in_chns
        for i in range(halvings):
            head += [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, width, 3, padding=1)]
            if i + 1 < halvings:
                channels = width // 4
                head += [nn.Conv2d(width, channels, 5, padding=2), nn.LeakyReLU(0.2)]
        self.head = nn.Sequential(*head)

        body: list[nn.Module] = []
        for _ in range(config.depth - 1):
            body += [nn.Conv2d(width, width, 5, padding=2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*body)

        tail: list[nn.Module] = []
        for _ in range(halvings):
            tail += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.PixelShuffle(2)]
            width //= 4
        tail.append(nn.Conv2d(width, config.in_chns, 5, padding=2))
        self.tail = nn.Sequential(*tail)

    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.tail(self.body(self.head(y)))
        return out
