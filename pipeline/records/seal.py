"""Checksums inside JSON objects, so that a flipped bit in a file of the ledger is found when it is read again."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with its checksum, in the place of any that it has."""
    return {k: v for k, v in values.items() if k != SEAL} | {SEAL: _checksum(values)}


def is_intact(values: Mapping[str, Any]) -> bool:
    """Whether the object has the checksum that it was sealed with."""
    return values.get(SEAL) == _checksum(values)


def _checksum(values: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of SHA-256, whatever the order of the keys."""
    bare = {k: v for k, v in values.items() if k != SEAL}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:32]
