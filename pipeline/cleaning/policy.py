"""Thresholds and actions that decide what is kept, repaired or dropped, from the command line and a TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from pipeline.console.options import UsageError, option, options_of
from pipeline.io import store
from pipeline.restoration.config import RestoreConfig

Action = Literal["drop", "keep", "repair"]
ACTIONS: tuple[Action, ...] = get_args(Action)

# Reasons to drop a picture, in order of precedence; --actions can change drop to keep or repair.
REASONS = (
    "unreadable",
    "too_small",
    "odd_aspect",
    "too_dark",
    "too_bright",
    "low_information",
    "no_face",
    "too_many_faces",
    "face_too_small",
    "face_cut_off",
    "too_blurred",
    "exact_duplicate",
    "near_duplicate",
)
# Reasons to repair or keep a picture; every picture has exactly one reason.
GOOD_REASONS = ("blurred", "large", "sharp", "accepted")
REPAIR_FAILED = "repair_failed"
EVERY_REASON = (*REASONS, *GOOD_REASONS, REPAIR_FAILED)
# Reasons that restoration can fix: a face was detected.
REPAIRABLE = frozenset({"too_many_faces", "face_too_small", "face_cut_off", "too_blurred", "blurred"})
# A picture that could not be decoded cannot be kept.
ALWAYS_DROPPED = frozenset({"unreadable"})
# Maximum Hamming distance at which the hash index finds every pair.
FARTHEST = 8
# Groups of RestoreConfig whose options are allowed in [restore], and exceptions.
RESTORE_GROUPS = ("task", "method", "samples", "faces", "gate", "machine")
NOT_HOW = ("weights_dir", "ray_address", "only", "never")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Thresholds, each an option. Shares are in 0..1, lengths in pixels."""

    min_side: int = option(64, help="drop pictures whose shorter side is below this", group="policy")
    max_aspect: float = option(
        3.0, help="drop pictures whose longer side is more than this many times the shorter", group="policy"
    )
    min_light: float = option(
        0.25,
        help="drop pictures whose lightest hundredth of pixels is darker than this share of white",
        group="policy",
    )
    max_dark: float = option(
        0.9,
        help="drop pictures whose darkest twentieth of pixels is lighter than this share of white",
        group="policy",
    )
    min_entropy: float = option(
        3.0, help="drop pictures whose grey values have an entropy below this, bits, 0 to 8", group="policy"
    )
    max_faces: int = option(64, help="drop pictures with more faces than this", group="policy")
    min_face: float = option(
        24.0, help="drop pictures whose largest face is below this, shorter side of its box", group="policy"
    )
    min_margin: float = option(
        0.02,
        help="drop pictures whose prominent faces are all at most this share of their side away from the frame",
        group="policy",
    )
    min_sharpness: float = option(
        6.0,
        help="drop pictures whose largest face is blurred beyond repair: variance of the Laplacian of its crop",
        group="policy",
    )
    min_crispness: float = option(
        0.85,
        help="repair pictures with a face below this crispness: 0.5 is blurred, 1 is as sharp as its pixels allow",
        group="policy",
    )
    max_scale: float = option(
        4.0,
        help="do not repair pictures whose faces are more than this many times larger than the preset's side",
        group="policy",
    )
    near_distance: int = option(
        4,
        help=f"drop pictures whose perceptual hash is within so many of 64 bits of a kept one's, at most {FARTHEST}; "
        "-1 disables it",
        group="policy",
    )
    actions: str = option(
        "",
        help="action for a reason instead of the default: drop, repair, or keep, such as no_face=keep,blurred=drop",
        group="policy",
        metavar="REASON=ACTION,...",
    )

    def __post_init__(self) -> None:
        wanted = {
            "--min-side must not be negative": self.min_side >= 0,
            "--max-aspect must be at least 1": self.max_aspect >= 1,
            "--min-light must lie in [0, 1]": 0 <= self.min_light <= 1,
            "--max-dark must lie in [0, 1]": 0 <= self.max_dark <= 1,
            "--min-entropy must lie in [0, 8]": 0 <= self.min_entropy <= 8,
            "--max-faces must be at least 1": self.max_faces >= 1,
            "--min-face must not be negative": self.min_face >= 0,
            "--min-margin must lie in [0, 1]": 0 <= self.min_margin <= 1,
            "--min-sharpness must not be negative": self.min_sharpness >= 0,
            "--min-crispness must not be negative": self.min_crispness >= 0,
            "--max-scale must be above 0": self.max_scale > 0,
            f"--near-distance must lie in [-1, {FARTHEST}]": -1 <= self.near_distance <= FARTHEST,
        }
        for rule, holds in wanted.items():
            if not holds:
                name = rule.split()[0].removeprefix("--").replace("-", "_")
                raise UsageError(f"{rule}, got {getattr(self, name)}")
        parse_actions(self.actions)

    def action(self, reason: str) -> Action:
        """The action for this reason."""
        return parse_actions(self.actions).get(reason, "repair" if reason == "blurred" else "drop")

    def thresholds(self) -> dict[str, Any]:
        """The policy's settings, without those of subclasses."""
        return {f.name: asdict(self)[f.name] for f in fields(Policy)}


def parse_actions(text: str) -> dict[str, Action]:
    """`no_face=keep,blurred=drop` → action by reason. Raises UsageError."""
    actions: dict[str, Action] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        reason, equals, action = (p.strip() for p in part.partition("="))
        if reason not in (*REASONS, "blurred"):
            raise UsageError(
                f"--actions: {part!r} has no known reason; the reasons are {', '.join((*REASONS, 'blurred'))}"
            )
        if action not in ACTIONS:
            raise UsageError(f"--actions: expected {reason}=drop, =keep or =repair, got {equals + action!r}")
        if action == "repair" and reason not in REPAIRABLE:
            able = ", ".join(sorted(REPAIRABLE))
            raise UsageError(f"--actions: {reason} cannot be repaired, only {able} can; drop or keep it")
        if action == "keep" and reason in ALWAYS_DROPPED:
            raise UsageError(f"--actions: {reason} cannot be kept; leave it to be dropped")
        actions[reason] = action
    return actions


def read_policy(uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A policy file's thresholds (with `actions` as the option takes them), and the options of its [restore] table.

    Raises UsageError for an invalid policy, naming the key; StoreError when it cannot be read.
    """
    try:
        values = tomllib.loads(store.read_bytes(uri).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{uri} is not valid TOML: {error}; correct it") from error
    restore = _table(uri, values, "restore")
    check_restore(uri, restore)
    actions = _table(uri, values, "actions")
    known = {f.name: type(f.default) for f in fields(Policy) if f.name != "actions"}
    check_keys(uri, "", values, known)
    for name, value in values.items():
        taken = (int, float) if known[name] is float else (int,)
        if not isinstance(value, taken) or isinstance(value, bool):
            raise UsageError(f"{uri}: {name} must be a number, got {value!r}")
    joined = ",".join(f"{reason}={action}" for reason, action in actions.items())
    parse_actions(joined)
    return values | ({"actions": joined} if actions else {}), restore


def _table(uri: str, values: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of the file, removed from its values."""
    table = values.pop(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{uri}: {name} must be a table, [{name}] with lines below it; got {table!r}")
    return table


def check_restore(uri: str, values: Mapping[str, Any]) -> None:
    """Raise UsageError for values that are invalid for the options of jobs.restore."""
    how = (one for one in options_of(RestoreConfig) if one.path[0] in RESTORE_GROUPS)
    known = {one.flag: one.hint for one in how if one.flag not in NOT_HOW}
    check_keys(uri, "[restore] ", values, known)
    for name, value in values.items():
        union = get_origin(known[name]) is UnionType
        hint = next(a for a in get_args(known[name]) if a is not NoneType) if union else known[name]
        choices = get_args(hint)
        taken = (int, float) if hint is float else (hint,)
        if value not in choices if choices else (type(value) not in taken):
            wanted = f"one of {', '.join(choices)}" if choices else f"of type {hint.__name__}"
            raise UsageError(f"{uri}: [restore] {name} must be {wanted}, got {value!r}")


def check_keys(uri: str, where: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise UsageError for the first unknown key."""
    for name in values:
        if name not in known:
            raise UsageError(f"{uri}: {where}{name} is unknown; the settings are {', '.join(sorted(known))}")
