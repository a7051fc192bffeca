"""Near duplicates: what the index finds, and who stays, against the plain definition."""

import numpy as np
import pytest

from pipeline.cleaning.duplicates import find_duplicates, near_duplicates, near_pairs


def clustered(seed: int, count: int = 400) -> np.ndarray:
    """Hashes around few centres, some of them equal: [n] uint64."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 40, np.uint64)
    flips = rng.integers(0, 9, count)
    hashes = centres[rng.integers(0, 40, count)]
    for i, number in enumerate(flips):
        for bit in rng.integers(0, 64, number):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    return hashes


def plain(hashes: np.ndarray, distance: int) -> list[int]:
    """The rule by itself, best first: repeat the nearest kept one within reach, as whoever has the same hash."""
    of_hash: dict[int, int] = {}
    kept: list[int] = []
    found = []
    for i, value in enumerate(hashes.tolist()):
        if value not in of_hash:
            near = [(d, j) for j in kept if (d := (value ^ int(hashes[j])).bit_count()) <= distance]
            of_hash[value] = min(near)[1] if near else i
        found.append(of_hash[value] if of_hash[value] != i else -1)
        kept += [i] * (found[-1] < 0)
    return found


@pytest.mark.parametrize("distance", range(9))
def test_the_index_misses_no_pair(distance):
    values = np.unique(clustered(distance, 300))
    i, j = near_pairs(values, distance)
    every = np.triu(np.bitwise_count(values[:, None] ^ values[None]) <= distance, 1)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == list(map(tuple, np.argwhere(every).tolist()))


@pytest.mark.parametrize("distance", [0, 2, 4, 8])
def test_who_stays_is_what_the_rule_says(distance):
    hashes = clustered(100 + distance)
    assert near_duplicates(hashes, distance).tolist() == plain(hashes, distance)


def test_the_order_in_which_pictures_are_found_decides_nothing():
    hashes = clustered(7)
    digests = np.array([f"{h:x}-{i % 3}" for i, h in enumerate(hashes)], object)
    # the rank goes with the picture, wherever it stands
    score = np.random.default_rng(1).permutation(len(hashes))
    outcomes = set()
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(len(hashes))
        found = find_duplicates(digests[shuffled], hashes[shuffled], np.argsort(score[shuffled]), 4)
        pairs = [
            (score[shuffled[i]], score[shuffled[j]])
            for places in (found.exact, found.near)
            for i, j in enumerate(places)
            if j >= 0
        ]
        outcomes.add(tuple(sorted(pairs)))
    assert len(outcomes) == 1
    assert len(outcomes.pop()) > 100


def test_a_picture_that_occurs_a_hundred_thousand_times_is_no_quadratic_trouble():
    hashes = np.full(100_000, 0xABCDEF, np.uint64)
    assert np.flatnonzero(near_duplicates(hashes, 4) == -1).tolist() == [0]


def test_no_pictures_and_one_picture_have_no_duplicates():
    for count in (0, 1):
        found = find_duplicates(
            np.array(["a"] * count, object), np.zeros(count, np.uint64), np.arange(count), 4
        )
        assert found.exact.tolist() == found.near.tolist() == [-1] * count
