"""Duplicate pictures: exact by their bytes, near by perceptual hashes that differ in few bits.

The result is independent of the order of the pictures: of duplicates the first by rank is kept. A picture is a near
duplicate of a kept one only, never of a dropped one, so that chains of small changes do not eliminate a dataset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# Hashes are indexed by three parts: two that differ in d bits differ in at most d // 3 bits of some part.
PARTS = ((0, 21), (21, 42), (42, 64))
# pairs compared at once: limits memory
CHUNK = 1 << 22

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """For each picture the index of the one that it duplicates, or -1."""

    exact: Indices
    near: Indices


def find_duplicates(
    digests: NDArray[np.object_], hashes: NDArray[np.uint64], rank: Indices, distance: int
) -> Duplicates:
    """Find exact and near duplicates.

    digests: [n] sha256; hashes: [n] perceptual hashes; rank: [n] permutation of indices, best first. distance: maximum
    number of differing bits of near duplicates; negative: exact ones only.
    """
    exact = np.full(len(digests), -1, np.int64)
    near = exact.copy()
    _, first, group = np.unique(digests[rank].astype(str), return_index=True, return_inverse=True)
    leaders = rank[first[group]]
    repeated = leaders != rank
    exact[rank[repeated]] = leaders[repeated]
    if distance >= 0:
        single = rank[~repeated]
        found = near_duplicates(hashes[single], distance)
        repeats = found >= 0
        near[single[repeats]] = single[found[repeats]]
    return Duplicates(exact, near)


def near_duplicates(hashes: NDArray[np.uint64], distance: int) -> Indices:
    """[n] hashes, best first → for each the index of the kept one that it duplicates, or -1 for kept ones.

    Of several kept ones within the distance the nearest is taken, then the best; equal hashes duplicate the same one.
    """
    values, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)  # distinct hashes, by their best picture
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    kept_one = _kept_match(values[order], distance)
    best = first[order]
    mine = place[group]  # index of each picture's distinct hash, best first
    target = np.where(kept_one[mine] >= 0, best[np.maximum(kept_one[mine], 0)], best[mine])
    return np.where(target == np.arange(len(hashes)), -1, target)


def _kept_match(values: NDArray[np.uint64], distance: int) -> Indices:
    """For each of the distinct hashes, best first: the kept one that it duplicates, or -1."""
    found = np.full(len(values), -1, np.int64)
    better, worse = near_pairs(values, distance)
    differing = np.bitwise_count(values[better] ^ values[worse])
    order = np.lexsort((better, differing, worse))
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if found[other] < 0 and found[one] < 0:
            found[other] = one
    return found


def near_pairs(values: NDArray[np.uint64], distance: int) -> tuple[Indices, Indices]:
    """Every pair of distinct hashes that differ in at most `distance` bits: indices i < j, sorted.

    Multi-index hashing (Norouzi et al., "Fast exact search in Hamming space", 2012): no pair is missed, and for a
    million hashes about ten million candidates are compared instead of half a trillion.
    """
    count = len(values)
    codes = [
        i * count + j
        for begin, end in PARTS
        for i, j in _candidates(values, begin, end, distance // len(PARTS))
        for near in [np.bitwise_count(values[i] ^ values[j]) <= distance]
        for i, j in [(i[near], j[near])]
    ]
    pairs = np.unique(np.concatenate([np.empty(0, np.int64), *codes]))
    return pairs // max(count, 1), pairs % max(count, 1)


def _candidates(
    values: NDArray[np.uint64], begin: int, end: int, flips: int
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs i < j that differ in at most `flips` of the bits [begin, end), some millions at a time."""
    part = (values >> np.uint64(begin)) & np.uint64((1 << (end - begin)) - 1)
    order = np.argsort(part, kind="stable")
    part = part[order]
    for mask in _masks(end - begin, flips):
        wanted = part ^ np.uint64(mask)
        low = np.searchsorted(part, wanted, "left")
        lengths = np.searchsorted(part, wanted, "right") - low
        busy = np.flatnonzero(lengths)
        for some in _batches(busy, lengths):
            sizes = lengths[some]
            starts = np.repeat(low[some], sizes)
            within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            i, j = order[np.repeat(some, sizes)], order[starts + within]
            yield i[i < j], j[i < j]


def _masks(bits: int, flips: int) -> Iterator[int]:
    """Every number of `bits` bits with at most `flips` set."""
    for count in range(flips + 1):
        for places in combinations(range(bits), count):
            yield sum(1 << place for place in places)


def _batches(places: Indices, lengths: Indices) -> Iterator[Indices]:
    """The indices in groups whose lengths add up to about CHUNK."""
    ends = np.cumsum(lengths[places])
    begin = 0
    while begin < len(places):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + CHUNK, "right")), begin + 1)
        yield places[begin:end]
        begin = end
