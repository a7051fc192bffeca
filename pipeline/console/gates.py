"""`--fail-if NAME>NUMBER,NAME<NUMBER`: conditions that turn the result of a command into an exit code."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.console.options import UsageError

COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"([\w.]+)\s*(>=|<=|>|<)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Gate:
    """One condition."""

    text: str
    name: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether the value is beyond the limit."""
        return COMPARED[self.sign](value, self.limit)


def parse_gates(text: str) -> list[Gate]:
    """The conditions of `--fail-if`, separated by commas. Raises UsageError."""
    gates = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        form = _FORM.fullmatch(part)
        if form is None:
            raise UsageError(
                f"--fail-if: expected NAME>NUMBER or NAME<NUMBER, such as no_face>0.2; got {part!r}"
            )
        name, sign, limit = form.groups()
        try:
            gates.append(Gate(part, name, sign, float(limit)))
        except ValueError:
            raise UsageError(f"--fail-if: {limit!r} in {part!r} is not a number") from None
    return gates
