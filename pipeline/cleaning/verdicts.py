"""Verdicts from measurements and a policy: keep, repair or drop, with one reason, for every picture.

Vectorised over columns: when the policy changes, a million pictures get new verdicts in seconds without being read.
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
    """The verdict of each picture, in the table's order."""

    # index in EVERY_REASON
    reason: NDArray[np.int64]
    # keep, repair or drop
    verdict: NDArray[np.str_]
    # the row that a duplicate repeats, or -1
    repeats: NDArray[np.int64]

    def names(self) -> NDArray[np.str_]:
        """The reasons' names."""
        return np.array(EVERY_REASON)[self.reason]


def assign_verdicts(table: pa.Table, settled: Mask, policy: Policy) -> Verdicts:
    """Verdicts for rows of measurements, whose order breaks ties between duplicates.

    settled: [n] rows that an earlier version kept: of duplicates they take precedence.
    """
    applies = _conditions(table, policy)
    reason = np.full(table.num_rows, -1, np.int64)
    droppable = (*REASONS, "blurred")
    _assign(reason, applies, [r for r in droppable if policy.action(r) == "drop"])
    # a picture is a duplicate of a kept or repaired one only
    repeats = _mark_duplicates(reason, table, settled, policy)
    dropped = reason >= 0
    _assign(reason, applies, [r for r in droppable if policy.action(r) == "repair"])
    repaired = ~dropped & (reason >= 0)
    _assign(reason, applies, ["large", "sharp", "accepted"])
    verdict = np.where(dropped, "drop", np.where(repaired, "repair", "keep"))
    return Verdicts(reason, verdict, repeats)


def _assign(reason: NDArray[np.int64], applies: dict[str, Mask], names: list[str]) -> None:
    """Set the reason of rows without one to the first of `names` that applies."""
    for name in names:
        if name in applies:
            reason[(reason < 0) & applies[name]] = EVERY_REASON.index(name)


def _conditions(table: pa.Table, policy: Policy) -> dict[str, Mask]:
    """The rows to which each reason applies, except duplicates. A value that was not measured is nan: none applies."""
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


def _mark_duplicates(
    reason: NDArray[np.int64], table: pa.Table, settled: Mask, policy: Policy
) -> NDArray[np.int64]:
    """Set the reason of duplicates among rows without one. Returns the rows that they repeat."""
    repeats = np.full(len(reason), -1, np.int64)
    wanted = {name: policy.action(name) == "drop" for name in DUPLICATES}
    if not any(wanted.values()):
        return repeats
    rows = np.flatnonzero(reason < 0)
    # a recompressed copy has the same size, and artefacts make it even crisper, but its file is smaller
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
    """Effective pixels of a picture: fewer than it has if its face is blurred or was enlarged."""
    crisp = np.nan_to_num(_numbers(table, "face_crispness"), nan=1.0).round(1)
    used: NDArray[np.float64] = (
        _numbers(table, "width") * _numbers(table, "height") * np.minimum(crisp, 1) ** 2
    )
    return used


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64, nan for null."""
    column = table.column(name).combine_chunks().cast(pa.float64())
    numbers: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return numbers


def _texts(table: pa.Table, name: str) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = table.column(name).to_numpy()
    return texts
