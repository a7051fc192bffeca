"""Read a finished or stopped output and compare it with its plan and its markers.

The input is not read. Memory holds the plan, hashes of the object names, and for each reader one unit's records and one
picture at a time (the whole unit for Parquet).
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.io import layout, store
from pipeline.io.prefetch import ahead
from pipeline.ledger.findings import Finding
from pipeline.ledger.output import BY_COPY, Run, open_plan, open_report, open_shard
from pipeline.ledger.plan import PlannedShard
from pipeline.records.rows import Counts
from pipeline.verify.unit import Candidate, UnitAudit, audit_unit

# Folders in which every object is a marker or is listed in one.
NAMED = (layout.IMAGES, layout.SHARDS, layout.RECORDS, layout.FACES, layout.TILES, layout.DONE)
# Unfinished units named in the message, and kept for the report.
SHOWN, MOST_KEPT = 5, 10_000


class Audit:
    """One audit of an output. Call in this order: `read_plan`, `units`, `unaccounted`."""

    def __init__(self, run: Run, sample: int = 0, seed: str = "") -> None:
        self.run = run
        self._sample, self._seed = sample, seed
        self._plan: list[PlannedShard] = []
        self._plan_damaged = False
        self._markers: set[int] = set()
        self._named: set[int] = set()
        self.counts = Counts()
        self.finished = self.objects = self.bytes = 0
        self.unfinished: list[str] = []
        self._unfinished = 0
        self._sampled: list[Candidate] = []

    @property
    def images_planned(self) -> int:
        return sum(p.images for p in self._plan)

    @property
    def units_planned(self) -> int:
        return sum(p.units for p in self._plan)

    @property
    def candidates(self) -> list[Candidate]:
        """The pictures sampled to be restored again, from units without findings."""
        return sorted(self._sampled)

    def read_plan(self) -> list[Finding]:
        """Read the plan and list the markers; the findings in them."""
        self._plan, findings = open_plan(self.run)
        done = store.join(self.run.output, layout.DONE)
        shards: Counter[str] = Counter()
        for entry in store.list_files(done) if store.exists(done) else []:
            self._markers.add(hash(f"{layout.DONE}/{entry.path}"))
            shards[entry.path.rpartition("/")[0]] += 1
        if not findings:
            known = {p.shard.name for p in self._plan}
            for name in [name for name in shards if name not in known]:
                what = f"shard {name} has {shards[name]} markers and is not in the plan"
                findings.append(Finding("plan", layout.PLAN, f"{layout.PLAN}: {what}; {BY_COPY}"))
        self._plan_damaged = bool(findings)
        return findings

    def units(self, readers: int) -> Iterator[UnitAudit]:
        """Every planned unit, in the plan's order. readers: number of threads."""
        with ThreadPoolExecutor(readers) as pool:
            for audited in ahead(pool, self._tasks(), 2 * readers):
                self._take(audited)
                yield audited

    def _tasks(self) -> Iterator[Callable[[], UnitAudit]]:
        for planned in self._plan:
            units, findings = open_shard(self.run, planned)
            if findings:
                self._plan_damaged = True
                yield partial(UnitAudit, planned.shard.name, planned.images, findings=findings)
            for unit in units:
                marked = hash(unit.marker_path) in self._markers
                yield partial(audit_unit, self.run, unit, marked, self._sample, self._seed)

    def _take(self, audited: UnitAudit) -> None:
        self._named.update(audited.named)
        self.counts = self.counts + audited.counts
        self.objects += audited.objects
        self.bytes += audited.bytes
        self.finished += audited.finished
        if not audited.finished and not audited.findings:
            self._unfinished += 1
            if len(self.unfinished) < MOST_KEPT:
                self.unfinished.append(audited.name)
        self._sampled = heapq.nsmallest(self._sample, [*self._sampled, *audited.candidates])

    def unaccounted(self) -> Iterator[Finding]:
        """Findings about unfinished units, and about objects that no marker lists."""
        if not self._plan and not self._plan_damaged:
            what = "nothing is planned yet; run the same restore command again"
            yield Finding("unfinished", layout.PLAN, f"unfinished: {what}")
        if self._unfinished:
            more = ", …" if self._unfinished > SHOWN else ""
            yield Finding(
                "unfinished",
                layout.DONE,
                f"unfinished: {self._unfinished} of {self.units_planned} planned units have no marker "
                f"({', '.join(self.unfinished[:SHOWN])}{more}); run the same restore command again to finish them",
            )
        yield from open_report(self.run)
        if self._plan_damaged:
            return  # stray objects cannot be recognised while the plan is damaged
        for folder in NAMED:
            uri = store.join(self.run.output, folder)
            for entry in store.list_files(uri) if store.exists(uri) else []:
                path = f"{folder}/{entry.path}"
                if hash(path) not in self._named and hash(f"{path.rpartition('/')[0]}/") not in self._named:
                    what = (
                        f"{path}: no {'unit of the plan' if folder == NAMED[-1] else 'marker'} refers to it"
                    )
                    yield Finding("stray", path, f"{what}; delete it, or move it elsewhere if it is yours")
