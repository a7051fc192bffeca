"""Quality gates: `--fail-if "no_face>0.2,new.unreadable>0.05"` turns a bad data set into an exit code."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.cleaning.policy import EVERY_REASON
from pipeline.cleaning.versions import Version
from pipeline.console.options import UsageError

COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
VERDICTS = ("keep", "repair", "drop")
# absolute numbers of pictures, not shares
NUMBERS = ("images", "deleted")
_FORM = re.compile(r"(new\.)?([a-z_]+)\s*(>=|<=|>|<)\s*([0-9.]+)")


@dataclass(frozen=True)
class Gate:
    """One condition under which a version is rejected."""

    text: str
    # evaluated on pictures new in this version only
    new: bool
    name: str
    sign: str
    limit: float

    def value(self, version: Version) -> float:
        """The gate's value: a share or a number of pictures; 0 without pictures."""
        if self.name == "deleted":
            return version.deleted
        images = version.new_images if self.new else version.images
        if self.name == "images":
            return images
        counted = (
            (version.new_verdicts, version.new_reasons) if self.new else (version.verdicts, version.reasons)
        )
        return sum(counts.get(self.name, 0) for counts in counted) / max(images, 1)

    def broken(self, version: Version) -> bool:
        """Whether the condition is true. Always False for a gate on new pictures where there are none."""
        if self.new and not version.new_images:
            return False
        return COMPARED[self.sign](self.value(version), self.limit)


def parse_gates(text: str) -> list[Gate]:
    """The gates of `--fail-if`. Raises UsageError."""
    gates = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        form = _FORM.fullmatch(part)
        if form is None:
            raise UsageError(
                f"--fail-if: expected NAME>NUMBER or NAME<NUMBER, such as no_face>0.2; got {part!r}"
            )
        new, name, sign, limit = form.groups()
        known = (*VERDICTS, *EVERY_REASON, *NUMBERS)
        if name not in known:
            raise UsageError(f"--fail-if: {name!r} is unknown; give one of {', '.join(known)}")
        try:
            gates.append(Gate(part, bool(new), name, sign, float(limit)))
        except ValueError:
            raise UsageError(f"--fail-if: {limit!r} in {part!r} is not a number") from None
    return gates
