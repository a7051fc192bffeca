"""Enhance whole pictures by a network that knows no faces, such as Real-ESRGAN."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.io.weights import Published, resolve


class NotEnhanced(RuntimeError):
    """A picture that the network could not enhance. `reason` is a short slug: the error's own name."""

    def __init__(self, said: str, reason: str) -> None:
        super().__init__(said, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Background:
    """[H, W, 3] uint8 RGB → [H * upscale, W * upscale, 3] uint8. Raises NotEnhanced.

    The network is loaded once in each process, at the first picture.
    """

    published: Published
    weights_dir: str | None
    upscale: int
    device: str
    precision: str

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            return load_network(self)(picture)
        except Exception as error:  # one picture must not take its neighbours along
            raise NotEnhanced(str(error), type(error).__name__) from error


@lru_cache(maxsize=1)
def load_network(background: Background) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Weights come from the cache that the driver filled. Without `--background` none of this is imported."""
    import torch

    from pipeline.networks.checkpoint import read_state
    from pipeline.networks.precision import fix_kernels, in_precision, number_type
    from pipeline.networks.spandrel_models import load_upscaler
    from pipeline.networks.tiling import MARGIN, TILE, by_tiles

    p, place = background.published, torch.device(background.device)
    fix_kernels(place)
    path = resolve(p.file, p.url, p.sha256, background.weights_dir).path
    network = load_upscaler(read_state(path), TILE + 2 * MARGIN, str(path)).to(place)
    ask = in_precision(network, place, number_type(background.precision, place.type == "cpu"))
    one_at_a_time = threading.Lock()

    def ask_for_tile(tile: torch.Tensor) -> torch.Tensor:
        with one_at_a_time:
            with suppress(torch.OutOfMemoryError):
                return ask(tile.to(place))
            # what earlier tiles left in the allocator, or a neighbour on this GPU held, may be what was missing
            torch.cuda.empty_cache()
            return ask(tile.to(place))

    def enhance(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return by_tiles(ask_for_tile, picture, background.upscale)

    return enhance
