"""Which gates a run asks, and with what bounds: the preset's, or the options'."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.console.options import UsageError, option, require
from pipeline.faces.gates import GATES, Bounds
from pipeline.networks.presets import Preset

# The bounds for presets to which none were fitted: they refuse what is clearly another face, and what is no sharper.
UNFITTED: dict[str, dict[str, Any]] = {
    "normal": {"identity": [[0, 25]], "landmarks": 0.3, "colour": 24, "gain": 0.1},
    "strict": {"identity": [[0, 20]], "landmarks": 0.2, "colour": 12, "gain": 0.3},
}


@dataclass(frozen=True)
class GateOptions:
    """What a restored face may differ from the one that came."""

    level: Literal["off", "normal", "strict"] = option(
        "normal",
        help="compare every restored face with the one that came; one that would not look like the person any more, "
        "whose features or colours moved, or that gained nothing is restored more gently, and at last left as it was. "
        "strict allows less, off delivers what comes out (--task restore; docs/gates.md)",
        flag="gate",
    )
    identity: float | None = option(
        None,
        help="largest angle between the embeddings of a face before and after, degrees; inf does not ask (default: "
        "the preset's, larger for a damaged face)",
        metavar="DEGREES",
        flag="gate_identity",
    )
    landmarks: float | None = option(
        None,
        help="largest shift of an eye, the nose or a corner of the mouth from where the estimate has it, as a share of "
        "the distance between the eyes; inf does not ask (default: the preset's)",
        metavar="SHARE",
        flag="gate_landmarks",
    )
    colour: float | None = option(
        None,
        help="largest change of a broad patch's colour, levels; inf does not ask (default: the preset's)",
        metavar="LEVELS",
        flag="gate_colour",
    )
    gain: float | None = option(
        None,
        help="least gain: how much sharper (as a power of two) or less noisy (in levels) a face comes out; -inf does "
        "not ask (default: the preset's)",
        flag="gate_gain",
    )

    def __post_init__(self) -> None:
        given = self.given
        if given and self.level == "off":
            name, value = next(iter(given.items()))
            raise UsageError(f"--gate off asks no gate; leave --gate-{name} {value:g} out")
        rules = {
            f"--gate-{name} must be above 0": given.get(name, 1.0) > 0
            for name in ("identity", "landmarks", "colour")
        }
        require(self, rules)

    @property
    def given(self) -> dict[str, float]:
        """The bounds that are not the preset's, by gate."""
        return {name: value for name in GATES if (value := getattr(self, name)) is not None}


def choose_bounds(options: GateOptions, preset: Preset, free_colour: bool) -> Bounds | None:
    """What the gates allow; None where none is asked. Raises UsageError where the preset's table is none.

    free_colour: whether faces keep the colours of the chain, which are then no harm.
    """
    level = options.level
    if level == "off":
        return None
    try:
        bounds = Bounds.from_table(preset.gates.get(level, UNFITTED[level]))
    except ValueError as error:
        raise UsageError(f"--preset {preset.name}: [gates.{level}]: {error}") from error
    given: dict[str, Any] = {"colour": None} if free_colour else {}
    for gate, value in options.given.items():
        bound: Any = ((0.0, value),) if gate == "identity" else value
        given[gate] = bound if math.isfinite(value) else None
    return replace(bounds, **given)
