"""What travels between the stages: the columns of a row, and the values inside them.

A row is one unit of work: a slice of a shard. Its columns, who adds them and who drops them:

| column     | type  | what                                                           | added by | dropped by |
|------------|-------|----------------------------------------------------------------|----------|------------|
| unit       | str   | the unit's name, NAME-PPPP                                     | ledger   | -          |
| shard      | str   | its shard                                                      | ledger   | load       |
| part       | int   | its place in the shard                                         | ledger   | load       |
| attempts   | int   | how often it was deliberately begun, this time included        | ledger   | load       |
| work       | str   | `Unit` as JSON: the address of every image                     | load     | publish    |
| verdicts   | str   | `UnitVerdicts` as JSON; missing for a unit without any         | load     | publish    |
| images     | str   | list of `ImageRecord` as JSON, one per image of the unit       | read     | publish    |
| faces      | str   | list of `FaceRecord` as JSON, one per face of the unit         | read     | publish    |
| crops      | bytes | [S, S, 3] uint8 RGB, a crop per face that has one, of its S    | read     | publish    |
| holes      | bytes | the same shapes, above 0 in the crops' holes; empty for none   | read     | publish    |
| estimated  | bytes | the same shapes, what the estimator makes of them              | restore  | publish    |
| restored   | bytes | the same shapes, the chain's result                            | restore  | publish    |
| rungs      | bytes | the same, every result of faces with several, in their order   | restore  | publish    |
| spreads    | bytes | [S, S] uint8 each, of faces/spread.py; empty without --samples | restore  | publish    |
| environment| str   | what the bits depend on beside the settings, as JSON           | restore  | publish    |
| features   | bytes | [F, 2048] float16 of `restored`, nan for none; with --metrics features | measure | publish |
| features_truth | bytes | the same of the true faces                                 | measure  | publish    |
| features_before | bytes | the same of the faces as they came, without --truth       | measure  | publish    |
| sums       | str   | additive measurements as JSON                                  | read     | -          |
| marker     | str   | the unit's marker as JSON                                      | publish  | -          |
| undelivered| str   | why the unit is not done, and left to the next start           | any      | -          |

What enters the flow is as small for a unit of many images as for one of few: the driver's memory must not grow with
the images. Arrays travel as bytes because a unit may hold no face at all.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.records.verdicts import Verdict, What

Outcome = Literal["restored", "no_face", "skipped", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("restored", "no_face", "skipped", "failed")
# Reason of a skipped picture all of whose faces are left as they are.
KEPT = "nothing to gain"

# What is decided of a face: it is left as it was, the estimator's picture is taken, or the chain's.
Decision = Literal["left", "estimator", "chain"]
DECISIONS: tuple[Decision, ...] = ("left", "estimator", "chain")

# What people read for each.
DECISION_TEXTS: dict[Decision, str] = {
    "left": "left as it was",
    "estimator": "by the estimator",
    "chain": "by diffusion",
}

# Which of the treatments that were tried passed the gates (diffusion/treatment.py), and what people read.
Rung = Literal["asked", "held", "lower_n", "estimator"]
RUNG_TEXTS: dict[Rung, str] = {
    "asked": "as asked",
    "held": "held more",
    "lower_n": "from a smaller N",
    "estimator": "by the estimator instead",
}

# Why a face is left as it was, and what people read: before a crop of it is looked at, because the estimator finds
# nothing to change, for the gate that no treatment passed, or because a person says so.
LeftFor = Literal[
    "small", "surplus", "unfit", "named", "sharp", "identity", "landmarks", "colour", "non_finite", "rejected"
]
LEFT_TEXTS: dict[LeftFor, str] = {
    "small": "smaller than --min-face",
    "surplus": "beyond --max-faces",
    "unfit": "landmarks fit no face",
    "named": "not to be touched, by --never or --only",
    "sharp": "as good already as the preset can make it",
    "identity": "it would not look like the person any more",
    "landmarks": "features would move",
    "colour": "colours would change",
    "non_finite": "its chain left the finite numbers",
    "rejected": "rejected in review",
}
# Reasons of a skipped picture that is a good one: nothing of it is restored.
NOT_RESTORED = frozenset({KEPT, *LEFT_TEXTS.values()})

# Columns of vectors, and their length: what Inception makes of the restored face, the true one, and the one that came.
FEATURE_COLUMNS, FEATURES_LENGTH = ("features", "features_truth", "features_before"), 2048


Row = dict[str, Any]


@dataclass
class ImageRecord:
    """What became of one image. `outcome` stays None until it is settled."""

    member: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    outcome: Outcome | None = None
    # short slug of a skip or failure
    reason: str = ""
    # stage that failed: read, align, restore, background, paste
    stage: str = ""
    error: str = ""
    # where in the program a failure came from; empty where no exception was caught
    traceback: str = ""
    # why the delivered picture's other pixels could not stay as they were stored, either, or which smaller version in
    # its file shows it as it was; None where neither is so
    recoded: str | None = None
    # where the label of a restored picture is: "xmp", or "sidecar: " or "none: " with the reason; None without one
    label: str | None = None
    # the name under which it is delivered as another kind (--convert); None where that is its own
    delivered: str | None = None
    # it stays as the unit delivered it before
    carried: bool = False

    @property
    def without_restoration(self) -> bool:
        """Whether it is a good picture of which no face is restored."""
        return self.outcome == "no_face" or (self.outcome == "skipped" and self.reason in NOT_RESTORED)

    def settle(
        self, outcome: Outcome, reason: str = "", stage: str = "", error: str = "", traceback: str = ""
    ) -> None:
        """Record the outcome."""
        self.outcome, self.reason, self.stage, self.error = outcome, reason, stage, error
        self.traceback, self.recoded, self.label, self.delivered = traceback, None, None, None


@dataclass
class FaceRecord:
    """One face of an image: where it lies, how it was cut, what restoring it gave."""

    # position of the image in the unit, and of the face in the image
    image: int
    face: int
    box: list[float]
    landmarks: list[float]
    # the 2x3 similarity from picture to crop, row by row
    affine: list[float]
    score: float
    # picture pixels per crop pixel
    scale: float
    # of its crop, pixels; 0: the preset's
    side: int = 0
    # how much of the crop's resolution the face uses (metrics.sharpness)
    crispness: float = 0.0
    # share of the restoration that is pasted
    strength: float = 1.0
    # why the face is left as it is; empty for a face that is restored
    kept: str = ""
    # what kind of reason that is; empty for a task that has nothing to do with the face
    left_for: LeftFor | Literal[""] = ""
    # whether it has a crop: it was not left before anything looked at it
    has_crop: bool = True
    # how it is treated; empty until that is chosen
    treatment: Decision | Literal[""] = ""
    # mean |f(y) - y| over the face, 0..255: how far the estimator changes it; None where it was not called
    estimated_change: float | None = None
    # predicted mean |f(y) - x| to the unknown true face x, 0..255; None where the preset predicts none
    predicted_error: float | None = None
    # the treatment that passed the gates; empty for a face that is left as it was
    rung: Rung | Literal[""] = ""
    # every treatment that was tried, with its measurements and the gate that it did not pass
    tried: list[dict[str, Any]] = field(default_factory=list)
    # step N at which its chain was entered, the network calls it took, and the width (pixels of the crop) of the
    # Gaussian whose low frequencies were held; None where there was no chain
    start_step: int | None = None
    calls: int | None = None
    hold: float | None = None
    # randomness of its chain, where its treatment has one of its own; seed of its noise, where a person chose it
    eta: float | None = None
    seed: int | None = None
    # chains of which one is delivered; None without a chain
    samples: int | None = None
    # of several (faces/spread.py): their mean deviation over the face, levels; the largest angle between the delivered
    # one and another, degrees; whether that marks the face as invented. None where it is not known
    spread: float | None = None
    spread_identity: float | None = None
    invented: bool | None = None
    # variance of the Laplacian of crop and restoration; 0 for a face without a crop
    sharpness_before: float = 0.0
    sharpness_after: float = 0.0
    # mean absolute difference of restored and estimated, 0..255
    distance: float = 0.0
    # what --metrics asked for, by column; what could not be measured is not there
    measured: dict[str, float] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""
    # the last verdict on it (records/verdicts.py), by whom and when, and the settings it is redone with
    verdict: What | Literal[""] = ""
    verdict_by: str = ""
    verdict_at: str = ""
    # None where it is not redone
    verdict_settings: dict[str, Any] | None = None

    def note(self, last: Verdict, decided: Verdict | None) -> None:
        """Record the last verdict on it, and the settings of the redo that decides its pixels, if one does."""
        self.verdict, self.verdict_by, self.verdict_at = last.verdict, last.who, last.at
        redone = decided is not None and decided.verdict == "redo"
        self.verdict_settings = dict(decided.settings) if decided is not None and redone else None


def dump_records(records: Sequence[ImageRecord] | Sequence[FaceRecord]) -> str:
    """Records as JSON."""
    return json.dumps([dataclasses.asdict(r) for r in records])


def load_images(row: Row) -> list[ImageRecord]:
    """The row's image records."""
    return [ImageRecord(**r) for r in json.loads(row["images"])]


def load_faces(row: Row) -> list[FaceRecord]:
    """The row's face records."""
    return [FaceRecord(**r) for r in json.loads(row["faces"])]


def load_features(row: Row) -> dict[str, NDArray[np.float16]]:
    """The row's feature columns, [F, FEATURES_LENGTH] each; none without --metrics features."""
    return {
        name: np.frombuffer(row[name], dtype=np.float16).reshape(-1, FEATURES_LENGTH)
        for name in FEATURE_COLUMNS
        if row.get(name) is not None
    }


def with_crops(faces: Sequence[FaceRecord]) -> list[FaceRecord]:
    """The faces that have a crop, in the crops' order."""
    return [f for f in faces if f.has_crop]


def crop_sides(faces: Sequence[FaceRecord], side: int) -> list[int]:
    """The sides of the faces' crops, in the crops' order. side: the preset's."""
    return [f.side or side for f in with_crops(faces)]


def pack(arrays: Sequence[NDArray[np.uint8]]) -> bytes:
    """Crops → bytes."""
    return b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)


def unpack(data: bytes, sides: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Bytes → for each side S a [S, S, 3] uint8 array, read-only."""
    return _unpack(data, [(side, side, 3) for side in sides])


def unpack_maps(data: bytes, sides: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Bytes → for each side S a [S, S] uint8 array, read-only."""
    return _unpack(data, [(side, side) for side in sides])


def _unpack(data: bytes, shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.uint8]]:
    ends = np.cumsum([math.prod(shape) for shape in shapes], dtype=int)
    *parts, rest = np.split(np.frombuffer(data, dtype=np.uint8), ends)
    if len(rest):
        raise ValueError(f"{len(data)} bytes of crops were packed, {len(rest)} more than the faces have")
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


@dataclass(frozen=True)
class Counts:
    """Images by outcome, and faces; values that add."""

    images: int = 0
    faces: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))

    def __add__(self, other: "Counts") -> "Counts":
        merged: dict[str, int] = {name: self.outcomes[name] + other.outcomes[name] for name in OUTCOMES}
        return Counts(self.images + other.images, self.faces + other.faces, merged)

    @property
    def accounted(self) -> bool:
        """Every image has exactly one outcome."""
        return self.images == sum(self.outcomes.values())
