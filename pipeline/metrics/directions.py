"""What the numbers of a face record say: which way is better, and when those of two runs may be held together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["up", "down", "neither"]


@dataclass(frozen=True)
class Meaning:
    """One column of numbers in the records."""

    better: Better = "neither"
    # measured at the crop's side: runs of different sides can not be compared by it
    at_side: bool = False
    # of the picture as it came: two runs differ in it only where they found or cut the face differently
    of_input: bool = False


# Sharper is not better by itself: noise is sharp. Closer to the estimate, or a larger N, is a choice and no merit.
MEANINGS: Mapping[str, Meaning] = {
    "psnr": Meaning("up", at_side=True),
    "ssim": Meaning("up", at_side=True),
    "lpips": Meaning("down", at_side=True),
    "ids": Meaning("down"),
    "lmd": Meaning("down", at_side=True),
    "identity_kept": Meaning("down"),
    "landmark_shift": Meaning("down", at_side=True),
    "quality_after": Meaning("down", at_side=True),
    "sharpness_after": Meaning(at_side=True),
    "distance": Meaning(at_side=True),
    "start_step": Meaning(),
    "strength": Meaning(),
    "quality_before": Meaning("down", at_side=True, of_input=True),
    "sharpness_before": Meaning(at_side=True, of_input=True),
    "crispness": Meaning(at_side=True, of_input=True),
    "score": Meaning(of_input=True),
    "scale": Meaning(at_side=True, of_input=True),
}


def meaning(name: str) -> Meaning:
    """Of a column; one that is not known here is neither better nor worse."""
    return MEANINGS.get(name, Meaning())
