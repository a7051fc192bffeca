"""SwinIR as an estimator: the wrapper of spandrel's implementation, and the published names.

spandrel (MIT) is taken because it is kept up and agrees with the published program to the last few bits. Its class
is built directly, not guessed from the file, so that the preset alone says what the network is.

Source: Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (arXiv 2108.10257).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# The first convolution: published files have the pixel-unshuffle in front of it, which moves its name.
_OURS, _PUBLISHED = "conv_first.", "conv_first.1."
# Buffers that follow from the shape alone; a file may leave them out.
_DERIVED = ("attn_mask", "relative_position_index")


@dataclass(frozen=True)
class SwinIRConfig:
    """Shape of the estimator. Pictures are [B, 3, S, S] with S = img_size * start_unshuffle."""

    # side at which attention works, after the unshuffle, pixels
    img_size: int
    embed_dim: int
    # transformer blocks, and attention heads, of each group
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    # side of an attention window, pixels after the unshuffle
    window_size: int
    # pixel-unshuffle factor at the entry, and nearest-neighbour upscaling at the exit (2, 4 or 8)
    start_unshuffle: int
    upscale: int
    mlp_ratio: float = 2.0
    # stochastic depth, in training only
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.start_unshuffle != self.upscale:
            raise ValueError(
                "an estimator gives back the size it was given: wanted start_unshuffle equal to upscale, "
                f"got {self.start_unshuffle} and {self.upscale}"
            )
        if len(self.depths) != len(self.num_heads):
            raise ValueError(
                f"num_heads must have one entry per entry of depths: wanted {len(self.depths)}, "
                f"got {len(self.num_heads)}"
            )
        if self.img_size % self.window_size:
            raise ValueError(
                f"img_size must be a multiple of window_size, got {self.img_size} and {self.window_size}"
            )


def build_swinir(config: SwinIRConfig) -> nn.Module:
    """[B, 3, S, S] float32 in [0, 1] → the same shape, not clamped; in training mode, untrained."""
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        # The library calls torch.meshgrid with a deprecated signature; no user can do anything about it.
        warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
        net = SwinIR(
            img_size=config.img_size,
            embed_dim=config.embed_dim,
            depths=list(config.depths),
            num_heads=list(config.num_heads),
            window_size=config.window_size,
            mlp_ratio=config.mlp_ratio,
            upscale=config.upscale,
            img_range=1.0,
            upsampler="nearest+conv",
            resi_connection="1conv",
            start_unshuffle=config.start_unshuffle,
            drop_path_rate=config.drop_path_rate,
        )
    # A plain attribute there, moved by the first forward pass: as a buffer it moves with the network, so that
    # passes in several threads only read it. Not persistent: published files do not hold it.
    mean = net.mean
    del net.mean
    net.register_buffer("mean", mean, persistent=False)
    module: nn.Module = net
    return module


def from_published(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """A file's tensors under the names of `net`; accepts both namings, adds the derived buffers left out.

    Everything else is passed on as it is, for a strict load to judge. Raises ValueError when a derived buffer in the
    file disagrees with the network's: the file then belongs to another window.
    """
    named = {_renamed(key): tensor for key, tensor in state.items()}
    for key, own in net.state_dict().items():
        if not key.endswith(_DERIVED):
            continue
        given = named.setdefault(key, own)
        if given.shape == own.shape and not torch.equal(given.to(own.dtype), own):
            raise ValueError(f"{key} was made for another attention window than the preset's options say")
    return named


def _renamed(key: str) -> str:
    """A published name as spandrel's; other names as they are."""
    rest = key.removeprefix(_PUBLISHED)
    return _OURS + rest if rest != key and rest in ("weight", "bias") else key
