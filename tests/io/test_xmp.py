"""A label goes into a packet beside what is there, and a packet that is none is refused without harm."""

import tracemalloc

import pytest
from lxml import etree

from pipeline.io.xmp import (
    COMPOSITE,
    EVENT,
    IPTC,
    MEDIA,
    MOST_BYTES,
    RDF,
    REFERENCE,
    BadPacket,
    Label,
    merged,
)

LABEL = Label(
    "DifFace, preset portrait", "prior ab", "difface-pipeline, method 3", "preset portrait", "c" * 64
)
NAMES = {"rdf": RDF, "Iptc4xmpExt": IPTC, "xmpMM": MEDIA, "stEvt": EVENT, "stRef": REFERENCE}
FOREIGN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Some Program 1.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="uuid:one" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   xmlns:own="http://archive.example/own/" own:shelf="B 12" xmp:Rating="4">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Großmutter &amp; Kind</rdf:li></rdf:Alt></dc:title>
   <own:box rdf:parseType="Resource"><own:row>7</own:row></own:box>
   <!-- of the archive -->
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
                                    
<?xpacket end="w"?>""".encode()


def root(packet: bytes) -> etree._Element:
    return etree.fromstring(packet)


def packet(inside: str, attributes: str = "") -> bytes:
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMES.items())
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {spaces}><rdf:Description rdf:about="" {attributes}>'
        f"{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def events(found: bytes) -> list[dict[str, str]]:
    items = root(found).findall(".//xmpMM:History/*/rdf:li", NAMES)
    return [{etree.QName(child).localname: child.text or "" for child in item} for item in items]


def texts(found: bytes, name: str) -> list[str]:
    return [e.text or "" for e in root(found).findall(f".//{name}", NAMES)]


def test_a_new_packet_says_what_was_done_by_what_and_to_which_picture():
    made = merged(None, LABEL)
    assert texts(made, "Iptc4xmpExt:DigitalSourceType") == [COMPOSITE]
    assert texts(made, "Iptc4xmpExt:AISystemUsed") == [LABEL.system]
    assert texts(made, "Iptc4xmpExt:AISystemVersionUsed") == ["prior ab"]
    said = {"action": "edited", "softwareAgent": LABEL.agent}
    assert events(made) == [said | {"parameters": f"preset portrait; parent sha256:{'c' * 64}"}]
    assert texts(made, "stRef:instanceID") == [f"sha256:{'c' * 64}"]
    assert merged(None, LABEL) == made


def test_everything_that_other_programs_have_said_stays():
    before, after = root(FOREIGN), root(merged(FOREIGN, LABEL))
    [theirs] = before.findall(".//rdf:Description", NAMES)
    first, ours = after.findall("rdf:RDF/rdf:Description", NAMES)
    assert etree.tostring(first, method="c14n").strip() == etree.tostring(theirs, method="c14n").strip()
    assert after.attrib == before.attrib
    assert ours.get(f"{{{RDF}}}about") == "uuid:one"


def test_an_event_follows_those_that_are_there():
    earlier = '<xmpMM:History><rdf:Seq><rdf:li stEvt:action="saved" stEvt:when="2020-01-01"/></rdf:Seq></xmpMM:History>'
    once = merged(packet(earlier), LABEL)
    twice = merged(once, LABEL)
    [history] = root(twice).findall(".//xmpMM:History/rdf:Seq", NAMES)
    assert [len(item) for item in history] == [0, 3, 3]
    assert history[0].get(f"{{{EVENT}}}action") == "saved"


@pytest.mark.parametrize("form", ["attribute", "element", "resource"])
def test_an_earlier_source_type_gives_way_and_is_named_in_the_event(form):
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    before = {
        "attribute": packet("", f'Iptc4xmpExt:DigitalSourceType="{camera}"'),
        "element": packet(f"<Iptc4xmpExt:DigitalSourceType>{camera}</Iptc4xmpExt:DigitalSourceType>"),
        "resource": packet(f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{camera}"/>'),
    }[form]
    made = merged(before, LABEL)
    assert made.count(b"DigitalSourceType>") == 2 and made.count(b"DigitalSourceType=") == 0
    assert texts(made, "Iptc4xmpExt:DigitalSourceType") == [COMPOSITE]
    assert f"digital source type before: {camera}" in events(made)[0]["parameters"]


def test_another_ai_system_is_named_beside_ours_and_ours_once():
    before = packet("", 'Iptc4xmpExt:AISystemUsed="Colouriser 2"')
    made = merged(before, LABEL)
    assert texts(made, "Iptc4xmpExt:AISystemUsed") == ["Colouriser 2; DifFace, preset portrait"]
    again = merged(merged(None, LABEL), LABEL)
    assert texts(again, "Iptc4xmpExt:AISystemUsed") == ["DifFace, preset portrait"]


def test_a_parent_is_named_by_its_own_identifiers_and_an_earlier_one_stays():
    known = packet("<xmpMM:InstanceID>xmp.iid:2</xmpMM:InstanceID>", 'xmpMM:DocumentID="xmp.did:1"')
    made = merged(known, LABEL)
    assert (texts(made, "stRef:documentID"), texts(made, "stRef:instanceID")) == (
        ["xmp.did:1"],
        ["xmp.iid:2"],
    )
    raw = '<xmpMM:DerivedFrom stRef:documentID="xmp.did:raw"/>'
    made = merged(packet(raw), LABEL)
    [derived] = root(made).findall(".//xmpMM:DerivedFrom", NAMES)
    assert derived.get(f"{{{REFERENCE}}}documentID") == "xmp.did:raw"
    assert f"parent sha256:{'c' * 64}" in events(made)[0]["parameters"]


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
HOSTILE = {
    "billion laughs": f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><x:xmpmeta xmlns:x="adobe:ns:meta/">&l9;</x:xmpmeta>',
    "a file of this machine": '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">&f;</x:xmpmeta>',
    "no XML": "{'a': 1}",
    "cut off": FOREIGN.decode()[:400],
    "another document": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "no RDF": '<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    "nested deeply": f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{"<a>" * 9999}{"</a>" * 9999}</x:xmpmeta>',
    "empty": "",
    "a history that is a text": packet("", 'xmpMM:History="once"').decode(),
    "a history without a list": packet("<xmpMM:History>once</xmpMM:History>").decode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_nothing_can_be_merged_into_is_refused_in_a_sentence(name):
    with pytest.raises(BadPacket, match="its XMP"):
        merged(HOSTILE[name].encode(), LABEL)


def test_entities_that_hide_in_another_encoding_are_refused_too():
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-7", "cp037"):
        with pytest.raises(BadPacket):
            merged(HOSTILE["a file of this machine"].encode(encoding), LABEL)


def test_fifty_megabytes_are_refused_before_they_are_parsed():
    large = packet("<a>" + "x" * (50 << 20) + "</a>")
    tracemalloc.start()
    with pytest.raises(BadPacket, match=f"at most {MOST_BYTES}"):
        merged(large, LABEL)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_packet_without_a_wrapper_and_with_zeros_behind_it_is_one():
    assert texts(merged(packet("") + b"\0\0", LABEL), "Iptc4xmpExt:DigitalSourceType") == [COMPOSITE]
