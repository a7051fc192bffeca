"""Intervals of paired differences: those of the textbooks, whatever the parts in which the pairs come."""

import numpy as np
import pytest
from scipy import stats

from pipeline.compare.paired import Paired, PairedSums


def paired(a, b, image, parts: int = 1) -> Paired | None:
    """The pairs, added in so many parts by picture."""
    a, b, image = np.asarray(a, float), np.asarray(b, float), np.asarray(image)
    sums = PairedSums(3)
    for part in range(parts):
        mine = image % parts == part
        sums.add(a[mine], b[mine], image[mine], image[mine] % 3)
    return sums.paired()


def many_faces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of one to seven faces, alike within a picture."""
    random = np.random.default_rng(5)
    image = np.repeat(np.arange(40), random.integers(1, 8, 40))
    a = random.normal(50, 10, len(image))
    return a, a + random.normal(0.3, 1, 40)[image] + random.normal(0, 0.2, len(image)), image


def test_with_one_face_a_picture_the_interval_is_the_paired_t_interval():
    random = np.random.default_rng(1)
    a = random.normal(10, 3, 25)
    b = a + random.normal(0.5, 1, 25)
    wanted = stats.ttest_rel(b, a).confidence_interval(0.95)
    found = paired(a, b, np.arange(25))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.faces, found.images, found.rose) == (25, 25, np.mean(b > a))


def test_faces_of_one_picture_count_as_one_draw():
    a, b, image = many_faces()
    change = b - a
    without = np.array([change[image != g].mean() for g in range(40)])
    spread = np.sqrt(39 / 40 * ((without - change.mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, 39) * spread
    found = paired(a, b, image)
    assert (found.low, found.high) == pytest.approx((change.mean() - reach, change.mean() + reach))
    # as if every face were a draw of its own
    alone = paired(a, b, np.arange(len(a)))
    assert found.high - found.low > 1.5 * (alone.high - alone.low)


def test_the_interval_covers_the_truth_also_where_one_picture_holds_most_faces():
    random = np.random.default_rng(7)
    image = np.repeat(np.arange(8), [29, 1, 1, 1, 1, 2, 1, 3])
    held = 0
    for _ in range(300):
        change = random.normal(0, 1, 8)[image] + random.normal(0, 0.1, len(image))
        found = paired(np.zeros(len(image)), change, image)
        held += found.low <= 0 <= found.high
    # taken as one draw each, the faces would give an interval that holds it hardly ever
    assert held >= 0.85 * 300


@pytest.mark.parametrize("parts", [2, 7])
def test_parts_add_up_to_the_whole(parts):
    whole, added = paired(*many_faces()), paired(*many_faces(), parts)
    assert vars(added) == pytest.approx(vars(whole))


def test_shards_have_means_of_their_own():
    sums = PairedSums(3)
    sums.add(np.array([1.0, 1, 1]), np.array([2.0, 4, 9]), np.array([0, 1, 1]), np.array([2, 0, 0]))
    assert [p and p.difference for p in map(sums.of_shard, range(3))] == [5.5, None, 1.0]
    assert sums.paired().difference == 4.0


def test_a_pair_without_two_numbers_is_left_out():
    found = paired([1, np.nan, 3, np.inf], [2, 2, np.nan, 2], [0, 1, 2, 3])
    assert (found.faces, found.difference, found.low) == (1, 1.0, None)
    assert paired([np.nan], [1], [0]) is None


@pytest.mark.parametrize(
    ("change", "way", "verdict"),
    [
        ([1, 1.1, 0.9], "up", "B better"),
        ([1, 1.1, 0.9], "down", "A better"),
        ([-1, -1.1, -0.9], "down", "B better"),
        ([-1, -1.1, -0.9], "neither", "B lower"),
        ([1, -1.1, 0.9], "up", "no difference shown"),
        ([0, 0, 0], "up", "the same"),
        ([1], "up", "one picture only"),
    ],
)
def test_the_verdict_is_what_the_interval_and_the_better_way_say(change, way, verdict):
    assert paired(np.zeros(len(change)), change, np.arange(len(change))).verdict(way) == verdict
