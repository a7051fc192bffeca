"""A run to be compared: its settings, its finished units, and their cost."""

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
from pipeline.metrics.directions import LANDMARK_MODELS
from pipeline.records.marker import Marker, environment_text
from pipeline.records.totals import ShardMetrics
from pipeline.tracking.delivery import Delivered

READERS = 16
STAGES = ("seconds_read", "seconds_restore", "seconds_paste")
# Options that are no settings of the restoration: paths, and options of a single start.
NOT_SETTINGS = frozenset(
    [
        *("input", "output", "weights_dir", "retry", "reason"),
        *("new_run", "redo_changed", "dry_run", "strict", "max_error_rate"),
    ]
)


class Refused(Refusal, ValueError):
    """Runs that cannot be compared; the command exits with code 2."""


@dataclass(frozen=True)
class Compared:
    """One of the two runs."""

    run: Run
    # finished units, sorted, and the shard of each
    units: tuple[str, ...]
    shards: tuple[str, ...]
    units_planned: int
    totals: ShardMetrics
    # device types that restored its faces, and their environments in a line each
    devices: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    # MLflow run id; empty where nothing was tracked
    run_id: str = ""

    @property
    def name(self) -> str:
        return store.name_of(self.run.output)

    @property
    def side(self) -> int:
        """Side of its crops, pixels; 0 where unknown."""
        preset = self.run.repeat.get("preset", {})
        return int(self.run.fingerprint.get("preset_side") or preset.get("side") or 0)

    @property
    def sides(self) -> str:
        """The sides that its crops may have, pixels, in words."""
        larger = [row["side"] for row in self.run.fingerprint.get("sides", [])]
        return " or ".join(str(side) for side in (self.side or "unknown", *larger))

    @property
    def rows(self) -> int:
        """Approximate number of rows in its record tables."""
        counts = self.totals.counts
        return counts.images + counts.faces

    def landmark_models(self) -> set[str]:
        """The models that its faces' landmarks were measured by."""
        return {LANDMARK_MODELS[column] for column in self.totals.intervals() if column in LANDMARK_MODELS}

    def setting(self, name: str) -> Any:
        """A setting of the fingerprint, or another option; None where it is unset or unknown."""
        return self.run.fingerprint.get(name, self.run.repeat.get("config", {}).get(name))

    def seconds(self) -> dict[str, float]:
        """Seconds of work per restored face, by stage and in total; empty without faces."""
        faces = self.totals.counts.faces
        if not faces:
            return {}
        each = {name.removeprefix("seconds_"): self.totals.sums[name] / faces for name in STAGES}
        return each | {"all stages": sum(each.values())}


def open_compared(output: str, partial_run: bool = False) -> Compared:
    """Open the run of an output.

    partial_run: accept an unfinished run. Raises Refused, NoRun or StoreError.
    """
    run, findings = open_run(output)
    plan, more = open_plan(run)
    wrong = [f.sentence for f in findings + more]
    if wrong:
        raise Refused(f"{output}: expected an intact run; {wrong[0]}")
    markers = _read_markers(output)
    planned = sum(p.units for p in plan)
    if not markers:
        raise Refused(f"{output}: the run has no finished units; let it run first")
    if len(markers) < planned and not partial_run:
        raise Refused(
            f"{output}: expected a finished run, {len(markers)} of {planned} units are done; finish it with the same "
            "restore command, or compare the finished units with --partial"
        )
    totals = ShardMetrics()
    devices: set[str] = set()
    environments: set[str] = set()
    for marker in markers:
        totals = totals + marker.metrics
        devices.add(marker.device)
        environments.add(environment_text(marker.environment))
    named = sorted((m.unit, m.shard) for m in markers)
    units, shards = (tuple(column) for column in zip(*named, strict=True))
    where = [tuple(sorted(found - {""})) for found in (devices, environments)]
    return Compared(run, units, shards, planned, totals, where[0], where[1], _tracking_id(output))


def _read_markers(output: str) -> list[Marker]:
    """The readable markers; damaged ones are skipped."""
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
    """The id of the run in MLflow, or empty."""
    try:
        return Delivered.from_json(store.read_bytes(store.join(output, layout.TRACKING))).run_id or ""
    except BROKEN:
        return ""


def settings(compared: Compared) -> dict[str, Any]:
    """All settings of a run, flattened: its fingerprint, its other options, its preset."""
    run = compared.run
    options = {k: v for k, v in run.repeat.get("config", {}).items() if k not in NOT_SETTINGS}
    preset = {f"preset.{k}": v for k, v in run.repeat.get("preset", {}).items()}
    # the fingerprint has the resolved values of options that were not given
    values = options | preset | run.fingerprint
    values |= {"input": redact(run.input), "device": "+".join(compared.devices) or options.get("device")}
    values |= {"environment": " | ".join(compared.environments)} if compared.environments else {}
    return _flat(values)


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


def caveats(a: Compared, b: Compared) -> list[str]:
    """Limits of the comparison, a sentence each."""
    sentences = []
    if a.sides != b.sides:
        sentences.append(
            f"Crops of A have {a.sides} pixels to a side and those of B {b.sides}: "
            "measurements on crops are left out."
        )
    for name, what in _CAVEATS.items():
        if a.setting(name) != b.setting(name):
            sentences.append(f"{name} is {a.setting(name)} in A and {b.setting(name)} in B: {what}.")
    by_a, by_b = (" and ".join(sorted(run.landmark_models())) for run in (a, b))
    if by_a and by_b and a.landmark_models().isdisjoint(b.landmark_models()):
        sentences.append(f"Landmarks are by {by_a} in A and by {by_b} in B: they are not compared.")
    sentences += [
        f"{name} is not finished: {len(run.units)} of {run.units_planned} units are compared."
        for name, run in (("A", a), ("B", b))
        if len(run.units) < run.units_planned
    ]
    return sentences


# Settings that change what the measurements mean.
_CAVEATS: Mapping[str, str] = {
    "task": "the runs have different tasks",
    "mask": "the runs have different holes",
    "method": "distance to the estimate is left out, as it is 0 without a chain",
    "truth": "psnr, ssim, lpips, dists, ids and LMD refer to different pictures",
    "aligned": "faces are cropped differently, and may be different ones",
    "detector": "faces may be different ones; only those whose boxes agree are compared",
}


def comparable(names: Sequence[str], a: Compared, b: Compared, at_side: Sequence[str]) -> dict[str, str]:
    """Column → reason of each of these columns that is not comparable between the two runs."""
    left_out = {}
    for name in names:
        if a.sides != b.sides and name in at_side:
            left_out[name] = "measured on crops of different sides"
        elif name == "distance" and a.setting("method") != b.setting("method"):
            left_out[name] = "always 0 without a chain"
    return left_out
