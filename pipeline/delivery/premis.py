"""PREMIS 3.0 of a unit: delivered files, the pictures they derive from, what was done, by which program and by whom.

https://www.loc.gov/standards/premis/v3/. Identifiers and times come from records and markers, so that the same delivery
gives the same document.
"""

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pipeline.delivery.bag import File
from pipeline.delivery.media_types import media_type
from pipeline.records.rows import DECISION_TEXTS, RUNG_TEXTS
from pipeline.records.verdicts import VERDICT_TEXTS

SPACE = "http://www.loc.gov/premis/v3"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "https://www.loc.gov/standards/premis/v3/premis-v3-0.xsd"
# Characters that XML 1.0 can not hold.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Identifiers of events are made in this space of names (RFC 4122, version 5).
_EVENTS = uuid.UUID("6f0d5f5b-7a6e-5c0e-9d0e-0a8f6a5a2f11")


class Identifier(NamedTuple):
    """What names an object, event or agent: its type and value."""

    type: str
    value: str


@dataclass(frozen=True)
class Program:
    """What restored the pictures."""

    version: str
    # digest of its settings
    fingerprint: str
    preset: str
    # sha256 of the networks' weights by role
    weights: Mapping[str, str]

    @property
    def agents(self) -> list[Identifier]:
        networks = [Identifier("sha256", digest) for _, digest in sorted(self.weights.items())]
        return [Identifier("local", "difface-pipeline"), *networks]


@dataclass(frozen=True)
class Delivered:
    """A picture of a unit as PREMIS sees it."""

    # of the image's row, then those of its faces
    rows: Sequence[Mapping[str, Any]]
    # the file that it is, or the shard that it lies in; None where it was not delivered
    file: File | None
    # whether it lies in a shard
    inside: bool
    # whether its bytes are not those of the source
    changed: bool
    # ISO 8601: when its unit was done, and when it was signed; empty where it was not
    done_at: str
    signed_at: str = ""

    @property
    def name(self) -> str:
        return str(self.rows[0]["member"])

    @property
    def delivered(self) -> str:
        """Its name as it was delivered."""
        return str(self.rows[0].get("delivered") or self.name)

    @property
    def source(self) -> Identifier:
        return Identifier("sha256", self.rows[0]["sha256"])

    @property
    def itself(self) -> Identifier:
        """Its identifier: the path in the bag, and the name in the shard."""
        assert self.file is not None
        return Identifier("path", f"{self.file.path}#{self.delivered}" if self.inside else self.file.path)


@dataclass
class _Document:
    """Parts that come in this order in the end."""

    objects: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    agents: dict[Identifier, Any] = field(default_factory=dict)


def premis_of(unit: str, pictures: Sequence[Delivered], others: Iterable[File], program: Program) -> bytes:
    """The document of a unit. others: its files that are no pictures of their own: shards, records, sidecars."""
    from lxml import etree

    parts = _Document()
    for file in others:
        parts.objects.append(_file(Identifier("path", file.path), file.sha256, file.size, file.path))
    sources: set[Identifier] = set()
    for picture in pictures:
        if picture.file is not None:
            _add_picture(parts, unit, picture, program, sources)
    root = etree.Element(_name("premis"), nsmap={"premis": SPACE, "xsi": XSI}, version="3.0")
    root.set(f"{{{XSI}}}schemaLocation", f"{SPACE} {SCHEMA}")
    root.extend([*parts.objects, *parts.events, *parts.agents.values()])
    return bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True))


def _add_picture(
    parts: _Document, unit: str, picture: Delivered, program: Program, sources: set[Identifier]
) -> None:
    """A picture's object, its source's, and its events with their agents."""
    events = list(_events(unit, picture, program))
    ids = [identifier for identifier, _ in events]
    parts.events += [event for _, event in events]
    if picture.changed:
        for agent in program.agents:
            parts.agents.setdefault(agent, _program_agent(agent, program))
        if picture.source not in sources:
            sources.add(picture.source)
            parts.objects.append(
                _file(picture.source, picture.source.value, None, picture.name, picture.name)
            )
    for row in picture.rows[1:]:
        if row.get("verdict"):
            person = _person(row)
            parts.agents.setdefault(person, _agent(person, row["verdict_by"] or "unnamed", "person"))
    if picture.inside and not events:
        return  # the shard's object stands for it
    parts.objects.append(_object(picture, ids))


def _events(unit: str, picture: Delivered, program: Program) -> Iterable[tuple[Identifier, Any]]:
    """Identifier and element of each event: the derivation, the verdicts of people, the signature."""
    image, *faces = picture.rows
    came = (picture.source, "source")
    became = (picture.itself, "outcome")
    if picture.changed:
        label = f"label: {image['label']}" if image.get("label") else "no label"
        notes = [label, *([f"recoded: {image['recoded']}"] if image.get("recoded") else [])]
        agents = [(agent, "executing program") for agent in program.agents]
        yield _event(
            unit, picture.name, "derivation", picture.done_at, described(faces, program.preset), "success",
            notes, agents, [came, became],
        )  # fmt: skip
    for face in faces:
        if face.get("verdict"):
            what = VERDICT_TEXTS[face["verdict"]]
            settings = f", with {face['verdict_settings']}" if face.get("verdict_settings") else ""
            detail = f"face {face['face']}, by a person{settings}"
            yield _event(
                unit, picture.name, "quality review", _utc(face["verdict_at"]), detail, what, [],
                [(_person(face), "reviewer")], [became],
            )  # fmt: skip
    if picture.signed_at:
        yield _event(
            unit, picture.name, "digital signature generation", picture.signed_at, "C2PA", "success", [],
            [(program.agents[0], "executing program")], [became],
        )  # fmt: skip


def changed_faces(faces: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of faces whose restoration was delivered."""
    return [face for face in faces if not face["kept"] and not face["error"]]


def described(faces: Iterable[Mapping[str, Any]], preset: str) -> str:
    """What was done to a picture, for people."""
    changed = changed_faces(faces)
    each = [
        f"face {face['face']} {DECISION_TEXTS.get(face['treatment'], 'restored')}"
        + (f" ({RUNG_TEXTS[face['rung']]})" if face.get("rung") else "")
        for face in changed
    ]
    return f"restored with preset {preset}: {'; '.join(each) if each else 'no face'}"


def _person(row: Mapping[str, Any]) -> Identifier:
    return Identifier("name", row["verdict_by"] or "unnamed")


def _utc(text: str) -> str:
    """A time with its zone, UTC where it names none."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


# Elements


def _name(name: str) -> str:
    return f"{{{SPACE}}}{name}"


def _element(name: str, *children: Any) -> Any:
    """An element that holds these elements, or one text."""
    from lxml import etree

    element = etree.Element(_name(name), nsmap={"premis": SPACE})
    for child in children:
        if isinstance(child, str):
            element.text = _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", child)
        elif child is not None:
            element.append(child)
    return element


def _identifier(kind: str, identifier: Identifier, *more: Any) -> Any:
    """An identifier's element: `kind`, `kindType` and `kindValue`."""
    parts = _element(f"{kind}Type", identifier.type), _element(f"{kind}Value", identifier.value)
    return _element(kind, *parts, *more)


def _typed(name: str, kind: str, *children: Any) -> Any:
    element = _element(name, *children)
    element.set(f"{{{XSI}}}type", f"premis:{kind}")
    return element


def _characteristics(path: str, sha256: str | None, size: int | None) -> Any:
    fixity = None
    if sha256:
        digest = _element("messageDigestAlgorithm", "SHA-256"), _element("messageDigest", sha256)
        fixity = _element("fixity", *digest)
    designation = _element("formatDesignation", _element("formatName", media_type(path)))
    counted = None if size is None else _element("size", str(size))
    return _element("objectCharacteristics", fixity, counted, _element("format", designation))


def _file(identifier: Identifier, sha256: str, size: int | None, path: str, original: str = "") -> Any:
    called = _element("originalName", original) if original else None
    return _typed(
        "object",
        "file",
        _identifier("objectIdentifier", identifier),
        _characteristics(path, sha256, size),
        called,
    )


def _object(picture: Delivered, events: Sequence[Identifier]) -> Any:
    """A delivered picture: a file, or a bitstream of its shard."""
    file = picture.file
    assert file is not None
    links = [_identifier("linkingEventIdentifier", event) for event in events]
    derived = None
    if picture.changed:
        derived = _relationship("derivation", "has source", picture.source, events[:1])
    own = _identifier("objectIdentifier", picture.itself)
    if picture.inside:
        part = _relationship("structural", "is included in", Identifier("path", file.path), [])
        return _typed(
            "object", "bitstream", own, _characteristics(picture.delivered, None, None), part, derived, *links
        )
    called = _element("originalName", picture.name)
    held = _characteristics(file.path, file.sha256, file.size)
    return _typed("object", "file", own, held, called, derived, *links)


def _relationship(kind: str, what: str, to: Identifier, events: Sequence[Identifier]) -> Any:
    return _element(
        "relationship",
        _element("relationshipType", kind),
        _element("relationshipSubType", what),
        _identifier("relatedObjectIdentifier", to),
        *(_identifier("relatedEventIdentifier", event) for event in events),
    )


def _event(
    unit: str,
    member: str,
    kind: str,
    at: str,
    detail: str,
    outcome: str,
    notes: Sequence[str],
    agents: Sequence[tuple[Identifier, str]],
    objects: Sequence[tuple[Identifier, str]],
) -> tuple[Identifier, Any]:
    name = "\0".join([unit, member, kind, at, detail]).encode("utf-8", "backslashreplace").decode()
    identifier = Identifier("UUID", str(uuid.uuid5(_EVENTS, name)))
    details = [_element("eventOutcomeDetail", _element("eventOutcomeDetailNote", note)) for note in notes]
    return identifier, _element(
        "event",
        _identifier("eventIdentifier", identifier),
        _element("eventType", kind),
        _element("eventDateTime", at),
        _element("eventDetailInformation", _element("eventDetail", detail)),
        _element("eventOutcomeInformation", _element("eventOutcome", outcome), *details),
        *(_identifier("linkingAgentIdentifier", a, _element("linkingAgentRole", role)) for a, role in agents),
        *(
            _identifier("linkingObjectIdentifier", o, _element("linkingObjectRole", role))
            for o, role in objects
        ),
    )


def _program_agent(agent: Identifier, program: Program) -> Any:
    if agent.type == "local":
        note = f"settings with the fingerprint {program.fingerprint}; {', '.join(_weights(program))}"
        return _agent(agent, "difface-pipeline", "software", program.version, note)
    roles = " and ".join(role for role, digest in sorted(program.weights.items()) if digest == agent.value)
    return _agent(
        agent, f"{roles} of preset {program.preset}", "software", "", f"weights sha256 {agent.value}"
    )


def _weights(program: Program) -> list[str]:
    return [f"{role} sha256 {digest}" for role, digest in sorted(program.weights.items())]


def _agent(identifier: Identifier, name: str, kind: str, version: str = "", note: str = "") -> Any:
    return _element(
        "agent",
        _identifier("agentIdentifier", identifier),
        _element("agentName", name),
        _element("agentType", kind),
        _element("agentVersion", version) if version else None,
        _element("agentNote", note) if note else None,
    )
