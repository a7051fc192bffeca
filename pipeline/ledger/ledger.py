"""What is planned, done and failed; what a killed run needs to go on.

Everything under OUT/_ledger is written whole: `run.json` (what the run is), `plan.json` (its shards),
`plan/<shard>.json` (the units of one shard), `done/<shard>/<part>.json` (one marker per finished unit, written
after everything the unit delivers), `retries.json` (units that were to be done again), `tracking.json` (what MLflow
has), `report.json` (what the report's files are), `drivers/` (who works on it). Run file, plan, units and markers name
the run that they belong to, and nothing of one run is taken for another's.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from pipeline import Refusal
from pipeline.io import fence, layout, store
from pipeline.io.shards import (
    InputError,
    Listing,
    Shard,
    cut_pictures,
    cut_units,
    fitting_unit,
    list_input,
    make_shards,
)
from pipeline.io.units import Address, Kind, Pending, Unit, unit_name, units_to_json
from pipeline.ledger.discard import discard
from pipeline.ledger.plan import (
    Plan,
    PlannedShard,
    changed_files,
    how_changed,
    load_units,
    read_plan,
)
from pipeline.ledger.retries import Retries, load_retries
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.records.marker import Marker, environment_text
from pipeline.records.rows import Counts
from pipeline.records.run_file import RunFile
from pipeline.records.totals import SUMS, ShardMetrics

READERS = 32


class RefusedMix(Refusal, ValueError):
    """The output belongs to another run; the command exits with code 2."""


@dataclass
class Settled:
    """A shard all of whose units are done."""

    planned: PlannedShard
    metrics: ShardMetrics
    finished_at: float


@dataclass
class _Progress:
    parts: set[int] = field(default_factory=set)
    counts: Counts = field(default_factory=Counts)
    # exact, so that a later start comes to the same floats, in whatever order the parts come
    sums: dict[str, Fraction] = field(default_factory=lambda: dict.fromkeys(SUMS, Fraction()))
    finished_at: float = 0.0

    def add(self, marker: Marker) -> None:
        self.parts.add(marker.part)
        self.counts = self.counts + marker.metrics.counts
        for name, value in marker.metrics.sums.items():
            self.sums[name] = self.sums.get(name, Fraction()) + Fraction(value)
        self.finished_at = max(self.finished_at, marker.finished_at)

    @property
    def metrics(self) -> ShardMetrics:
        """Of all the parts."""
        return ShardMetrics(self.counts, {name: float(value) for name, value in self.sums.items()})


class Ledger:
    """The driver's view of one output. Only the driver holds one; stages write markers by name."""

    def __init__(
        self, output: str, fingerprint: dict[str, Any], is_held: Callable[[], bool] = lambda: True
    ) -> None:
        """is_held: whether this process still holds the output's lease, by a fresh look; else nothing is written."""
        self.output, self._is_held = output, is_held
        # identity of the run, once the output is claimed
        self.run = ""
        self.fingerprint = fingerprint
        self.digest = fingerprint_digest(fingerprint)
        self.shards: list[PlannedShard] = []
        self._by_name: dict[str, PlannedShard] = {}
        self._progress: dict[str, _Progress] = {}
        # measurements over everything done so far
        self.totals = ShardMetrics()
        # units done, by the environment of their faces in a line (networks/environment.py)
        self.environments: Counter[str] = Counter()
        self.retries = Retries()
        # units that are to be done again, and whether an earlier start ordered it
        self.retrying: set[str] = set()
        self.ordered_before = False

    def claim(self, source: str, repeat: dict[str, Any] | None = None, new_run: bool = False) -> bool:
        """Make this output ours, or find that it already is. True when it is new.

        repeat: what a verification needs beside the fingerprint to restore a picture again; it refuses nothing.
        new_run: what another run left in the output is deleted first, whatever that run was.
        Raises RefusedMix naming what differs when it belongs to another run.
        """
        uri = store.join(self.output, layout.RUN)
        self.run = uuid.uuid4().hex
        mine = RunFile.of(self.run, self.fingerprint, source, repeat or {}, time.time())
        if store.create_bytes(uri, mine.to_json()):
            return True
        theirs = read_run(self.output)
        different = difference(theirs.fingerprint, self.fingerprint)
        if theirs.input != source:
            different = f"over {theirs.input}, not over {source}"
        elif different:
            different = f"with other settings ({different})"
        # a deletion that was killed is ended by the next start of whatever kind
        if theirs.discarded or (different and new_run):
            # from here on what is left of that run's workers writes nothing more
            self._write_run(replace(theirs, run=self.run, discarded=True))
            discard(self.output)
            self._write_run(mine)
            return True
        if different:
            raise RefusedMix(
                f"the output holds a run {different}; use what it was made with, choose another --output, or let "
                "--new-run delete what that run left"
            )
        self.run = theirs.run
        return False

    def _write_run(self, run: RunFile) -> None:
        fence.write_while(self._is_held, self.output, layout.RUN, run.to_json(), changes_owner=True)

    def _write(self, path: str, data: bytes) -> None:
        """Make or replace a file of the output, unless another start has followed ours. Raises Fenced or StoreError."""
        fence.write_while(self._is_held, self.output, path, data)

    def settle_precision(self, wanted: str) -> str:
        """The number type of every unit of this run: the one that was written down before the first, else `wanted`.

        A later start may run on another kind of processor, whose own choice would give other bits.
        """
        run = read_run(self.output)
        if not run.precision:
            run = replace(run, precision=wanted)
            self._write_run(run)
        return run.precision

    def release(self) -> None:
        """Give up a claim from which no plan could be made, so that a corrected command may use the output."""
        store.delete(store.join(self.output, layout.RUN))

    def plan(
        self,
        source: str,
        kind: str,
        shard_images: int,
        unit_images: int,
        image_column: str,
        redo_changed: bool = False,
        listed: Listing | None = None,
    ) -> None:
        """Plan what is not planned yet, and load the rest.

        listed: what `list_input` gives of the source; None: it is listed here.
        redo_changed: shards whose files changed since they were planned are planned again, and their units with
        changed pictures done again; else they raise RefusedMix. Raises InputError.
        """
        found_kind, entries = listed or list_input(source, kind)
        before = self._planned_before()
        changed = changed_files([p.shard for p in before], entries)
        if changed and not redo_changed:
            raise RefusedMix(how_changed(changed))
        shards = make_shards(found_kind, entries, shard_images, [p.shard for p in before])
        current = {now.path: now for _, now in changed}

        def cut(numbered: tuple[int, Shard]) -> tuple[PlannedShard, list[Unit]]:
            index, shard = numbered
            shard = replace(shard, files=tuple(current.get(f.path, f) for f in shard.files))
            units = self._ours(cut_units(shard, unit_images, image_column))
            return PlannedShard.of(index, shard, units), units

        def plan_new(numbered: tuple[int, Shard]) -> PlannedShard:
            planned, units = cut(numbered)
            self._save_units(planned.shard, units)
            return planned

        again = [p for p in before if current.keys() & {f.path for f in p.shard.files}]
        with ThreadPoolExecutor(READERS) as pool:
            cut_again = list(pool.map(cut, [(p.index, p.shard) for p in again]))
            self._redo(cut_again, {now.uri for _, now in changed})
            added = list(pool.map(plan_new, enumerate(shards[len(before) :], start=len(before))))
        self.shards = before + added
        for planned, _ in cut_again:
            self.shards[planned.index] = planned
        self._by_name = {p.shard.name: p for p in self.shards}
        if not sum(p.images for p in self.shards):
            raise InputError(
                f"the shards of {source} hold no images; give tar members or rows that are pictures"
            )
        if added or changed:
            self._save_plan()

    def plan_pictures(
        self, pictures: Sequence[Address], kept: Sequence[store.Entry], shard_images: int, unit_images: int
    ) -> None:
        """Plan single pictures, wherever they lie, and load the rest; those whose name is planned stay as they are.

        kept: for each picture an entry of its name that changes with its bytes.
        """
        before = self._planned_before()
        shards = make_shards("folder", list(kept), shard_images, [p.shard for p in before])
        address = {a.member: a for a in pictures}
        added = []
        for index, shard in enumerate(shards[len(before) :], start=len(before)):
            units = self._ours(cut_pictures(shard, [address[f.path] for f in shard.files], unit_images))
            self._save_units(shard, units)
            added.append(PlannedShard.of(index, shard, units))
        self.shards = before + added
        self._by_name = {p.shard.name: p for p in self.shards}
        if added:
            self._save_plan()

    def _redo(self, cut_again: Sequence[tuple[PlannedShard, Sequence[Unit]]], changed: set[str]) -> None:
        """Order what of these shards was done with files that have changed since, then plan the shards again."""
        orders: list[Marker] = []
        for planned, units in cut_again:
            before = load_units(self.output, planned.shard)
            for marker in self._read_markers(planned.shard.name):
                if marker.part >= len(units):  # the shard has become shorter
                    for path in marker.sha256:
                        store.delete(store.join(self.output, path))
                    store.delete(store.join(self.output, before[marker.part].marker_path))
                elif units[marker.part].touches(changed) or units[marker.part] != before[marker.part]:
                    orders.append(marker)
        self.retries = load_retries(self.output)
        self._order(orders)
        for planned, units in cut_again:
            self._save_units(planned.shard, units)

    def _planned_before(self) -> list[PlannedShard]:
        """What this run has planned already; the plan of another run, written too late, counts as none."""
        plan = read_plan(self.output)
        return list(plan.shards) if plan.run == self.run else []

    def _ours(self, units: Iterable[Unit]) -> list[Unit]:
        return [replace(unit, run=self.run) for unit in units]

    def _save_units(self, shard: Shard, units: Sequence[Unit]) -> None:
        self._write(layout.plan_path(shard.name), units_to_json(units))

    def _save_plan(self) -> None:
        self._write(layout.PLAN, Plan(self.run, tuple(self.shards)).to_json())

    def resume(
        self, retry: bool = False, reason: str | None = None, verdicts: Mapping[str, str] | None = None
    ) -> list[Settled]:
        """Read the markers that are there; the shards they settle, in the plan's order.

        retry: do the units again in which an image failed, with `reason` only those that failed for it or in the
        stage of that name. An order that is open already is carried out first, and no other given. verdicts: by unit,
        the digest of the verdicts that it is to be done with.
        """
        markers = self._read_markers()
        self.retries = load_retries(self.output)
        self.ordered_before = self.retries.open
        if verdicts:
            self._order([m for m in markers if verdicts.get(m.unit, m.verdicts) != m.verdicts])
        elif retry and not self.ordered_before:
            self._order([m for m in markers if m.failed(reason)])
        for marker in markers:
            if self.retries.wait_for(marker.unit, marker.attempts):
                self.retrying.add(marker.unit)
            else:
                self._add(marker)
        return [s for s in map(self._settled, self.shards) if s is not None]

    def _read_markers(self, shard: str = "") -> list[Marker]:
        """The markers of one shard, or all. Damaged ones and other runs' count as none: their units are done again."""
        done = store.join(self.output, layout.DONE, shard)
        uris = [e.uri for e in store.list_files(done)] if store.exists(done) else []
        markers = []
        with ThreadPoolExecutor(READERS) as pool:
            for data in pool.map(store.read_bytes, uris):
                with suppress(ValueError, KeyError, TypeError, AttributeError):
                    markers.append(Marker.from_json(data))
        return [marker for marker in markers if marker.run == self.run]

    def save_verdicts(self, unit: str, data: bytes) -> None:
        """Keep the verdicts on a unit's faces. Raises Fenced or StoreError."""
        self._write(layout.verdicts_path(unit), data)

    def _order(self, again: Sequence[Marker]) -> None:
        """Write down that these units are to be done once more."""
        if again:
            attempts = self.retries.attempts | {m.unit: m.attempts + 1 for m in again}
            self._save_retries(Retries(True, attempts))

    def close_retry(self) -> None:
        """Write down that the order is carried out, once it is."""
        if self.retries.open and not self.retrying:
            self._save_retries(replace(self.retries, open=False))

    def _save_retries(self, retries: Retries) -> None:
        self.retries = retries
        self._write(layout.RETRIES, retries.to_json())

    def pending(self) -> Iterator[Pending]:
        """The units that are not done, in the plan's order; no plan file is read for them."""
        for planned in self.shards:
            shard = planned.shard.name
            done = self._progress.get(shard, _Progress()).parts
            for part in range(planned.units):
                if part not in done:
                    yield Pending(shard, part, self.retries.attempts.get(unit_name(shard, part), 1))

    def add(self, text: str) -> tuple[Counts, Settled | None]:
        """Take a unit's marker from the flow: what it counted, and the shard it settles, if it does.

        Another run's marker counts nothing and settles nothing.
        """
        marker = Marker.from_json(text)
        if marker.run != self.run:
            return Counts(), None
        self._add(marker)
        return marker.metrics.counts, self._settled(self._by_name[marker.shard])

    def _add(self, marker: Marker) -> None:
        self.retrying.discard(marker.unit)
        progress = self._progress.setdefault(marker.shard, _Progress())
        if marker.part not in progress.parts:
            progress.add(marker)
            self.totals = self.totals + marker.metrics
            self.environments.update([line] if (line := environment_text(marker.environment)) else [])

    def _settled(self, planned: PlannedShard) -> Settled | None:
        progress = self._progress.get(planned.shard.name, _Progress())
        if len(progress.parts) < planned.units:
            return None
        return Settled(planned, progress.metrics, progress.finished_at)

    @property
    def units_pending(self) -> int:
        """How many units are not done."""
        return self.units_planned - sum(len(p.parts) for p in self._progress.values())

    @property
    def images_planned(self) -> int:
        return sum(p.images for p in self.shards)

    @property
    def units_planned(self) -> int:
        return sum(p.units for p in self.shards)


def unit_images_of(output: str, kind: Kind, entries: Sequence[store.Entry]) -> int:
    """Most images of a unit where nothing else is wanted: as the output was begun, else by the size of the input."""
    if store.exists(store.join(output, layout.RUN)):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            return int(read_run(output).fingerprint["unit_images"])
    return fitting_unit(kind, entries)


def read_run(output: str) -> RunFile:
    """The run file of an output. Raises StoreError, or one of Python's own for a damaged file."""
    return RunFile.from_json(store.read_bytes(store.join(output, layout.RUN)))


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, as `name: then → now`; empty when none does."""
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    return ", ".join(f"{n}: {before.get(n)} → {now.get(n)}" for n in names)
