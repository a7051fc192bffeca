"""The units that are deliberately done again."""

import json
from dataclasses import dataclass, field

from pipeline.io import layout, store


@dataclass(frozen=True)
class Retries:
    """The units that were deliberately begun again, and whether the last such order is carried out.

    Written before the first of them begins, so that a killed retry is finished by the next start of whatever kind,
    and each unit's number of attempts does not depend on how often the run was killed.
    """

    open: bool = False
    # by unit; one that is not named has one attempt
    attempts: dict[str, int] = field(default_factory=dict)

    def wait_for(self, unit: str, attempts: int) -> bool:
        """A unit that was done with so many attempts is still to be done again."""
        return attempts < self.attempts.get(unit, 1)

    def to_json(self) -> bytes:
        return json.dumps(vars(self), indent=1).encode()


def load_retries(output: str) -> Retries:
    """What was ordered to be done again in an output."""
    uri = store.join(output, layout.RETRIES)
    return Retries(**json.loads(store.read_bytes(uri))) if store.exists(uri) else Retries()
