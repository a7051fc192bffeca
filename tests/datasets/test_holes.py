"""The holes that inpainting is trained and tested on."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.datasets.holes import HOLES, KINDS, draw_hole

SIDE = 128


def draws(kind, count=40):
    return [draw_hole(SIDE, np.random.default_rng(i), kind) for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_follows_from_its_draw_and_leaves_something_known(kind):
    holes = draws(kind)
    assert all(h.shape == (SIDE, SIDE) and h.dtype == bool and h.any() and not h.all() for h in holes)
    assert all(np.array_equal(a, b) for a, b in zip(holes, draws(kind), strict=True))
    assert len({h.tobytes() for h in holes}) > (3 if kind == "half" else 30)


def test_scratches_are_thin_and_long():
    for hole in draws("scratches"):
        # the widest circle that fits into them, against the length of what they cover
        reach = ndimage.distance_transform_edt(hole).max()
        assert reach <= 0.045 * 1.4 * SIDE and hole.mean() < 0.25
    assert np.mean([hole.mean() for hole in draws("scratches")]) > 0.01
    assert max(np.ptp(np.nonzero(h)[0]) for h in draws("scratches")) > SIDE / 2


def test_without_a_kind_it_is_one_of_the_published_four():
    assert HOLES == ("box", "irregular", "expand", "half")
    kinds = {k: {h.tobytes() for h in draws(k, 1)} for k in KINDS}
    shares = [draw_hole(SIDE, np.random.default_rng(i)).mean() for i in range(60)]
    assert max(shares) > 0.5 and any(abs(s - 0.5) < 1e-9 for s in shares) and len(kinds) == len(KINDS)
