"""The state of a cleaning, from what it has written so far: versions, note, measurements, repairs.

Nothing is written and no process is contacted: it works during a start, after one, and on another machine.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.compute as pc

from pipeline.cleaning.note import NOTE, Note, read_note
from pipeline.cleaning.plan import SAME
from pipeline.cleaning.versions import VERSIONS, DamagedVersion, Version, last_version, read_manifest
from pipeline.console.commands import BUSY, GATE_BROKEN, OK
from pipeline.io import layout, store
from pipeline.io.errors import redact
from pipeline.io.tables import read_table
from pipeline.ledger.lease import last_start
from pipeline.ledger.output import NoRun
from pipeline.ledger.status import Observer, State

READERS = 16
# Exit codes of starts that did what they were to do.
ENDED_WELL = (OK, GATE_BROKEN, BUSY)


@dataclass
class CleaningState:
    """The state of a cleaning."""

    output: str
    name: str
    input: str = ""
    # seconds since 1970
    read_at: float = 0.0
    # the newest version, None before the first; its pictures by verdict and reason
    version: int | None = None
    images: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    new_images: int = 0
    deleted: int = 0
    # the version that the last start was making, and how far it was; None where no start says
    making: int | None = None
    phase: str = ""
    dry_run: bool = False
    # of the version being made: what is measured and not yet in a version, and how much is to be
    units_done: int = 0
    units_planned: int = 0
    images_measured: int = 0
    images_planned: int = 0
    faces: int = 0
    # measured pictures that cannot be read, by problem
    problems_of_pictures: dict[str, int] = field(default_factory=dict)
    images_per_second: float | None = None
    seconds_left: float | None = None
    # the repairs of the version being made, or else of the newest one; None without any
    repairs: State | None = None
    starts: int = 0
    driver: str = ""
    at_work: bool = False
    stopping: bool = False
    exit_code: int | None = None
    ended_by: str = ""
    # pictures that cannot be read, or whose repair failed: name, problem, detail
    errors: list[dict[str, Any]] = field(default_factory=list)
    # inconsistencies, a sentence each
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """There is a version, and no start is at work on a further one or was stopped at it."""
        made = self.version is not None and (self.making is None or self.making <= self.version)
        return self.version is not None and not self.at_work and (made or self.exit_code in ENDED_WELL)

    def to_json(self) -> dict[str, Any]:
        repairs = None if self.repairs is None else self.repairs.to_json()
        return asdict(self) | {"kind": "cleaning", "complete": self.complete, "repairs": repairs}


def is_cleaning(output: str) -> bool:
    """Whether an output is that of a cleaning, and of no run. Raises StoreError."""
    store.check_readable(output)
    if store.exists(store.join(output, layout.RUN)):
        return False
    return any(store.exists(store.join(output, path)) for path in (VERSIONS, NOTE, SAME, "measurements"))


class CleaningObserver:
    """Looks at one output, any number of times; a file of measurements is read once."""

    def __init__(self, output: str) -> None:
        self._output = output
        # path of a file of measurements → its version, and what it says
        self._measured: dict[str, tuple[str, Measured]] = {}
        # the version whose manifest was read for errors, and these
        self._errors: tuple[str, list[dict[str, Any]]] = ("", [])
        # folder of repairs → what looks at them
        self._repairs: dict[str, Observer] = {}

    def look(self, errors: int = 5, now: float | None = None) -> CleaningState:
        """The state now, with so many of the pictures that failed. Raises StoreError."""
        state = CleaningState(redact(self._output), store.name_of(self._output))
        state.read_at = time.time() if now is None else now
        self._read_driver(state)
        note, version = self._read_note(state), self._read_version(state)
        if note is not None and not state.complete:
            self._read_measurements(state, note)
        self._read_repairs(state, note, version, errors)
        if version is not None and errors:
            state.errors = [*state.errors, *self._failures(state, version)][:errors]
        return state

    def _read_driver(self, state: CleaningState) -> None:
        last = last_start(self._output)
        if last is not None:
            state.starts, state.driver, state.exit_code = last.number, last.who, last.exit_code
            state.ended_by = last.reason
            state.at_work = last.seems_to_live(state.read_at)
            state.stopping = state.at_work and store.exists(store.join(self._output, last.stop_path))

    def _read_note(self, state: CleaningState) -> Note | None:
        try:
            note = read_note(self._output)
        except ValueError as error:
            state.problems.append(f"{NOTE}: what the last start did cannot be read ({error})")
            return None
        if note is not None:
            state.input, state.making, state.phase = redact(note.input), note.version, note.phase
            state.dry_run = note.dry_run
        return note

    def _read_version(self, state: CleaningState) -> Version | None:
        try:
            version = last_version(self._output)
        except DamagedVersion as error:
            state.problems.append(str(error))
            return None
        if version is None:
            return None
        state.version, state.input, state.images = version.number, redact(version.input), version.images
        state.verdicts, state.reasons = dict(version.verdicts), dict(version.reasons)
        state.new_images, state.deleted = version.new_images, version.deleted
        if not store.exists(store.join(self._output, version.manifest)):
            state.problems.append(
                f"{version.manifest}: the manifest of version {version.number} is gone; restore it from a copy"
            )
        for name, counted in (("verdicts", version.verdicts), ("reasons", version.reasons)):
            if sum(counted.values()) != version.images:
                state.problems.append(
                    f"{version.path}: expected {name} of {version.images} pictures, got {sum(counted.values())}"
                )
        return version

    def _read_measurements(self, state: CleaningState, note: Note) -> None:
        """What was measured for the version that is being made."""
        folder = store.join(self._output, note.measurements)
        entries = store.list_files(folder) if store.exists(folder) else []
        known = {e.path: self._measured[e.path] for e in entries if e.path in self._measured}
        new = [e for e in entries if e.path not in known or known[e.path][0] != e.version]
        with ThreadPoolExecutor(READERS) as pool:
            for entry, found in zip(new, pool.map(_read_measured, new), strict=True):
                if found is None:
                    path = f"{note.measurements}/{entry.path}"
                    state.problems.append(f"{path}: expected measurements, it cannot be read; delete it")
                else:
                    known[entry.path] = (entry.version, found)
        self._measured = known
        every = [found for _, found in known.values()]
        state.units_done, state.units_planned = len(every), note.units_before + note.units
        state.images_measured = sum(found.images for found in every)
        state.images_planned = note.images_before + note.images
        state.faces = sum(found.faces for found in every)
        state.problems_of_pictures = dict(sum((found.problems for found in every), Counter()).most_common())
        seconds, done = state.read_at - note.began_at, state.images_measured - note.images_before
        if state.at_work and note.phase == "measuring" and done > 0 and seconds > 0:
            state.images_per_second = done / seconds
            state.seconds_left = (state.images_planned - state.images_measured) * seconds / done

    def _read_repairs(
        self, state: CleaningState, note: Note | None, version: Version | None, errors: int
    ) -> None:
        """The repairs of the version that is being made, or of the last one."""
        repairing = note.repairs if note is not None and not state.complete else ""
        folder = repairing or (f"repairs/{version.repair}" if version is not None and version.repair else "")
        if not folder:
            return
        try:
            if folder not in self._repairs:
                self._repairs[folder] = Observer(store.join(self._output, folder))
        except NoRun:
            return  # nothing of it is written yet
        found = self._repairs[folder].look(errors)
        state.repairs = found
        state.problems += [f"{folder}: {sentence}" for sentence in found.problems]
        state.errors = [
            {"name": e["member"], "problem": f"{e['stage']}: {e['reason']}", "detail": e["error"]}
            for e in found.errors
        ]
        # the process at work is the cleaning's
        if repairing and state.at_work and note is not None and note.phase == "repairing":
            state.images_per_second = found.images_per_second
            if found.images_per_second:
                state.seconds_left = (found.images_planned - found.images) / found.images_per_second

    def _failures(self, state: CleaningState, version: Version) -> list[dict[str, Any]]:
        """The unreadable pictures of a version."""
        if not version.reasons.get("unreadable"):
            return []
        if self._errors[0] != version.manifest:
            try:
                rows = read_manifest(self._output, version).select(["name", "problem", "detail", "verdict"])
            except (DamagedVersion, store.StoreError) as error:
                state.problems.append(str(error))
                return []
            rows = rows.filter(pc.and_(pc.not_equal(rows["problem"], ""), pc.equal(rows["verdict"], "drop")))
            self._errors = version.manifest, rows.drop_columns(["verdict"]).to_pylist()
        return self._errors[1]


@dataclass(frozen=True)
class Measured:
    """What one file of measurements says."""

    images: int
    faces: int
    # unreadable pictures by problem
    problems: Counter[str]


def _read_measured(entry: store.Entry) -> Measured | None:
    """What a file says; None where it cannot be read."""
    try:
        rows = read_table(store.read_bytes(entry.uri), ["problem", "faces"])
    except (ValueError, OSError):
        return None
    problems: Iterator[str] = (name for name in rows["problem"].to_pylist() if name)
    return Measured(rows.num_rows, pc.sum(rows["faces"]).as_py() or 0, Counter(problems))
