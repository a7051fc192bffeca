"""A picture of any size through tiles of one shape: the same as through the network at once."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.networks.spandrel_models import resized
from pipeline.networks.tiling import by_tiles, corners, mirrored

TILE, MARGIN = 32, 8


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def small_network(scale: int) -> nn.Module:
    """Four 3x3 convolutions, which together reach four pixels far."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2)]
    for _ in range(2):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
    nn.init.normal_(layers[-2].weight)
    return nn.Sequential(*layers, nn.Sigmoid()).double().eval()


def in_float64(network: nn.Module):
    return lambda x: network(x.double()).float()


def at_once(network: nn.Module, picture: np.ndarray, upscale: int) -> np.ndarray:
    """The whole picture in one call, in the same surroundings."""
    height, width = picture.shape[:2]
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255
    x = F.pad(x, (MARGIN, 64, MARGIN, 64), mode="reflect").float()
    y = network(x.double()).float()
    if y.shape[-1] != x.shape[-1] * upscale:
        size = (x.shape[-2] * upscale, x.shape[-1] * upscale)
        y = F.interpolate(y, size, mode="bicubic", antialias=True)
    inside = y[0, :, MARGIN * upscale :, MARGIN * upscale :][:, : height * upscale, : width * upscale]
    return (inside.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("scale", "upscale"), [(1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (2, 4)])
@torch.inference_mode()
def test_tiles_give_what_the_whole_picture_gives_where_the_margin_covers_the_networks_reach(scale, upscale):
    network, picture = small_network(scale), noise(75, 101)
    tiled = by_tiles(in_float64(network), picture, upscale, TILE, MARGIN)
    assert tiled.shape == (75 * upscale, 101 * upscale, 3)
    # a rounding that falls on the other side, at most
    difference = np.abs(tiled.astype(int) - at_once(network, picture, upscale))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert tiled.std() > 1


@torch.inference_mode()
def test_a_margin_that_does_not_cover_the_reach_shows():
    network, picture = small_network(1), noise(75, 101)
    tiled = by_tiles(in_float64(network), picture, 1, TILE, 0)
    assert np.abs(tiled.astype(int) - at_once(network, picture, 1)).max() > 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3), (32, 32), (33, 31)])
def test_a_picture_smaller_than_a_tile_or_its_margin_keeps_its_pixels(size):
    picture = noise(*size)
    assert np.array_equal(by_tiles(lambda x: x, picture, 1, TILE, MARGIN), picture)
    twice = by_tiles(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3), picture, 2, TILE, MARGIN)
    assert np.array_equal(twice, picture.repeat(2, axis=0).repeat(2, axis=1))


@torch.inference_mode()
def test_every_call_has_one_shape_and_far_pixels_change_nothing():
    network, shapes = small_network(2), set()

    def noting_shapes(x):
        shapes.add(tuple(x.shape))
        return in_float64(network)(x)

    picture = noise(75, 101)
    first = by_tiles(noting_shapes, picture, 2, TILE, MARGIN)
    picture[40:] = 0
    second = by_tiles(noting_shapes, picture, 2, TILE, MARGIN)
    assert shapes == {(1, 3, TILE + 2 * MARGIN, TILE + 2 * MARGIN)}
    assert np.array_equal(first[: 2 * TILE], second[: 2 * TILE]) and not np.array_equal(first, second)


def test_beside_the_result_no_more_than_a_tile_is_held():
    picture = np.zeros((512, 4096, 3), np.uint8)
    tracemalloc.start()
    by_tiles(lambda x: x, picture, 1, 64, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < picture.nbytes + 20 * 80 * 80 * 3


def test_tiles_cover_every_pixel_once():
    seen = np.zeros((70, 65), int)
    for top, left in corners(70, 65, 32):
        seen[top : top + 32, left : left + 32] += 1
    assert (seen == 1).all()


def test_a_row_is_mirrored_without_repeating_its_ends():
    assert mirrored(-3, 9, 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert mirrored(-1, 3, 1).tolist() == [0, 0, 0]


def test_what_has_the_wanted_size_is_not_resized():
    x = torch.rand(1, 3, 8, 8)
    assert resized(x, 8) is x
