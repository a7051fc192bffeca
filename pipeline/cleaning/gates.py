"""Quality gates: `--fail-if "no_face>0.2,new.unreadable>0.05"` turns a bad data set into an exit code."""

from pipeline.cleaning.policy import EVERY_REASON
from pipeline.cleaning.versions import Version
from pipeline.console.gates import Gate, parse_gates
from pipeline.console.options import UsageError

VERDICTS = ("keep", "repair", "drop")
# absolute numbers of pictures, not shares
NUMBERS = ("images", "deleted")
# before a name: of the pictures that are new in the version
NEW = "new."


def version_gates(text: str) -> list[Gate]:
    """The gates of `--fail-if`, each of something that a version counts. Raises UsageError."""
    gates = parse_gates(text)
    known = (*VERDICTS, *EVERY_REASON, *NUMBERS)
    for gate in gates:
        if (name := gate.name.removeprefix(NEW)) not in known:
            raise UsageError(f"--fail-if: {name!r} is unknown; give one of {', '.join(known)}")
    return gates


def gate_value(gate: Gate, version: Version) -> float:
    """The gate's value: a share or a number of pictures; 0 without pictures."""
    new, name = gate.name.startswith(NEW), gate.name.removeprefix(NEW)
    if name == "deleted":
        return version.deleted
    images = version.new_images if new else version.images
    if name == "images":
        return images
    counted = (version.new_verdicts, version.new_reasons) if new else (version.verdicts, version.reasons)
    return sum(counts.get(name, 0) for counts in counted) / max(images, 1)


def is_broken(gate: Gate, version: Version) -> bool:
    """Whether the condition is true. Always False for a gate on new pictures where there are none."""
    if gate.name.startswith(NEW) and not version.new_images:
        return False
    return gate.holds(gate_value(gate, version))
