"""A network over a picture of any size, one tile at a time.

Every tile is computed with the same shape: its own pixels and a margin around them, mirrored at the picture's border.
What comes out of a tile therefore depends on the pixels under it and on nothing else, and no more than one tile is held
beside the result.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.networks.spandrel_models import resized

# Side of a tile and width of the margin around it, pixels of the picture. Together a multiple of 64: networks with
# windows, or which halve their input, take it without padding. Real-ESRGAN reaches ever less far: with a margin of 16
# tiles differ from the whole picture by twice as much as with 32 (docs/methods.md).
TILE, MARGIN = 256, 32

# [1, 3, T, T] float32 in [0, 1] → [1, 3, sT, sT] for a whole s
TileNetwork = Callable[[Tensor], Tensor]


def by_tiles(
    network: TileNetwork, picture: NDArray[np.uint8], upscale: int, tile: int = TILE, margin: int = MARGIN
) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 → what the network makes of it, `upscale` times larger, [H * upscale, W * upscale, 3] uint8.

    A network of another scale is brought to this size within each tile (bicubic with antialiasing, which reaches less
    far than the margin), so that a tile's border shows no more than the network's own reach beyond the margin.
    """
    height, width = picture.shape[:2]
    result = np.empty((height * upscale, width * upscale, 3), np.uint8)
    for top, left in corners(height, width, tile):
        rows = mirrored(top - margin, tile + 2 * margin, height)
        columns = mirrored(left - margin, tile + 2 * margin, width)
        seen = torch.from_numpy(picture[np.ix_(rows, columns)]).permute(2, 0, 1)[None].float() / 255
        made = resized(network(seen).float(), (tile + 2 * margin) * upscale)
        inside = made[0, :, margin * upscale :, margin * upscale :][:, : tile * upscale, : tile * upscale]
        pixels = (inside.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        here = result[top * upscale :, left * upscale :][: tile * upscale, : tile * upscale]
        here[:] = pixels[: here.shape[0], : here.shape[1]]
    return result


def corners(height: int, width: int, tile: int) -> Iterator[tuple[int, int]]:
    """Top and left of every tile, row by row; the last ones may reach beyond the picture."""
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            yield top, left


def mirrored(first: int, count: int, size: int) -> NDArray[np.int64]:
    """Places first, first + 1, ... of a row of `size` pixels, mirrored at its ends as often as it takes."""
    places = np.arange(first, first + count)
    if size == 1:
        return np.zeros_like(places)
    around = places % (2 * size - 2)
    return np.minimum(around, 2 * size - 2 - around)
