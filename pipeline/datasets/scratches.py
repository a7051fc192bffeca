"""Damage of old prints, painted on clean pictures: cracks, creases, scratches, dust, flakes, stains and torn corners.

Everything is drawn from a Generator. Lengths are in pixels of the picture where they are not shares of its side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
# [3, S, S] float32, 0..255: numpy is several times as fast with channels first
Planes = NDArray[np.float32]

# Lines are drawn this many times larger, so that their widths need not be whole pixels.
FINER = 4
# Change of a channel, in levels, from which damage counts as visible.
VISIBLE = 14
# Share of a pixel that a line has to cover to be in a mask that is drawn alone.
COVERED = 0.3


@dataclass(frozen=True)
class Line:
    """A polyline: points [N, 2] (x, y), and the width of each of its N - 1 pieces."""

    points: NDArray[np.float64]
    widths: NDArray[np.float64]


def draw_scratches(side: int, rng: np.random.Generator) -> Mask:
    """[S, S], True on 1 to 8 cracks or scratches that cross the middle, 1 to 6 pixels wide at a side of 128."""
    lines: list[Line] = []
    for _ in range(int(rng.integers(1, 9))):
        width = float(np.exp(rng.uniform(0, np.log(6)))) * side / 128
        middle = rng.uniform(0.2, 0.8, 2) * side
        lines += (
            _crack(side, width, middle, rng) if rng.random() < 0.6 else _scratch(side, width, middle, rng)
        )
    return _coverage(lines, side) >= COVERED


def paint_damage(picture: Picture, rng: np.random.Generator) -> tuple[Picture, Mask]:
    """[S, S, 3] uint8 RGB → the same with damage, and [S, S], True where the damage hides or visibly changes it.

    Stains change the tone of what they cover, which stays visible: their borders alone are in the mask.
    """
    side = len(picture)
    before = picture.transpose(2, 0, 1).astype(np.float32, order="C")
    if rng.random() < 0.15:
        before = _stained(before, rng)
    after = before.copy()
    unit = side / 128
    if rng.random() < 0.75:
        for _ in range(int(rng.integers(1, 5))):
            width = float(np.exp(rng.uniform(np.log(0.7), np.log(7)))) * min(unit, 1.5)
            _lay(after, _coverage(_crack(side, width, rng.uniform(0, side, 2), rng), side), rng)
    if rng.random() < 0.25:
        # a net of fine cracks of one kind
        lines: list[Line] = []
        for _ in range(int(rng.integers(4, 14))):
            lines += _crack(side, rng.uniform(0.6, 1.6), rng.uniform(0, side, 2), rng)
        _lay(after, _coverage(lines, side), rng)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 6))):
            lines = _scratch(side, rng.uniform(0.6, 2.5), rng.uniform(0, side, 2), rng)
            _lay(after, _coverage(lines, side), rng)
    if rng.random() < 0.4:
        _lay(after, _dust(side, rng), rng)
    if rng.random() < 0.2:
        _lay(after, _flakes(side, rng), rng, least=0.7)
    if rng.random() < 0.08:
        _lay(after, _torn_corner(side, rng), rng, least=0.95)
    if rng.random() < 0.08:
        _lay(after, _stain_border(side, rng)[0], rng)
    mask: Mask = np.abs(after - before).max(axis=0) >= VISIBLE
    damaged = np.rint(after).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(damaged.transpose(1, 2, 0)), mask


def _crack(side: int, width: float, start: NDArray[np.float64], rng: np.random.Generator) -> list[Line]:
    """A jagged line of uneven width through a point, with branches."""
    heading, jagged = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.7)
    ways = [
        _walk(start, heading + turn, side * rng.uniform(0.1, 0.9), side, jagged, rng) for turn in (0, np.pi)
    ]
    lines = [_uneven(np.concatenate([ways[0][::-1], ways[1][1:]]), width, rng)]
    for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.6 else 0):
        place = lines[0].points[int(rng.integers(len(lines[0].points)))]
        away = heading + rng.choice([-1, 1]) * rng.uniform(0.3, 1.5)
        points = _walk(place, away, side * rng.uniform(0.05, 0.45), side, jagged, rng)
        lines.append(_uneven(points, width * rng.uniform(0.4, 0.9), rng))
    return lines


def _walk(
    start: NDArray[np.float64],
    heading: float,
    length: float,
    side: int,
    jagged: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """[N, 2] points of a walk that keeps its heading but for turns of `jagged` radians a step and a slow bend."""
    step = side * rng.uniform(0.01, 0.04)
    count = max(round(length / step), 2)
    bend = np.cumsum(rng.normal(0, 0.05, count))
    angles = heading + bend + rng.normal(0, jagged, count)
    steps = step * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([start[None], start + np.cumsum(steps, axis=0)])


def _uneven(points: NDArray[np.float64], width: float, rng: np.random.Generator) -> Line:
    """A line whose width varies along it, and which may thin out towards its end."""
    count = len(points) - 1
    knots = rng.normal(0, rng.uniform(0.1, 0.5), max(count // 3, 2))
    along = np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
    taper = np.linspace(1, rng.uniform(0.3, 1), count)
    return Line(points, width * np.exp(along) * taper)


def _scratch(side: int, width: float, start: NDArray[np.float64], rng: np.random.Generator) -> list[Line]:
    """A straight or slightly bent line through a point; every second one is nearly vertical, as on film."""
    upright = rng.random() < 0.5
    heading = np.pi / 2 + rng.normal(0, 0.04) if upright else rng.uniform(0, np.pi)
    reach = side * rng.uniform(0.05, 1.5 if upright else 0.8)
    along = np.linspace(-1, 1, 17) * reach
    across = (along / side) ** 2 * side * rng.normal(0, 0.02 if upright else 0.08)
    cos, sin = np.cos(heading), np.sin(heading)
    points = start + np.stack([along * cos - across * sin, along * sin + across * cos], 1)
    return [Line(points, np.full(16, width))]


def _coverage(lines: Sequence[Line], side: int) -> Floats:
    """[S, S] float32, 0..1: the share of each pixel that the lines cover."""
    canvas = np.zeros((side * FINER, side * FINER), np.uint8)
    for line in lines:
        places = np.rint(line.points * FINER).astype(int)
        thick = np.maximum(np.rint(line.widths * FINER), 1).astype(int)
        for start, end, width in zip(places[:-1], places[1:], thick, strict=True):
            cv2.line(canvas, start.tolist(), end.tolist(), 255, int(width))
    return _shrunk(canvas, side)


def _shrunk(canvas: NDArray[np.uint8], side: int) -> Floats:
    """A canvas of 0..255 that is FINER times larger, as shares of pixels."""
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return (small / np.float32(255)).astype(np.float32)


def _dust(side: int, rng: np.random.Generator) -> Floats:
    """Specks and short hairs."""
    canvas = np.zeros((side * FINER, side * FINER), np.uint8)
    for _ in range(int(rng.integers(1, 30))):
        centre = rng.integers(0, side * FINER, 2).tolist()
        axes = np.rint(np.exp(rng.uniform(np.log(0.5), np.log(2.5), 2)) * FINER).astype(int)
        cv2.ellipse(canvas, centre, np.maximum(axes, 1).tolist(), rng.uniform(0, 180), 0, 360, 255, -1)
    lines = []
    for _ in range(int(rng.integers(0, 6))):
        points = _walk(rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi), side * 0.08, side, 0.25, rng)
        lines.append(Line(points, np.full(len(points) - 1, rng.uniform(0.6, 1.5))))
    return np.maximum(_shrunk(canvas, side), _coverage(lines, side))


def _flakes(side: int, rng: np.random.Generator) -> Floats:
    """Patches where the emulsion has come off: a few blobs with ragged edges."""
    field = _smooth_noise(side, side / 24, rng) + 0.5 * _smooth_noise(side, side / 6, rng)
    yx = np.mgrid[:side, :side].astype(np.float32)
    near = np.full((side, side), np.inf, np.float32)
    for _ in range(int(rng.integers(1, 5))):
        centre, radius = rng.uniform(0, side, 2), side * rng.uniform(0.02, 0.09)
        near = np.minimum(near, np.hypot(yx[0] - centre[0], yx[1] - centre[1]) / np.float32(radius))
    return np.clip((1 + 0.6 * field - near) * 4, 0, 1).astype(np.float32)


def _torn_corner(side: int, rng: np.random.Generator) -> Floats:
    """A corner that is gone along a jagged line, or a whole edge of the print."""
    far = side * rng.uniform(0.05, 0.3)
    other = side * 2 if rng.random() < 0.25 else side * rng.uniform(0.05, 0.4)
    share = np.linspace(0, 1, 24)
    line = np.stack([far * (1 - share), other * share], 1) + rng.normal(0, side * 0.008, (24, 2))
    corner = np.concatenate([[[-side, -side], [far, -side]], line, [[-side, other]]])
    canvas = np.zeros((side * FINER, side * FINER), np.uint8)
    cv2.fillPoly(canvas, [np.rint(corner * FINER).astype(np.int32)], 255)
    return np.ascontiguousarray(np.rot90(_shrunk(canvas, side), int(rng.integers(4))))


def _stain_border(side: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The rim of a stain, and its inside, [S, S] each."""
    angles = np.linspace(0, 2 * np.pi, 65)[:-1]
    waves = [rng.normal(0, 0.12) * np.sin(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, 6)]
    radius = side * rng.uniform(0.1, 0.5) * (1 + np.sum(waves, axis=0))
    points = rng.uniform(0, side, 2) + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    canvas = np.zeros((side * FINER, side * FINER), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * FINER).astype(np.int32)], 255)
    rim = _coverage([_uneven(np.concatenate([points, points[:1]]), rng.uniform(0.8, 3), rng)], side)
    return rim, _shrunk(canvas, side)


def _stained(picture: Planes, rng: np.random.Generator) -> Planes:
    """The picture with the tone of a stain."""
    inside = cv2.GaussianBlur(_stain_border(picture.shape[-1], rng)[1], (0, 0), rng.uniform(0.8, 4))
    tint = rng.uniform(-35, 25) + rng.normal(0, 8, 3)
    return np.clip(picture + inside * _planes(tint), 0, 255)


def _lay(picture: Planes, coverage: Floats, rng: np.random.Generator, least: float = 0.35) -> None:
    """Paint damage of one kind over the picture, in place. least: its opacity where it is most transparent."""
    side = picture.shape[-1]
    if rng.random() < 0.35:
        coverage = _ragged(coverage, rng)
    if rng.random() < 0.5:
        coverage = cv2.GaussianBlur(coverage, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32)
        # a thin line stays as strong as it was
        coverage = coverage / np.float32(max(float(coverage.max()), 0.5))
    alpha = coverage * np.float32(rng.uniform(least, 1))
    if rng.random() < 0.5:
        alpha *= np.clip(1 + 0.5 * _smooth_noise(side, rng.uniform(4, 16), rng), 0.2, 1)
    if rng.random() < 0.3:
        _shade(picture, coverage, rng)
    kind = rng.random()
    grain = _smooth_noise(side, 1 if rng.random() < 0.5 else 3, rng) * np.float32(rng.uniform(0, 10))
    if kind < 0.5:  # the paper below the picture
        paper = rng.uniform(150, 262) + np.array([1, 0, -1.5]) * rng.uniform(-4, 24)
        laid = _planes(np.clip(paper, 0, 255)) + grain
    elif kind < 0.7:  # dirt, ink, or the dark behind a print
        laid = _planes(rng.uniform(0, 80) + rng.normal(0, 4, 3)) + grain
    else:  # the picture itself, brighter or darker
        laid = picture + (grain + np.float32(rng.choice([-1, 1]) * rng.uniform(25, 110)))
    laid -= picture
    laid *= alpha
    picture += laid
    np.clip(picture, 0, 255, out=picture)


def _ragged(coverage: Floats, rng: np.random.Generator) -> Floats:
    """Coverage whose edges are frayed: each pixel is taken from up to a few pixels away."""
    side = len(coverage)
    period, far = rng.uniform(1.5, 4), rng.uniform(0.4, 1.5)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    moved = [axis + np.float32(far) * _smooth_noise(side, period, rng) for axis in (x, y)]
    return cv2.remap(coverage, moved[0], moved[1], cv2.INTER_LINEAR).astype(np.float32, copy=False)


def _shade(picture: Planes, coverage: Floats, rng: np.random.Generator) -> None:
    """Darken or brighten one side of a crease, in place."""
    move = np.concatenate([np.eye(2), rng.uniform(-2.5, 2.5, (2, 1))], 1)
    moved = cv2.warpAffine(coverage, move, coverage.shape[::-1], flags=cv2.INTER_LINEAR)
    picture += moved * np.float32(rng.uniform(-70, 40))
    np.clip(picture, 0, 255, out=picture)


def _planes(colour: NDArray[np.float64]) -> Floats:
    """A colour [3] as [3, 1, 1]."""
    return colour.astype(np.float32)[:, None, None]


def _smooth_noise(side: int, period: float, rng: np.random.Generator) -> Floats:
    """[S, S] normal noise that changes within about `period` pixels."""
    count = max(round(side / period), 2)
    noise = rng.standard_normal((count, count), np.float32)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
