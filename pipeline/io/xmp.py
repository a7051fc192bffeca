"""XMP packets: what says that a network restored faces of a picture, merged into what the picture said before.

Properties of other programs stay; of the few set here, lists are appended to. Packets come from untrusted files: they
are parsed without entities, without a DTD and without a network, up to MOST_BYTES, and not nested deeply.
"""

from dataclasses import dataclass
from typing import Any

# Packets of more bytes than these are not read.
MOST_BYTES = 4 << 20

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
META = "adobe:ns:meta/"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
MEDIA = "http://ns.adobe.com/xap/1.0/mm/"
EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
REFERENCE = "http://ns.adobe.com/xap/1.0/sType/ResourceRef#"
PREFIXES = {"rdf": RDF, "Iptc4xmpExt": IPTC, "xmpMM": MEDIA, "stEvt": EVENT, "stRef": REFERENCE}
# IPTC's term for a picture of the world parts of which a trained network made.
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = b'\n<?xpacket end="w"?>'


class BadPacket(ValueError):
    """A packet that nothing can be merged into; the sentence says what it is instead of XMP."""


@dataclass(frozen=True)
class Label:
    """What is said of a restored picture."""

    # the AI system, and its version: IPTC's properties of 2025
    system: str
    system_version: str
    # of the history event: the program, and what it did
    agent: str
    parameters: str
    # sha256 of the picture that came, 64 hexadecimal digits
    parent: str
    # ISO 8601; empty for none
    when: str = ""


def merged(packet: bytes | None, label: Label) -> bytes:
    """The packet with the label in it, or a new one that holds the label alone. Same packet and label, same bytes.

    Raises BadPacket.
    """
    from lxml import etree

    root = _parsed(packet) if packet is not None else _empty()
    rdf = root if root.tag == _name(RDF, "RDF") else root.find(_name(RDF, "RDF"))
    if rdf is None:
        raise BadPacket("an rdf:RDF element was wanted in its XMP, there is none")
    subjects = rdf.findall(_name(RDF, "Description"))
    about = next((s.get(_name(RDF, "about")) for s in subjects if s.get(_name(RDF, "about"))), "")
    ours = etree.SubElement(rdf, _name(RDF, "Description"), nsmap=PREFIXES)
    ours.set(_name(RDF, "about"), about)
    before = _take(subjects, _name(IPTC, "DigitalSourceType"))
    _add(ours, IPTC, "DigitalSourceType", COMPOSITE)
    for name, value in (("AISystemUsed", label.system), ("AISystemVersionUsed", label.system_version)):
        said = _take(subjects, _name(IPTC, name))
        _add(ours, IPTC, name, f"{said}; {value}" if said and said != value else value)
    parameters = label.parameters + (f"; digital source type before: {before}" if before else "")
    _add_event(subjects, ours, label, parameters)
    _add_parent(subjects, ours, label)
    return _BEGIN + bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=False)) + _END


def _name(namespace: str, name: str) -> str:
    return f"{{{namespace}}}{name}"


def _empty() -> Any:
    from lxml import etree

    root = etree.Element(_name(META, "xmpmeta"), nsmap={"x": META})
    etree.SubElement(root, _name(RDF, "RDF"), nsmap={"rdf": RDF})
    return root


def _parsed(packet: bytes) -> Any:
    """The root element of a packet. Raises BadPacket."""
    from lxml import etree

    if len(packet) > MOST_BYTES:
        raise BadPacket(f"its XMP has {len(packet)} bytes, at most {MOST_BYTES} are read")
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise BadPacket("its XMP declares a document type or entities, which XMP does not have")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        encoding="UTF-8",
    )  # fmt: skip
    try:
        root = etree.fromstring(packet.strip(b"\0 \t\r\n"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadPacket(f"its XMP is no XML ({' '.join(str(error).split())[:120]})") from error
    if root.tag not in (_name(META, "xmpmeta"), _name(META, "xapmeta"), _name(RDF, "RDF")):
        raise BadPacket(f"an x:xmpmeta element was wanted in its XMP, {str(root.tag)[:60]} is there")
    # what follows it in a document is no part of an element
    root.tail = None
    return root


def _take(subjects: list[Any], name: str) -> str:
    """The text of a simple property, which is removed; empty for none."""
    found = ""
    for subject in subjects:
        found = found or (subject.attrib.pop(name, None) or "")
        for element in subject.findall(name):
            resource = element.get(_name(RDF, "resource"))
            found = found or (resource or "".join(element.itertext())).strip()
            subject.remove(element)
    return found


def _add(parent: Any, namespace: str, name: str, text: str) -> Any:
    from lxml import etree

    element = etree.SubElement(parent, _name(namespace, name))
    element.text = text
    return element


def _add_event(subjects: list[Any], ours: Any, label: Label, parameters: str) -> None:
    """Append the event to the history that there is, or begin one."""
    from lxml import etree

    histories = [h for s in subjects for h in s.findall(_name(MEDIA, "History"))]
    if any(s.get(_name(MEDIA, "History")) is not None for s in subjects):
        raise BadPacket("a list was wanted as xmpMM:History of its XMP, a text is there")
    if histories:
        arrays = [a for a in histories[0] if a.tag in (_name(RDF, "Seq"), _name(RDF, "Bag"))]
        if not arrays:
            raise BadPacket("a list was wanted as xmpMM:History of its XMP, something else is there")
        array = arrays[0]
    else:
        array = etree.SubElement(etree.SubElement(ours, _name(MEDIA, "History")), _name(RDF, "Seq"))
    event = etree.SubElement(array, _name(RDF, "li"), nsmap={"stEvt": EVENT})
    event.set(_name(RDF, "parseType"), "Resource")
    _add(event, EVENT, "action", "edited")
    _add(event, EVENT, "softwareAgent", label.agent)
    _add(event, EVENT, "parameters", f"{parameters}; parent sha256:{label.parent}")
    if label.when:
        _add(event, EVENT, "when", label.when)


def _add_parent(subjects: list[Any], ours: Any, label: Label) -> None:
    """Name the picture that came, where nothing is named yet: by its own identifiers, else by its digest."""
    from lxml import etree

    derived = _name(MEDIA, "DerivedFrom")
    if any(s.find(derived) is not None or s.get(derived) is not None for s in subjects):
        return
    parent = etree.SubElement(ours, derived)
    parent.set(_name(RDF, "parseType"), "Resource")
    for name, field in (("DocumentID", "documentID"), ("InstanceID", "instanceID")):
        known = _text_of(subjects, _name(MEDIA, name))
        if known or name == "InstanceID":
            _add(parent, REFERENCE, field, known or f"sha256:{label.parent}")


def _text_of(subjects: list[Any], name: str) -> str:
    for subject in subjects:
        found = subject.get(name) or (subject.findtext(name) or "").strip()
        if found:
            return str(found)
    return ""
