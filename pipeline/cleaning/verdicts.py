"""From measurements and a policy to a verdict: keep, repair or drop, and one reason, for every picture.

Whole columns at a time: a million pictures are judged again in seconds when a policy changes, and none is read.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.cleaning.duplicates import find_duplicates
from pipeline.cleaning.policy import EVERY_REASON, REASONS, Policy

Mask = NDArray[np.bool_]
DUPLICATES = ("exact_duplicate", "near_duplicate")


@dataclass(frozen=True)
class Verdicts:
    """What becomes of each picture, in the table's order."""

    # place in EVERY_REASON
    reason: NDArray[np.int64]
    # keep, repair or drop
    verdict: NDArray[np.str_]
    # the row that a duplicate repeats; -1
    repeats: NDArray[np.int64]

    def names(self) -> NDArray[np.str_]:
        """The reasons' names."""
        return np.array(EVERY_REASON)[self.reason]


def judge(table: pa.Table, settled: Mask, policy: Policy) -> Verdicts:
    """Verdicts over rows of measurements, whose order breaks ties between duplicates.

    settled: [n] rows that an earlier version kept: they stay, and what is like them comes too late.
    """
    holds = _faults(table, policy)
    reason = np.full(table.num_rows, -1, np.int64)
    asked = (*REASONS, "blurred")
    _say(reason, holds, [r for r in asked if policy.action(r) == "drop"])
    # only what is kept or repaired is a reason to drop what is like it
    repeats = _judge_duplicates(reason, table, settled, policy)
    dropped = reason >= 0
    _say(reason, holds, [r for r in asked if policy.action(r) == "repair"])
    repaired = ~dropped & (reason >= 0)
    _say(reason, holds, ["large", "sharp", "accepted"])
    verdict = np.where(dropped, "drop", np.where(repaired, "repair", "keep"))
    return Verdicts(reason, verdict, repeats)


def _say(reason: NDArray[np.int64], holds: dict[str, Mask], names: list[str]) -> None:
    """Give the rows that have no reason yet the first of these that holds."""
    for name in names:
        if name in holds:
            reason[(reason < 0) & holds[name]] = EVERY_REASON.index(name)


def _faults(table: pa.Table, policy: Policy) -> dict[str, Mask]:
    """Of each reason but the duplicates the rows for which it holds. What was not measured is nan and holds nothing."""
    p = policy
    width, height, faces = (_numbers(table, n) for n in ("width", "height", "faces"))
    short, long = np.minimum(width, height), np.maximum(width, height)
    crisp, scale = _numbers(table, "face_crispness"), _numbers(table, "face_scale")
    everything = np.ones(table.num_rows, np.bool_)
    return {
        "unreadable": _texts(table, "problem") != "",
        "too_small": short < p.min_side,
        "odd_aspect": long > p.max_aspect * short,
        "too_dark": _numbers(table, "light") < p.min_light,
        "too_bright": _numbers(table, "dark") > p.max_dark,
        "low_information": _numbers(table, "entropy") < p.min_entropy,
        "no_face": faces == 0,
        "too_many_faces": faces > p.max_faces,
        "face_too_small": _numbers(table, "face_size") < p.min_face,
        "face_cut_off": _numbers(table, "face_margin") <= p.min_margin,
        "too_blurred": _numbers(table, "face_sharpness") < p.min_sharpness,
        "blurred": (crisp < p.min_crispness) & (scale <= p.max_scale),
        "large": scale > p.max_scale,
        "sharp": crisp >= p.min_crispness,
        "accepted": everything,
    }


def _judge_duplicates(
    reason: NDArray[np.int64], table: pa.Table, settled: Mask, policy: Policy
) -> NDArray[np.int64]:
    """Say which of the undecided rows repeat which; the rows they repeat."""
    repeats = np.full(len(reason), -1, np.int64)
    wanted = {name: policy.action(name) == "drop" for name in DUPLICATES}
    if not any(wanted.values()):
        return repeats
    rows = np.flatnonzero(reason < 0)
    # a copy that was compressed again is as large, and even crisper by its artefacts, but shorter
    length = _numbers(table, "length")[rows]
    rank = np.lexsort((rows, -length, -_resolution(table)[rows], ~settled[rows]))
    hashes = table.column("phash").combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    distance = policy.near_distance if wanted["near_duplicate"] else -1
    found = find_duplicates(_texts(table, "sha256")[rows], hashes[rows], rank, distance)
    for name, places in zip(DUPLICATES, (found.exact, found.near), strict=True):
        again = places >= 0
        if wanted[name]:
            reason[rows[again]] = EVERY_REASON.index(name)
            repeats[rows[again]] = rows[places[again]]
    return repeats


def _resolution(table: pa.Table) -> NDArray[np.float64]:
    """Pixels that a picture makes use of: fewer than it has where its face is blurred, or was enlarged."""
    crisp = np.nan_to_num(_numbers(table, "face_crispness"), nan=1.0).round(1)
    used: NDArray[np.float64] = (
        _numbers(table, "width") * _numbers(table, "height") * np.minimum(crisp, 1) ** 2
    )
    return used


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of numbers, nan where there is none."""
    column = table.column(name).combine_chunks().cast(pa.float64())
    numbers: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return numbers


def _texts(table: pa.Table, name: str) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = table.column(name).to_numpy()
    return texts
