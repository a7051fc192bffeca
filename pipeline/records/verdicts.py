"""Verdicts of people on restored faces: what a review saves, and what the ledger keeps of them for each unit.

A face is accepted, rejected (its original pixels are delivered) or redone with other settings. Several verdicts on one
face are a history: the last that is no acceptance decides its pixels.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

FORMAT = "difface verdicts 1"
What = Literal["accept", "reject", "redo"]
WHATS: tuple[What, ...] = get_args(What)
# What people read for each.
VERDICT_TEXTS: dict[What, str] = {"accept": "accepted", "reject": "rejected", "redo": "redone"}
# Settings that a redo may name, each with its type and bounds; `method` is "estimator" or "difface".
NUMBERS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "start_step": (int, 1, 1000),
    "calls": (int, 1, 1000),
    "hold": (float, 0, 1000),
    "eta": (float, 0, 1),
    "seed": (int, 0, 2**63 - 1),
    "strength": (float, 0, 1),
}
# Those that change the chain: who names one has looked at the face, so that no gate stands in the way.
OF_THE_CHAIN = ("method", "start_step", "calls", "hold", "eta")
MOST_OF_NAME = 200


class BadVerdicts(ValueError):
    """A file that holds no verdicts; the sentence says where, what was wanted and what came."""


@dataclass(frozen=True)
class Verdict:
    """What a person says of one face."""

    # the picture's name below the input, and the face's number in it, as in the records
    picture: str
    face: int
    verdict: What
    # of a redo
    settings: Mapping[str, Any] = field(default_factory=dict)
    who: str = ""
    # ISO 8601
    at: str = ""
    # unit, image's place in it, and sha256 of the picture that was reviewed; None and "" where they were not given
    unit: str = ""
    place: int | None = None
    sha256: str = ""

    @property
    def line(self) -> str:
        """For people: what, by whom and when."""
        return " ".join(
            [VERDICT_TEXTS[self.verdict], *([f"by {self.who}"] if self.who else []), f"on {self.at}"]
        )

    @property
    def changes_chain(self) -> bool:
        """Whether the face is redone with a chain that the person chose."""
        return self.verdict == "redo" and any(name in self.settings for name in OF_THE_CHAIN)

    def to_values(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"settings": dict(self.settings)}

    @classmethod
    def from_values(cls, values: Any, number: int = 1) -> "Verdict":
        """Raises BadVerdicts. number: its place in the file, for the sentence."""
        if not isinstance(values, dict):
            raise BadVerdicts(f"verdict {number}: an object was wanted, got {values!r}")

        def wrong(what: str, name: str) -> BadVerdicts:
            return BadVerdicts(f"verdict {number}: {name} must be {what}, got {values.get(name)!r}")

        picture, what = values.get("picture"), values.get("verdict")
        if not isinstance(picture, str) or not picture:
            raise wrong("the picture's name", "picture")
        face: Any = values.get("face")
        if not _is_whole(face) or face < 0:
            raise wrong("the face's number, 0 or more", "face")
        if what not in WHATS:
            raise wrong(f"one of {', '.join(WHATS)}", "verdict")
        texts = {name: values.get(name) or "" for name in ("who", "at", "unit", "sha256")}
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > MOST_OF_NAME or not text.isprintable():
                raise wrong(f"a text of at most {MOST_OF_NAME} characters", name)
        try:
            datetime.fromisoformat(texts["at"])
        except ValueError:
            raise wrong("a time as 2026-11-27T17:00:00Z", "at") from None
        place: Any = values.get("place")
        if place is not None and (not _is_whole(place) or place < 0):
            raise wrong("the image's place in its unit", "place")
        settings = values.get("settings") or {}
        if not isinstance(settings, dict) or (settings and what != "redo"):
            raise wrong("an object, and for redo alone", "settings")
        for name, value in settings.items():
            if (bad := _wrong_setting(name, value)) is not None:
                raise BadVerdicts(f"verdict {number}: {bad}")
        return cls(picture, face, what, settings, place=place, **texts)


def read_verdicts(data: bytes) -> list[Verdict]:
    """The verdicts of a file that a review has saved. Raises BadVerdicts."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BadVerdicts(f"JSON was wanted ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BadVerdicts(f'an object with "format": "{FORMAT}" was wanted, as the review page saves it')
    verdicts = found.get("verdicts")
    if not isinstance(verdicts, list):
        raise BadVerdicts(f"a list of verdicts was wanted, got {type(verdicts).__name__}")
    return [Verdict.from_values(values, number) for number, values in enumerate(verdicts, 1)]


def run_of(data: bytes) -> str:
    """The identity of the run that a file of verdicts was given for; empty where it names none."""
    return str(json.loads(data).get("run") or "")


def verdicts_to_json(verdicts: Iterable[Verdict], **values: str) -> bytes:
    """A file of verdicts; values: `run` and `digest` of what they are for."""
    found = {"format": FORMAT, **values, "verdicts": [verdict.to_values() for verdict in verdicts]}
    return json.dumps(found, indent=1).encode()


def merged(before: Sequence[Verdict], given: Sequence[Verdict]) -> list[Verdict]:
    """The history of a unit: each verdict once, by face and by time; of equal times the one that came later counts."""
    every = list({json.dumps(v.to_values(), sort_keys=True): v for v in [*before, *given]}.values())
    return sorted(every, key=lambda v: (v.place or 0, v.face, datetime.fromisoformat(v.at).timestamp()))


def last_by_face(verdicts: Iterable[Verdict]) -> dict[tuple[int, int], Verdict]:
    """The last verdict on each face, by image's place and number."""
    return {(v.place or 0, v.face): v for v in verdicts}


def deciding(verdicts: Iterable[Verdict]) -> dict[tuple[int, int], Verdict]:
    """The verdicts that decide pixels, by image's place and face."""
    return last_by_face(v for v in verdicts if v.verdict != "accept")


def digest_by_place(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """A digest of what decides the pixels of each image, by its place in the unit as a text."""
    values: dict[str, list[dict[str, Any]]] = {}
    for (place, _), verdict in sorted(deciding(verdicts).items()):
        values.setdefault(str(place), []).append(verdict.to_values())
    return {
        place: hashlib.sha256(json.dumps(v, sort_keys=True).encode()).hexdigest()[:16]
        for place, v in values.items()
    }


def digest(verdicts: Iterable[Verdict]) -> str:
    """A digest of a unit's whole history; empty for none."""
    values = [verdict.to_values() for verdict in verdicts]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16] if values else ""


def _wrong_setting(name: str, value: Any) -> str | None:
    if name == "method":
        return (
            None
            if value in ("estimator", "difface")
            else f"method must be estimator or difface, got {value!r}"
        )
    if name not in NUMBERS:
        return f"settings may be method, {', '.join(NUMBERS)}, got {name}"
    kind, least, most = NUMBERS[name]
    is_number = _is_whole(value) or (kind is float and isinstance(value, float))
    if not is_number or not least <= value <= most:
        return f"{name} must be a number from {least:g} to {most:g}, got {value!r}"
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
