"""The same picture twice: by its bytes, or nearly, by perceptual hashes that differ in few bits.

One rule decides who stays, whatever the order in which pictures are found: of those that are alike the first by rank.
A picture is a near duplicate of a kept one, never of one that was dropped itself, so that chains of small changes do
not swallow a dataset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# A hash is looked up by each of three parts: hashes that differ in d bits differ in at most d // 3 of some part.
PARTS = ((0, 21), (21, 42), (42, 64))
# pairs that are compared at once: bounds the memory
CHUNK = 1 << 22

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """For each picture the place of the one that it repeats, or -1."""

    exact: Indices
    near: Indices


def find_duplicates(
    digests: NDArray[np.object_], hashes: NDArray[np.uint64], rank: Indices, distance: int
) -> Duplicates:
    """Which pictures repeat which.

    digests: [n] sha256; hashes: [n] perceptual hashes; rank: [n] places, best first, each once. distance: bits in
    which near duplicates may differ; below 0 only exact ones are looked for.
    """
    exact = np.full(len(digests), -1, np.int64)
    near = exact.copy()
    _, first, group = np.unique(digests[rank].astype(str), return_index=True, return_inverse=True)
    leaders = rank[first[group]]
    again = leaders != rank
    exact[rank[again]] = leaders[again]
    if distance >= 0:
        single = rank[~again]
        found = near_duplicates(hashes[single], distance)
        repeats = found >= 0
        near[single[repeats]] = single[found[repeats]]
    return Duplicates(exact, near)


def near_duplicates(hashes: NDArray[np.uint64], distance: int) -> Indices:
    """[n] hashes, best first → for each the place of the kept one it is near to, or -1 for the kept ones.

    Of several kept ones within reach it is the nearest, and of those the best; equal hashes repeat the same one.
    """
    values, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)  # distinct hashes, by their best picture
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    kept_one = _repeats(values[order], distance)
    best = first[order]
    mine = place[group]  # which distinct hash each picture has, best first
    target = np.where(kept_one[mine] >= 0, best[np.maximum(kept_one[mine], 0)], best[mine])
    return np.where(target == np.arange(len(hashes)), -1, target)


def _repeats(values: NDArray[np.uint64], distance: int) -> Indices:
    """Of distinct hashes, best first: the kept one that each is near to, or -1."""
    found = np.full(len(values), -1, np.int64)
    better, worse = near_pairs(values, distance)
    apart = np.bitwise_count(values[better] ^ values[worse])
    order = np.lexsort((better, apart, worse))
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if found[other] < 0 and found[one] < 0:
            found[other] = one
    return found


def near_pairs(values: NDArray[np.uint64], distance: int) -> tuple[Indices, Indices]:
    """Every pair of distinct hashes that differ in at most `distance` bits: places i < j, sorted.

    Multi-index hashing (Norouzi et al., "Fast exact search in Hamming space", 2012): no pair is missed, and for a
    million hashes some ten million candidates are compared instead of half a trillion.
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
    """Pairs i < j whose bits [begin, end) differ in at most `flips`, some millions at a time."""
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
    """Every number of so many bits of which at most `flips` are set."""
    for count in range(flips + 1):
        for places in combinations(range(bits), count):
            yield sum(1 << place for place in places)


def _batches(places: Indices, lengths: Indices) -> Iterator[Indices]:
    """The places in groups whose lengths add up to about CHUNK."""
    ends = np.cumsum(lengths[places])
    begin = 0
    while begin < len(places):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + CHUNK, "right")), begin + 1)
        yield places[begin:end]
        begin = end
