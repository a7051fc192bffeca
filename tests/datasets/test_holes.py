"""The holes that inpainting is trained and tested on."""

import numpy as np
import pytest

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


def test_without_a_kind_it_is_one_of_the_published_four():
    assert HOLES == ("box", "irregular", "expand", "half")
    kinds = {k: {h.tobytes() for h in draws(k, 1)} for k in KINDS}
    shares = [draw_hole(SIDE, np.random.default_rng(i)).mean() for i in range(60)]
    assert max(shares) > 0.5 and any(abs(s - 0.5) < 1e-9 for s in shares) and len(kinds) == len(KINDS)
