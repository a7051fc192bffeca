"""A run as a comparison sees it: its settings, its finished units, and what they cost."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline import Refusal
from pipeline.io import layout, store
from pipeline.io.errors import redact
from pipeline.io.prefetch import ahead
from pipeline.ledger.output import BROKEN, Run, open_plan, open_run
from pipeline.records.marker import Marker
from pipeline.records.totals import ShardMetrics
from pipeline.tracking.delivery import Delivered

READERS = 16
STAGES = ("seconds_read", "seconds_restore", "seconds_paste")
# Orders to one start of a run, and places; no settings of what it does.
ORDERS = frozenset(
    [
        *("input", "output", "weights_dir", "retry", "reason"),
        *("new_run", "redo_changed", "dry_run", "strict", "max_error_rate"),
    ]
)


class Refused(Refusal, ValueError):
    """Runs that can not be compared; the command exits with code 2."""


@dataclass(frozen=True)
class Compared:
    """One of the two runs."""

    run: Run
    # finished units, sorted, and the shard of each
    units: tuple[str, ...]
    shards: tuple[str, ...]
    units_planned: int
    totals: ShardMetrics
    # types of the devices that its faces were restored on
    devices: tuple[str, ...] = ()
    # of MLflow; empty where it was told nothing
    run_id: str = ""

    @property
    def name(self) -> str:
        return store.name_of(self.run.output)

    @property
    def side(self) -> int:
        """Of its crops, in pixels; 0 where the run file does not say."""
        preset = self.run.repeat.get("preset", {})
        return int(self.run.fingerprint.get("preset_side") or preset.get("side") or 0)

    @property
    def rows(self) -> int:
        """About how many rows its record tables have."""
        counts = self.totals.counts
        return counts.images + counts.faces

    def setting(self, name: str) -> Any:
        """One that changes pixels, or another option; None where it is not set or not known."""
        return self.run.fingerprint.get(name, self.run.repeat.get("config", {}).get(name))

    def seconds(self) -> dict[str, float]:
        """Of work for each restored face, by stage and in all; empty where there are no faces."""
        faces = self.totals.counts.faces
        if not faces:
            return {}
        each = {name.removeprefix("seconds_"): self.totals.sums[name] / faces for name in STAGES}
        return each | {"all stages": sum(each.values())}


def open_compared(output: str, partial_run: bool = False) -> Compared:
    """The run of an output.

    partial_run: take what is finished of one that is not. Raises Refused, NoRun or StoreError.
    """
    run, findings = open_run(output)
    plan, more = open_plan(run)
    wrong = [f.sentence for f in findings + more]
    if wrong:
        raise Refused(f"{output}: a whole run was wanted; {wrong[0]}")
    markers = _read_markers(output)
    planned = sum(p.units for p in plan)
    if not markers:
        raise Refused(f"{output}: a run with finished units was wanted, it has none; let it run first")
    if len(markers) < planned and not partial_run:
        raise Refused(
            f"{output}: a finished run was wanted, {len(markers)} of {planned} units are done; finish it by the same "
            "restore command, or compare what there is with --partial"
        )
    totals, devices = ShardMetrics(), set()
    for marker in markers:
        totals = totals + marker.metrics
        devices.add(marker.device)
    named = sorted((m.unit, m.shard) for m in markers)
    units, shards = (tuple(column) for column in zip(*named, strict=True))
    return Compared(run, units, shards, planned, totals, tuple(sorted(devices - {""})), _tracking_id(output))


def _read_markers(output: str) -> list[Marker]:
    """The markers that can be read; a damaged one counts as none."""
    folder = store.join(output, layout.DONE)
    entries = store.list_files(folder) if store.exists(folder) else []

    def read(uri: str) -> Marker | None:
        data = store.read_bytes(uri)
        try:
            return Marker.from_json(data)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    with ThreadPoolExecutor(READERS) as pool:
        found = ahead(pool, (partial(read, e.uri) for e in entries), 4 * READERS)
        return [marked for marked in found if marked is not None]


def _tracking_id(output: str) -> str:
    """The id of the run in MLflow."""
    try:
        return Delivered.from_json(store.read_bytes(store.join(output, layout.TRACKING))).run_id or ""
    except BROKEN:
        return ""


def settings(compared: Compared) -> dict[str, Any]:
    """Everything a run was made with, flat: its fingerprint, its other options, its preset."""
    run = compared.run
    options = {k: v for k, v in run.repeat.get("config", {}).items() if k not in ORDERS}
    preset = {f"preset.{k}": v for k, v in run.repeat.get("preset", {}).items()}
    # what the options left open, the fingerprint says
    told = options | preset | run.fingerprint
    told |= {"input": redact(run.input), "device": "+".join(compared.devices) or options.get("device")}
    return _flat(told)


def difference_of_settings(a: Compared, b: Compared) -> list[tuple[str, Any, Any]]:
    """Name and both values of every setting in which two runs differ."""
    mine, theirs = settings(a), settings(b)
    names = sorted(mine.keys() | theirs.keys())
    return [(n, mine.get(n), theirs.get(n)) for n in names if mine.get(n) != theirs.get(n)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def reservations(a: Compared, b: Compared) -> list[str]:
    """Why some of it can not be compared, or only with care; a sentence each."""
    told = []
    if a.side != b.side:
        told.append(
            f"Crops of A have {a.side or 'unknown'} pixels to a side and those of B {b.side or 'unknown'}: "
            "what is measured on crops is left out."
        )
    for name, what in _MATTERS.items():
        if a.setting(name) != b.setting(name):
            told.append(f"{name} is {a.setting(name)} in A and {b.setting(name)} in B: {what}.")
    told += [
        f"{name} is not finished: {len(run.units)} of {run.units_planned} units are compared."
        for name, run in (("A", a), ("B", b))
        if len(run.units) < run.units_planned
    ]
    return told


# Settings with which the same numbers mean something else.
_MATTERS: Mapping[str, str] = {
    "task": "the two were asked for different things",
    "mask": "the two were shown different holes",
    "method": "distance to the estimate is left out, which is 0 without a chain",
    "truth": "psnr, ssim, lpips, ids and lmd are distances to different pictures",
    "aligned": "faces are cut differently, and may be others",
    "detector": "faces may be others; only those whose boxes agree are compared",
}


def comparable(names: Sequence[str], a: Compared, b: Compared, at_side: Sequence[str]) -> dict[str, str]:
    """Of these columns those that mean different things in the two runs, each with the reason."""
    left_out = {}
    for name in names:
        if a.side != b.side and name in at_side:
            left_out[name] = "measured on crops of different sides"
        elif name == "distance" and a.setting("method") != b.setting("method"):
            left_out[name] = "always 0 without a chain"
    return left_out
