"""LaMa as an estimator of what lies in a hole: the wrapper of spandrel's implementation, and the published names.

The generator alone is taken: spandrel's own class around it puts the input back outside the hole, which the official
DifFace program leaves to the chain.

Source: Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (arXiv 2109.07161).
"""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class LaMaConfig:
    """Shape of the estimator. Pictures are [B, 4, S, S], S a multiple of 2 ** n_downsampling."""

    # channels of the first layer; each halving doubles them
    ngf: int = 64
    n_downsampling: int = 3
    # residual blocks of Fourier convolutions
    n_blocks: int = 18


class LaMa(nn.Module):
    """A picture with holes → the picture without: [B, 4, S, S] float32 → [B, 3, S, S], both in [0, 1].

    The input's colours are 0 in the hole, and its fourth channel is 1 there.
    """

    # cuFFT has no bfloat16, and float16 only for sides that are powers of two
    needs_float32 = True

    def __init__(self, config: LaMaConfig) -> None:
        super().__init__()
        from spandrel.architectures.LaMa.__arch.LaMa import FFCResNetGenerator

        generator = FFCResNetGenerator(
            4, 3, ngf=config.ngf, n_downsampling=config.n_downsampling, n_blocks=config.n_blocks
        )
        # the published files' names begin here
        self.model = generator.model

    def forward(self, x: Tensor) -> Tensor:
        filled: Tensor = self.model(x)
        return filled
