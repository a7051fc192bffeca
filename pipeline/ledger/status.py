"""The state of a run, from what it has written so far: run file, plan, markers, and the records of failed images.

Nothing is written and no process is asked: it works beside a run, after one, and on another machine.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Any

from pipeline.io import layout, store
from pipeline.io.errors import redact
from pipeline.io.tables import read_table
from pipeline.ledger.lease import last_start
from pipeline.ledger.ledger import READERS
from pipeline.ledger.output import BROKEN, open_plan, open_run
from pipeline.ledger.plan import PlannedShard
from pipeline.ledger.retries import Retries, load_retries
from pipeline.records.marker import Marker, environment_text
from pipeline.records.rows import DECISIONS, OUTCOMES, Decision, LeftFor, Outcome, Rung
from pipeline.records.verdicts import What

# The rate is that of the units finished so long before the last one.
RATE_SECONDS = 600.0
# Problems that are kept as sentences; the others are counted.
MOST_PROBLEMS = 1000

FAILURE_COLUMNS = ("unit", "member", "stage", "reason", "error", "attempts", "traceback")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one marker says."""

    unit: str
    shard: str
    part: int
    images: int
    faces: int
    # images by outcome, as OUTCOMES
    outcomes: tuple[int, ...]
    # faces, in the order of DECISIONS
    decisions: tuple[int, ...]
    # faces left for each of LEFT_TEXTS; without those that left none
    left_for: dict[LeftFor, int]
    # faces by the treatment that passed the gates; without those that none had
    rungs: dict[Rung, int]
    # faces by the last verdict of a person on them; without those that were given on none
    verdicts: dict[What, int]
    # what --samples drew and found; empty without
    sampling: dict[str, int]
    # images by outcome and `stage: reason`; None where all were restored or had no face
    reasons: dict[str, dict[str, int]] | None
    attempts: int
    finished_at: float
    # of its faces, in a line; empty where it was not recorded
    environment: str = ""

    @property
    def failed(self) -> int:
        """Images that failed."""
        return self.outcomes[OUTCOMES.index("failed")]


@dataclass
class State:
    """The state of a run."""

    output: str
    name: str
    # empty where the run file does not say
    input: str = ""
    preset: str = ""
    fingerprint: str = ""
    # seconds since 1970
    created_at: float = 0.0
    read_at: float = 0.0
    shards_planned: int = 0
    units_planned: int = 0
    images_planned: int = 0
    shards_done: int = 0
    shards_with_failures: int = 0
    units_done: int = 0
    # done once, and ordered to be done again
    units_to_retry: int = 0
    images: int = 0
    faces: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    # faces by what was decided of them
    decisions: dict[Decision, int] = field(default_factory=lambda: dict.fromkeys(DECISIONS, 0))
    # of those left, by why; of the others, by the treatment that passed the gates
    left_for: dict[LeftFor, int] = field(default_factory=dict)
    rungs: dict[Rung, int] = field(default_factory=dict)
    # by the last verdict of a person on them
    verdicts: dict[What, int] = field(default_factory=dict)
    # what --samples drew and found, by SAMPLING of records/totals.py
    sampling: dict[str, int] = field(default_factory=dict)
    # images by outcome and `stage: reason`
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    # units done, by the environment of their faces in a line; the bits of two may differ by rounding
    environments: dict[str, int] = field(default_factory=dict)
    # over the `rate_seconds` before the last unit; None where fewer than two units were finished in them
    images_per_second: float | None = None
    rate_seconds: float = 0.0
    seconds_left: float | None = None
    last_unit_at: float | None = None
    # number of starts so far, and the process of the last one
    starts: int = 0
    driver: str = ""
    # whether that process is at work, and whether it has been asked to stop
    at_work: bool = False
    stopping: bool = False
    # how it ended; None while it works, and where it was killed
    exit_code: int | None = None
    # what ended it, where that was no end of the work
    ended_by: str = ""
    # the last failures, newest unit first
    errors: list[dict[str, Any]] = field(default_factory=list)
    # inconsistencies, a sentence each
    problems: list[str] = field(default_factory=list)
    problems_left_out: int = 0
    # nothing more is to come: no marker is missing, though one may be damaged, or the plan is
    all_marked: bool = False

    @property
    def complete(self) -> bool:
        """Every planned unit is done."""
        return 0 < self.units_planned == self.units_done

    def wrong(self, sentence: str) -> None:
        """Note a problem."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(sentence)
        else:
            self.problems_left_out += 1

    def to_json(self) -> dict[str, Any]:
        values = asdict(self) | {"complete": self.complete}
        del values["all_marked"]
        return values


class Observer:
    """Looks at one output, any number of times; a marker is read again only when it has changed."""

    def __init__(self, output: str) -> None:
        """Raises NoRun or StoreError where there is no run."""
        self._output = output
        self._run, self._run_problems = open_run(output)
        self._plan: list[PlannedShard] = []
        self._plan_problems: list[str] = []
        self._plan_version = ""
        # marker's path → its version, and what it says
        self._seen: dict[str, tuple[str, Seen]] = {}
        # unit → version of its marker, and the failures in its records
        self._failures: dict[str, tuple[str, list[dict[str, Any]]]] = {}

    def look(self, errors: int = 5, now: float | None = None) -> State:
        """The state of the run now, with so many of the last failures. Raises StoreError."""
        config = self._run.repeat.get("config", {})
        state = State(
            output=redact(self._output),
            name=store.name_of(self._output),
            input=redact(self._run.input),
            preset=str(self._run.repeat.get("preset", {}).get("name") or config.get("preset") or ""),
            fingerprint=self._run.digest,
            created_at=self._run.created_at,
            read_at=time.time() if now is None else now,
        )
        self._read_driver(state)
        for finding in self._run_problems:
            state.wrong(finding.sentence)
        self._read_plan(state)
        retries = self._read_retries(state)
        current = self._current(state, retries)
        add_up(state, current, self._plan)
        set_pace(state, [(s.finished_at, s.images) for s in current])
        state.errors = self._last_failures([s for s in current if s.failed], errors)
        return state

    def _read_driver(self, state: State) -> None:
        last = last_start(self._output)
        if last is not None:
            state.starts, state.driver, state.exit_code = last.number, last.who, last.exit_code
            state.ended_by = last.reason
            state.at_work = last.seems_to_live(state.read_at)
            state.stopping = state.at_work and store.exists(store.join(self._output, last.stop_path))

    def _read_plan(self, state: State) -> None:
        uri = store.join(self._output, layout.PLAN)
        version = store.stat(uri).version if store.exists(uri) else ""
        if version != self._plan_version:
            self._plan, findings = open_plan(self._run)
            self._plan_problems = [f.sentence for f in findings]
            self._plan_version = version
        for sentence in self._plan_problems:
            state.wrong(sentence)
        state.shards_planned = len(self._plan)
        state.units_planned = sum(p.units for p in self._plan)
        state.images_planned = sum(p.images for p in self._plan)

    def _read_retries(self, state: State) -> Retries:
        try:
            return load_retries(self._output)
        except BROKEN as error:
            state.wrong(f"{layout.RETRIES}: what was to be done again can not be read ({error})")
            return Retries()

    def _current(self, state: State, retries: Retries) -> list[Seen]:
        """What the markers say of the units that are done."""
        planned = {p.shard.name: p.units for p in self._plan}
        current: list[Seen] = []
        marked = 0
        for path, seen in self._markers(state):
            units = planned.get(path.rpartition("/")[0])
            if units is None or (seen and seen.part >= units):
                # a plan that is damaged was named already
                if not self._plan_problems:
                    state.wrong(f"{layout.DONE}/{path}: no unit of the plan has this marker")
                continue
            marked += 1
            if seen and retries.wait_for(seen.unit, seen.attempts):
                state.units_to_retry += 1
            elif seen:
                current.append(seen)
        everything = 0 < state.units_planned <= marked and not state.units_to_retry
        state.all_marked = everything or bool(self._plan_problems)
        return current

    def _markers(self, state: State) -> Iterator[tuple[str, Seen | None]]:
        """Every marker's path and what it says; None, and a problem, for one that is damaged."""
        uri = store.join(self._output, layout.DONE)
        entries = {e.path: e for e in store.list_files(uri)} if store.exists(uri) else {}
        known = self._seen
        new = [e for path, e in entries.items() if path not in known or known[path][0] != e.version]
        self._seen = {path: known[path] for path in entries if path in known}
        broken: dict[str, str] = {}
        with ThreadPoolExecutor(READERS) as pool:
            runs = repeat(self._run.run if self._run.digest else None)
            for entry, read in zip(new, pool.map(_read_marker, new, runs), strict=True):
                if isinstance(read, Seen):
                    self._seen[entry.path] = (entry.version, read)
                else:
                    # read again at every look, as a server may only have been away
                    self._seen.pop(entry.path, None)
                    broken[entry.path] = read
        for path in entries:
            if path in broken:
                state.wrong(
                    f"{layout.DONE}/{path}: {broken[path]}; delete it and run the same restore command again"
                )
            yield path, None if path in broken else self._seen[path][1]

    def _last_failures(self, failed: Sequence[Seen], most: int) -> list[dict[str, Any]]:
        """The last failed images, from the records of as few units as have them."""
        found: list[dict[str, Any]] = []
        kept: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        for seen in sorted(failed, key=lambda s: s.finished_at, reverse=True):
            if len(found) >= most:
                break
            version = f"{seen.finished_at} {seen.attempts}"
            before = self._failures.get(seen.unit, ("", []))
            rows = before[1] if before[0] == version else self._read_failures(seen.unit)
            kept[seen.unit] = (version, rows)
            found += rows
        self._failures = kept
        return found[:most]

    def _read_failures(self, unit: str) -> list[dict[str, Any]]:
        """The unit's failed images; where its records can not be read, one row that says so."""
        path = layout.records_path(unit)
        try:
            data = store.read_bytes(store.join(self._output, path))
            columns = ["kind", "outcome", *FAILURE_COLUMNS]
            rows = read_table(data, columns).to_pylist()
        except (*BROKEN, OSError) as error:
            error_text = f"{path} can not be read ({error})"
            return [
                dict.fromkeys(FAILURE_COLUMNS, "") | {"unit": unit, "error": error_text, "attempts": None}
            ]
        return [
            {name: row[name] for name in FAILURE_COLUMNS}
            for row in rows
            if row["kind"] == "image" and row["outcome"] == "failed"
        ]


def _read_marker(entry: store.Entry, run: str | None) -> Seen | str:
    """What the marker says, or what is wrong with it. run: identity of the run; None where it is not known."""
    try:
        marker = Marker.from_json(store.read_bytes(entry.uri))
        counts = marker.counts
        seen = Seen(
            unit=str(marker.unit),
            shard=str(marker.shard),
            part=int(marker.part),
            images=int(counts.images),
            faces=int(counts.faces),
            outcomes=tuple(int(counts.outcomes[name]) for name in OUTCOMES),
            decisions=tuple(marker.metrics.decisions.values()),
            left_for=marker.metrics.left_for,
            rungs=marker.metrics.rungs,
            verdicts=marker.metrics.verdicts,
            sampling=marker.metrics.sampling,
            reasons={o: {str(why): int(n) for why, n in c.items()} for o, c in marker.reasons.items() if c}
            or None,
            attempts=int(marker.attempts),
            finished_at=float(marker.finished_at),
            environment=sys.intern(environment_text(marker.environment)),
        )
    except BROKEN as error:
        return f"a whole marker was wanted, it can not be read ({type(error).__name__}: {error})"
    if run is not None and marker.run != run:
        return "a marker of this run was wanted, that of another one is there"
    if f"{seen.shard}/{seen.part:04d}.json" != entry.path:
        return f"the marker of this unit was wanted, it is of {seen.unit}"
    if sum(seen.outcomes) != seen.images or min(seen.outcomes) < 0:
        return f"one outcome for each of {seen.images} images was wanted, {sum(seen.outcomes)} are there"
    return seen


def add_up(state: State, done: Sequence[Seen], plan: Sequence[PlannedShard]) -> None:
    """Count what is done, and hold it against the plan."""
    units = Counter(s.shard for s in done)
    images: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"skipped": Counter(), "failed": Counter()}
    for seen in done:
        images[seen.shard] += seen.images
        for name, number in zip(OUTCOMES, seen.outcomes, strict=True):
            state.outcomes[name] += number
        for way, number in zip(DECISIONS, seen.decisions, strict=True):
            state.decisions[way] += number
        for why, number in seen.left_for.items():
            state.left_for[why] = state.left_for.get(why, 0) + number
        for rung, number in seen.rungs.items():
            state.rungs[rung] = state.rungs.get(rung, 0) + number
        for what, number in seen.verdicts.items():
            state.verdicts[what] = state.verdicts.get(what, 0) + number
        for drawn, number in seen.sampling.items():
            state.sampling[drawn] = state.sampling.get(drawn, 0) + number
        if seen.environment:
            state.environments[seen.environment] = state.environments.get(seen.environment, 0) + 1
        for outcome, causes in (seen.reasons or {}).items():
            reasons.setdefault(outcome, Counter()).update(causes)
    state.units_done, state.images, state.faces = len(done), images.total(), sum(s.faces for s in done)
    state.reasons = {outcome: dict(counted.most_common()) for outcome, counted in reasons.items()}
    state.shards_with_failures = len({s.shard for s in done if s.failed})
    for planned in plan:
        shard = planned.shard.name
        if units[shard] == planned.units:
            state.shards_done += 1
            if images[shard] != planned.images:
                has = f"the markers of all its units have {images[shard]}"
                state.wrong(f"shard {shard}: {planned.images} images are planned, {has}")


def set_pace(state: State, finished: Sequence[tuple[float, int]]) -> None:
    """How fast the run goes, and how long it still takes if somebody is at work.

    finished: when each unit was, in seconds since 1970, and its images.
    """
    if not finished:
        return
    state.last_unit_at = max(t for t, _ in finished)
    recent = sorted((t, n) for t, n in finished if t >= state.last_unit_at - RATE_SECONDS)
    span = state.last_unit_at - recent[0][0]
    if span > 0:
        state.rate_seconds = span
        # the images of the first unit were worked on before its end, where the span begins
        state.images_per_second = sum(n for _, n in recent[1:]) / span
        if state.at_work:
            state.seconds_left = (state.images_planned - state.images) / state.images_per_second
