"""Damage is painted where its mask says, and nowhere else; the same generator paints the same."""

import numpy as np
import pytest

from pipeline.datasets import scratches
from pipeline.datasets.scratches import VISIBLE, draw_scratches, paint_damage


def picture(side: int) -> np.ndarray:
    """A smooth gradient of colours, [S, S, 3]."""
    y, x = np.mgrid[:side, :side] / side
    return np.stack([60 + 120 * x, 80 + 90 * y, 150 - 60 * x * y], axis=2).astype(np.uint8)


@pytest.mark.parametrize("side", [64, 160])
def test_damage_changes_what_its_mask_marks_and_leaves_the_rest(side, monkeypatch):
    # stains change the tone beside the mask, too
    monkeypatch.setattr(scratches, "_stained", lambda before, rng: before)
    clean, marked = picture(side), []
    for seed in range(30):
        damaged, mask = paint_damage(clean, np.random.default_rng(seed))
        assert damaged.shape == clean.shape and damaged.dtype == np.uint8
        change = np.abs(damaged.astype(int) - clean).max(axis=2)
        assert (change[mask] >= VISIBLE - 1).all() and (change[~mask] <= VISIBLE).all()
        marked.append(mask.mean())
    assert 0.01 < np.mean(marked) < 0.3 and min(marked) < 0.02


def test_a_stain_changes_the_tone_of_an_area_that_is_not_marked(monkeypatch):
    rng = np.random.default_rng(3)
    before = picture(96).transpose(2, 0, 1).astype(np.float32)
    change = np.abs(scratches._stained(before, rng) - before).max(axis=0)
    assert 0.02 < (change > 3).mean() < 0.9 and change.max() < 80


def test_scratches_of_a_mask_alone_cross_the_middle_and_are_thin():
    masks = [draw_scratches(128, np.random.default_rng(seed)) for seed in range(40)]
    shares = np.array([mask.mean() for mask in masks])
    assert all(mask.shape == (128, 128) and mask.dtype == bool for mask in masks)
    assert shares.min() > 0.002 and shares.max() < 0.4
    assert all(mask[26:102, 26:102].any() for mask in masks)
    # no square of 16 pixels fits into a line of 6
    thick = [mask.reshape(8, 16, 8, 16).all(axis=(1, 3)).any() for mask in masks]
    assert sum(thick) <= 2


def test_the_same_generator_paints_the_same():
    for paint in (lambda rng: draw_scratches(64, rng), lambda rng: paint_damage(picture(64), rng)[0]):
        once, again, other = (paint(np.random.default_rng(seed)) for seed in (5, 5, 6))
        assert np.array_equal(once, again) and not np.array_equal(once, other)
