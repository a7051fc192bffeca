"""The review page: every face that a run changed or left, for a person to accept, reject or have restored again.

One HTML document with its style, its script and its data inside. Pictures are files beside it, `data:` or signed
addresses; nothing else is loaded, and the policy in the page holds the browser to that. templates/review*.js say what
the page does.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal
from urllib.parse import urlsplit

from pipeline.reporting import palette
from pipeline.reporting.page import template

# significant digits of a number in the page
DIGITS = 6
SCRIPTS = ("review_state.js", "review_card.js", "review_view.js", "review.js")

Verdict = Literal["accept", "reject", "redo"]


@dataclass(frozen=True)
class Tried:
    """A treatment that was tried with a face, and what was measured of its result (None: not measured)."""

    # asked, held, lower_n, estimator
    rung: str
    # the name of its panel in `Face.panels`, where it has one
    label: str
    # degrees
    identity: float | None = None
    # share of the distance between the eyes
    landmarks: float | None = None
    # levels of 0..255
    colour: float | None = None
    gain: float | None = None
    # the gate that it did not pass and that gate's bound
    failed: str | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Applied:
    """A verdict that the program has carried out."""

    verdict: Verdict
    who: str
    # ISO 8601, UTC, to the second
    at: str
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Choice:
    """Settings that a face can be restored again with."""

    label: str
    # keys: method, start_step, calls, hold, eta, seed, strength
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Face:
    """One face of the run, and where its pictures are."""

    unit: str
    # of the picture in the unit
    place: int
    # name of the picture
    picture: str
    # of the face in the picture
    face: int
    # of the picture as it came, hexadecimal
    sha256: str
    # two panels side by side, as it came and as delivered; relative, data: or https
    src: str
    # width and height of one of these panels, pixels
    tile: tuple[int, int]
    outcome: Literal["restored", "left"]
    # of the treatment that was delivered; empty for a face that was left
    rung: str
    # a sentence each; `why` for a face that was left
    treatment: str = ""
    why: str = ""
    # square panels side by side, `side` pixels each, by name from the left; "spread" is grey, brighter for more
    more: str | None = None
    panels: Sequence[str] = ()
    side: int = 0
    # (a, b, c, d, e, f) of the affine map from pixels of the panel "spread" to pixels of the tile, as CSS has it
    heat: tuple[float, float, float, float, float, float] | None = None
    # of the face in the picture, pixels
    size: float | None = None
    # levels of 0..255
    delta: float | None = None
    # degrees between the embeddings, and how many were allowed
    identity: float | None = None
    allowed: float | None = None
    gain: float | None = None
    # between samples: levels of 0..255, and degrees
    spread: float | None = None
    spread_identity: float | None = None
    # the detail differs from sample to sample: it is invented
    invented: bool = False
    # whether it can be restored again
    redoable: bool = True
    tried: Sequence[Tried] = ()
    applied: Applied | None = None


@dataclass(frozen=True)
class ReviewData:
    """All that the page shows."""

    title: str
    # what a file of verdicts names itself
    format: str
    # identity of the run, under which a browser keeps verdicts
    run: str
    # of what the page shows; goes into the verdicts
    digest: str
    # the command that carries verdicts out
    command: str
    choices: Sequence[Choice]
    faces: Sequence[Face]


def review_document(data: ReviewData) -> str:
    """The whole page, in ASCII except for its own texts."""
    style, script = _style(), _script()
    policy = "; ".join(
        [
            "default-src 'none'",
            f"img-src {' '.join(_sources(data.faces))}",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            # to its own server
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    page = template("review.html").render(
        title=data.title, policy=policy, style=style, script=script, data=_embedded(data)
    )
    return page.encode(errors="backslashreplace").decode()


def _embedded(data: ReviewData) -> str:
    """The data as JSON that ends no script element; faces and what was tried are rows under their columns' names."""
    face_columns, tried_columns = ([f.name for f in fields(kind)] for kind in (Face, Tried))
    values = {
        "format": data.format,
        "title": data.title,
        "run": data.run,
        "digest": data.digest,
        "command": data.command,
        "choices": [{"label": choice.label, "settings": dict(choice.settings)} for choice in data.choices],
        "columns": face_columns,
        "tried": tried_columns,
        "faces": [_row(face, face_columns) for face in data.faces],
    }
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _row(value: Face | Tried, columns: Iterable[str]) -> list[Any]:
    return [_plain(getattr(value, name)) for name in columns]


def _plain(value: Any) -> Any:
    """As JSON has it: numbers rounded, null for those that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Tried):
        return _row(value, [f.name for f in fields(Tried)])
    if isinstance(value, Applied):
        settings = None if value.settings is None else dict(value.settings)
        return {"verdict": value.verdict, "who": value.who, "at": value.at, "settings": settings}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _sources(faces: Iterable[Face]) -> list[str]:
    """Where the page's pictures may come from: its own folder, and what the addresses name besides."""
    found = set()
    for face in faces:
        for address in (face.src, face.more):
            if address and ":" in address:
                parts = urlsplit(address)
                found.add("data:" if parts.scheme == "data" else f"{parts.scheme}://{parts.netloc}")
    # data: also for the page's own empty icon
    return ["'self'", *sorted({"data:", *found})]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _style() -> str:
    names = ("PAGE", "PAPER", "INK", "FAINT", "RULE", "GRID", "EMPTY", "TEAL", "OCHRE", "GREEN", "RED")
    colours = "; ".join(f"--{name.lower()}: {getattr(palette, name)}" for name in names)
    return f"\n:root {{ {colours}; }}\n{_file('review.css')}"


@cache
def _script() -> str:
    return "\n" + "".join(map(_file, SCRIPTS))


def _file(name: str) -> str:
    return resources.files("pipeline.reporting").joinpath("templates", name).read_text()
