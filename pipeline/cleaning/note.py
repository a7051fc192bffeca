"""What a start of a cleaning is doing, as a file that jobs.status reads."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pipeline.io import layout, store

NOTE = f"{layout.LEDGER}/cleaning.json"

Phase = Literal["measuring", "deciding", "repairing", "writing"]


@dataclass(frozen=True)
class Note:
    """The contents of NOTE; written at the beginning of each phase."""

    # the version that is being made
    version: int
    input: str
    phase: Phase
    # seconds since 1970 at which measuring began
    began_at: float
    # units and pictures to measure in this start, and those that earlier starts measured for this version
    units: int = 0
    images: int = 0
    units_before: int = 0
    images_before: int = 0
    # folder of the measurements, and of the repairs where some are made, below the output
    measurements: str = ""
    repairs: str = ""
    dry_run: bool = False

    def write(self, output: str) -> None:
        """Raises StoreError."""
        store.write_bytes(store.join(output, NOTE), json.dumps(asdict(self), indent=1).encode())


def read_note(output: str) -> Note | None:
    """The note of an output; None where an earlier program made it. Raises StoreError, ValueError."""
    uri = store.join(output, NOTE)
    if not store.exists(uri):
        return None
    values: Any = json.loads(store.read_bytes(uri))
    if not isinstance(values, dict):
        raise ValueError(f"expected an object in {NOTE}, got {type(values).__name__}")
    known = {field.name for field in fields(Note)}
    try:
        return Note(**{name: values[name] for name in known & values.keys()})
    except TypeError as error:
        raise ValueError(f"{NOTE} is not complete ({error})") from error
