"""The fingerprint of a run: everything that changes pixels, and its short name."""

# Raised when the same input and settings begin to give other pixels, so that old and new results never mix.
import hashlib
import json
from typing import Any

METHOD_VERSION = 3


def fingerprint_digest(values: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that name a fingerprint."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
