"""The unit of a row, from its shard's plan."""

from dataclasses import dataclass, replace
from functools import lru_cache

from pipeline.io import layout, store
from pipeline.io.errors import message
from pipeline.io.readers import load_units
from pipeline.io.units import Unit
from pipeline.records.rows import Row
from pipeline.records.verdicts import BadVerdicts
from pipeline.stages.verdicts import UnitVerdicts, verdicts_of


@dataclass(frozen=True)
class LoadUnit:
    """Row with `shard`, `part`, `attempts` → row with `work`, and where faces of the unit have verdicts, `verdicts`.

    Or with `undelivered`: why they can not be read.
    """

    output: str
    # number of the driver's start; the plan does not change during one
    start: int = 0

    def __call__(self, row: Row) -> Row:
        try:
            units = _units_once(store.join(self.output, layout.plan_path(row["shard"])), self.start)
            unit = replace(units[row["part"]], attempts=row["attempts"])
            # verdicts are on what was delivered before
            found = verdicts_of(self.output, unit) if unit.attempts > 1 else UnitVerdicts()
        except (store.StoreError, BadVerdicts) as error:
            return {"unit": row["unit"], "undelivered": message(error)}
        said = {"verdicts": found.to_json()} if found.history else {}
        return {"unit": row["unit"], "work": unit.to_json()} | said


@lru_cache(maxsize=1)
def _units_once(uri: str, start: int) -> list[Unit]:
    """`load_units`, kept for the shard's next unit: a worker is given neighbours."""
    return load_units(uri)
