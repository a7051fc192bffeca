"""Whether the tables of a preset's file are of the right form."""

from collections.abc import Mapping, Sequence
from typing import Any


def is_frame(crop: Mapping[str, Any]) -> bool:
    """Whether a preset's [crop] says what a frame can be."""
    centre = crop.get("centre", [0.5, 0.5])
    return (
        set(crop) <= {"zoom", "centre", "resampling"}
        and is_number(crop.get("zoom", 1.0))
        and crop.get("zoom", 1.0) > 0
        and isinstance(centre, list | tuple)
        and len(centre) == 2
        and all(is_number(v) and 0 <= v <= 1 for v in centre)
        and crop.get("resampling", "linear") in ("linear", "fine")
    )


def is_table(rows: Sequence[Mapping[str, Any]], max_step: int) -> bool:
    """Whether a preset's [[treatment]] rows can be chosen from."""
    bounds: list[Any] = [row.get("above") for row in rows]
    rising = all(is_number(b) for b in bounds) and bounds == sorted({*bounds}) and bounds[:1] in ([], [0])
    return rising and all(
        (set(row) == {"above", "way"} and row["way"] in ("left", "estimator"))
        or (
            set(row) - {"eta"} == {"above", "start_step", "calls", "hold"}
            and is_number(row.get("eta", 0))
            and 0 <= row.get("eta", 0) <= 1
            and type(row["start_step"]) is type(row["calls"]) is int
            and 0 < row["start_step"] <= max_step
            and row["calls"] >= 1
            and is_number(row["hold"])
            and row["hold"] >= 0
        )
        for row in rows
    )


def are_sides(rows: Sequence[Mapping[str, Any]], side: int, options: Mapping[str, Any]) -> bool:
    """Whether a preset's [[sides]] rows can be chosen from, and its prior takes crops of those sides.

    side: of the preset; options: of its prior.
    """
    multiple = options.get("patch", 1) << (len(options["channel_mult"]) - 1)
    known = all(set(row) - {"left_below"} == {"side", "above_scale", "above_crispness"} for row in rows)
    return known and all(
        type(row["side"]) is int
        and row["side"] > before
        and row["side"] % multiple == 0
        and all(is_above_zero(row[name]) for name in row if name != "side")
        for row, before in zip(rows, (side, *(row["side"] for row in rows)), strict=False)
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_above_zero(value: Any) -> bool:
    return is_number(value) and 0 < value < float("inf")
