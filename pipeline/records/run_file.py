"""The run file of an output: which run it belongs to, and the settings of that run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pipeline.records.fingerprint import fingerprint_digest
from pipeline.records.seal import SEAL, is_intact, sealed


@dataclass(frozen=True)
class RunFile:
    """One run."""

    # short name of the fingerprint
    digest: str
    # the settings that change pixels
    fingerprint: dict[str, Any]
    # what it takes to restore a picture again: `config`, the options by flag, and `preset`
    repeat: dict[str, Any] = field(default_factory=dict)
    # what is restored
    input: str = ""
    # seconds since 1970
    created_at: float = 0.0
    # number type of the networks; empty where no unit was begun
    precision: str = ""
    # identity of the run; empty in outputs of versions that gave none
    run: str = ""
    # what an earlier run left in the output is being deleted
    discarded: bool = False
    # whether its checksum fits: versions before it had one wrote "none"
    checksum: Literal["fits", "broken", "none"] = "none"

    @classmethod
    def of(
        cls, run: str, fingerprint: dict[str, Any], input: str, repeat: dict[str, Any], now: float
    ) -> "RunFile":
        """A new run with these settings."""
        return cls(fingerprint_digest(fingerprint), fingerprint, repeat, input, now, run=run)

    @classmethod
    def from_json(cls, data: bytes) -> "RunFile":
        """Raises ValueError, KeyError, TypeError or AttributeError for what `to_json` did not write."""
        values: Mapping[str, Any] = json.loads(data)
        known = {f.name for f in fields(cls)} - {"checksum"}
        checksum: Literal["fits", "broken", "none"] = "none"
        if SEAL in values:
            checksum = "fits" if is_intact(values) else "broken"
        found = {"digest": values["digest"], "fingerprint": values["fingerprint"]}
        return cls(**found | {k: v for k, v in values.items() if k in known}, checksum=checksum)

    @staticmethod
    def identity(data: bytes) -> str:
        """The identity of the run whose file has these bytes; "?" for a damaged file, which is no run's."""
        try:
            return RunFile.from_json(data).run
        except (ValueError, KeyError, TypeError, AttributeError):
            return "?"

    def to_json(self) -> bytes:
        """Its bytes, with a checksum."""
        values = {name: value for name, value in asdict(self).items() if name != "checksum"}
        for name in ("precision", "discarded"):
            if not values[name]:
                del values[name]
        return json.dumps(sealed(values), indent=1).encode()

    @property
    def is_intact(self) -> bool:
        """Whether it is what the run wrote; of a version without checksums nothing is known against it."""
        return self.checksum == "fits" or (self.checksum == "none" and not self.run)
