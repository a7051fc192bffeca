"""The plan of a run: its shards, in order, and the units of each."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.io import layout, readers, store
from pipeline.io.shards import Shard
from pipeline.io.units import Unit, units_to_json
from pipeline.records import seal


@dataclass(frozen=True)
class PlannedShard:
    """One shard of the plan. `index` is its place, and its step in the tracker's series."""

    index: int
    shard: Shard
    units: int
    images: int
    # sha256 of the file that holds its units; empty in outputs of versions that gave none
    digest: str = ""

    @classmethod
    def of(cls, index: int, shard: Shard, units: Sequence[Unit]) -> "PlannedShard":
        """The shard with these units."""
        digest = hashlib.sha256(units_to_json(units)).hexdigest()
        return cls(index, shard, len(units), sum(len(unit.images) for unit in units), digest)


@dataclass(frozen=True)
class Plan:
    """The shards of a run; none where nothing is planned yet."""

    # identity of the run; empty in outputs of versions that gave none
    run: str = ""
    shards: tuple[PlannedShard, ...] = ()
    # whether its checksum fits; plans before they had one were a list
    is_intact: bool = True

    @classmethod
    def from_json(cls, data: bytes) -> "Plan":
        """Raises ValueError, KeyError or TypeError for what `to_json` did not write."""
        found = json.loads(data)
        run, shards = ("", found) if isinstance(found, list) else (str(found["run"]), found["shards"])
        planned: list[PlannedShard] = []
        for values in shards:
            files = tuple(store.Entry(**f) for f in values["files"])
            shard = Shard(values["name"], values["kind"], files)
            number = (values["units"], values["images"], values.get("digest", ""))
            planned.append(PlannedShard(len(planned), shard, *number))
        return cls(run, tuple(planned), not run or seal.is_intact(found))

    def to_json(self) -> bytes:
        """Its bytes, with a checksum."""
        shards = [
            {
                "name": planned.shard.name,
                "kind": planned.shard.kind,
                "units": planned.units,
                "images": planned.images,
                "digest": planned.digest,
                "files": [vars(file) for file in planned.shard.files],
            }
            for planned in self.shards
        ]
        return json.dumps(seal.sealed({"run": self.run, "shards": shards})).encode()


def read_plan(output: str) -> Plan:
    """The plan of an output. Raises StoreError, or one of Python's own for a damaged file."""
    uri = store.join(output, layout.PLAN)
    return Plan.from_json(store.read_bytes(uri)) if store.exists(uri) else Plan()


def load_units(output: str, shard: Shard) -> list[Unit]:
    """The units of a planned shard, in order."""
    return readers.load_units(store.join(output, layout.plan_path(shard.name)))


# Files as they were planned, and as they are now.
Changed = list[tuple[store.Entry, store.Entry]]


def changed_files(planned: Sequence[Shard], entries: Sequence[store.Entry]) -> Changed:
    """Planned files that are no longer what they were: as planned, and as they are now."""
    current = {e.path: e for e in entries}
    pairs = [(file, current.get(file.path, file)) for shard in planned for file in shard.files]
    return [(old, now) for old, now in pairs if (old.size, old.version) != (now.size, now.version)]


def how_changed(changed: Changed) -> str:
    """Why changed files refuse a plan, and what to do."""
    old, now = changed[0]
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return (
        f"{now.uri}{more} has changed since this output was planned: {old.size} bytes, version {old.version} then, "
        f"{now.size} bytes, version {now.version} now; do what changed again with --redo-changed, or choose another "
        "--output for the new state"
    )
