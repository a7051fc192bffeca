"""Several restorations of one face: how many are drawn, which is delivered, and when it counts as invented."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.console.options import UsageError, option, require
from pipeline.networks.presets import Preset

# Most chains of one face.
MOST = 64


@dataclass(frozen=True)
class SampleOptions:
    """How often a face is restored, so that it is known how sure the model is of it."""

    number: int = option(
        1,
        help="chains of each face with one, with the seeds from --seed on. Above 1 one of them is delivered; records "
        "and faces/UNIT/*-spread.png say how far they differ, and a face whose identity differs by more than the "
        "preset's bound is marked as invented (a preset without [spread], or a run without the identity's gate, marks "
        "none). Takes as many times the network calls (docs/gates.md)",
        metavar="K",
        flag="samples",
    )
    deliver: Literal["nearest", "first"] | None = option(
        None,
        help="with --samples: deliver the one that is nearest to their mean, or the first, which a run without "
        "--samples delivers (default: nearest)",
    )

    def __post_init__(self) -> None:
        require(self, {f"--samples must lie in 1..{MOST}": 1 <= self.number <= MOST})
        if self.deliver is not None and self.number == 1:
            raise UsageError(f"--deliver {self.deliver} chooses among several; give --samples with it")

    @property
    def takes_nearest(self) -> bool:
        """Whether the one nearest to their mean is delivered."""
        return self.deliver != "first"

    def resolved(self, bound: float | None) -> dict[str, Any]:
        """For the fingerprint, where more than one is drawn."""
        if self.number == 1:
            return {}
        how = {"number": self.number, "deliver": self.deliver or "nearest", "invented": bound}
        return {"samples": how}


def invented_above(preset: Preset, is_blind: bool) -> float | None:
    """The identity spread, degrees, above which a face counts as invented; None where none was fitted."""
    bound = preset.spread.get("invented") if is_blind else None
    return None if bound is None else float(bound)
