"""How far several restorations of a face differ, and which of them is delivered."""

import numpy as np
import pytest

from pipeline.faces.geometry import CropFrame
from pipeline.faces.identity import Embedder
from pipeline.faces.spread import STEPS, deviation, face_region, measure_spread, nearest_to_mean
from pipeline.networks.presets import find_preset

WHOLE = np.ones((4, 4), bool)


def flat(*levels, side=4):
    """A crop of one colour each."""
    return [np.full((side, side, 3), level, np.uint8) for level in levels]


def test_the_deviation_is_that_of_the_distribution_and_the_root_mean_square_over_the_colours():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    expected = np.sqrt(np.var(pixels.astype(float), axis=0, ddof=1).mean(axis=-1))
    assert np.allclose(deviation(list(pixels)), expected)
    # samples of one distribution have the same spread, however many they are
    many = np.random.default_rng(1).normal(128, 6, (400, 16, 16, 3)).round().astype(np.uint8)
    assert deviation(list(many[:3])).mean() == pytest.approx(deviation(list(many)).mean(), rel=0.05)


def test_the_map_has_eighths_of_a_level_and_stops_at_the_brightest():
    inside = np.zeros((4, 4), bool)
    inside[0, 0] = True
    samples = flat(100, 101)
    samples[1][2:] = 255
    found = measure_spread(samples, 0, inside, None)
    assert found.picture[0, 0] == round(STEPS * np.sqrt(0.5)) and found.picture[3, 3] == 255
    assert found.mean == round(np.sqrt(0.5), 3) and found.identity is None
    assert found.picture.dtype == np.uint8


def test_equal_samples_have_no_spread():
    found = measure_spread(flat(90, 90, 90), 0, WHOLE, Embedder(lambda chip: np.ones(128), CropFrame(4)))
    assert (found.mean, found.identity, found.picture.max()) == (0, 0, 0)


def test_the_identity_is_the_largest_angle_from_the_delivered_sample():
    def network(chip):
        """A direction by the crop's level, degrees."""
        turn = np.radians(float(chip.mean()))
        return np.array([np.cos(turn), np.sin(turn)])

    embedder = Embedder(network, CropFrame(64))
    samples = flat(10, 30, 45, side=64)
    assert measure_spread(samples, 1, np.ones((64, 64), bool), embedder).identity == pytest.approx(20)
    assert measure_spread(samples, 0, np.ones((64, 64), bool), embedder).identity == pytest.approx(35)


def test_the_sample_nearest_to_the_mean_is_chosen_and_of_equally_near_ones_the_first():
    assert nearest_to_mean(flat(0, 90, 100), WHOLE) == 1
    assert nearest_to_mean(flat(100, 0, 90), WHOLE) == 2
    assert nearest_to_mean(flat(10, 20), WHOLE) == 0 == nearest_to_mean(flat(20, 10), WHOLE)
    assert nearest_to_mean(flat(7, 7, 7), WHOLE) == 0


def test_what_lies_beside_the_face_does_not_decide():
    region = np.zeros((4, 4), bool)
    region[1:3, 1:3] = True
    samples = flat(0, 90, 100)
    samples[1][~region] = 255
    assert nearest_to_mean(samples, region) == 1 and nearest_to_mean(samples, ~region) != 1


@pytest.mark.parametrize("name", ["portrait", "small-srcnn"])
def test_the_face_is_the_ellipse_around_the_frames_eyes_and_mouth(name):
    preset = find_preset(name)
    frame = CropFrame.from_table(preset.side, preset.crop)
    region = face_region(frame)
    points = np.rint(frame.template).astype(int)
    assert region.shape == (preset.side, preset.side) and region[points[:, 1], points[:, 0]].all()
    assert not region[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    left, right = frame.template[:2]
    columns = np.flatnonzero(region.any(axis=0))
    assert np.ptp(columns) == pytest.approx(2 * np.linalg.norm(right - left), abs=2)
    # as wide to either side of the nose
    assert columns.mean() == pytest.approx((left + right)[0] / 2, abs=1.5)
