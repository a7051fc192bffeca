"""PREMIS of a unit: what was delivered, from what, by which program and by whom; valid after the schema."""

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from pipeline.delivery.bag import File
from pipeline.delivery.premis import SPACE, Delivered, Program, premis_of

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("premis.xsd")))
PROGRAM = Program("0.1.0, method 3", "fp", "portrait", {"prior": "a" * 64, "estimator": "b" * 64})
AT = "2026-11-27T10:00:00+00:00"
P = {"p": SPACE}


def image(member: str, sha256: str = "c" * 64, **values: Any) -> dict[str, Any]:
    return {
        "member": member,
        "sha256": sha256,
        "outcome": "restored",
        "label": "xmp",
        "recoded": None,
    } | values


def face(number: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "face": number, "kept": "", "error": "", "treatment": "chain", "rung": "asked", "verdict": "", "verdict_by": "",
        "verdict_at": "", "verdict_settings": None, "box": [0.0, 0.0, 9.0, 9.0],
    } | values  # fmt: skip


def document(*pictures: Delivered, others: tuple[File, ...] = ()) -> Any:
    data = premis_of("unit-0000", pictures, others, PROGRAM)
    root = etree.fromstring(data)
    SCHEMA.assertValid(root)
    assert premis_of("unit-0000", pictures, others, PROGRAM) == data
    return root


def changed(name: str, *faces: dict[str, Any], **values: Any) -> Delivered:
    return Delivered([image(name, **values), *faces], File(f"images/{name}", "d" * 64, 7), False, True, AT)


def texts(root: Any, path: str) -> list[str]:
    return [element.text for element in root.iterfind(path, P)]


def test_a_changed_picture_has_one_derivation_with_source_program_models_and_outcome():
    root = document(changed("sub/a.jpg", face(), face(1, kept="sharp", treatment="left", rung="")))
    [event] = root.findall("p:event", P)
    assert texts(event, "p:eventType") == ["derivation"] and texts(event, "p:eventDateTime") == [AT]
    assert texts(event, ".//p:eventOutcome") == ["success"]
    assert texts(event, ".//p:eventOutcomeDetailNote") == ["label: xmp"]
    assert texts(event, ".//p:eventDetail") == [
        "restored with preset portrait: face 0 by diffusion (as asked)"
    ]
    assert texts(event, ".//p:linkingAgentIdentifierValue") == ["difface-pipeline", "b" * 64, "a" * 64]
    roles = zip(
        texts(event, ".//p:linkingObjectRole"), texts(event, ".//p:linkingObjectIdentifierValue"), strict=True
    )
    assert list(roles) == [("source", "c" * 64), ("outcome", "images/sub/a.jpg")]
    source, delivered = root.findall("p:object", P)
    assert texts(source, ".//p:messageDigest") == ["c" * 64]
    assert texts(delivered, ".//p:messageDigest") == ["d" * 64] and texts(delivered, ".//p:size") == ["7"]
    assert texts(delivered, ".//p:formatName") == ["image/jpeg"]
    assert texts(delivered, ".//p:relationshipSubType") == ["has source"]
    assert texts(delivered, ".//p:relatedEventIdentifierValue") == texts(event, ".//p:eventIdentifierValue")
    notes = " ".join(texts(root, ".//p:agentNote"))
    assert "fp" in notes and "prior sha256 " + "a" * 64 in notes


def test_a_picture_that_stayed_is_an_object_without_events():
    one = Delivered(
        [image("a.png", outcome="no_face", label=None)], File("images/a.png", "c" * 64, 3), False, False, AT
    )
    root = document(one)
    assert (
        len(root.findall("p:object", P)) == 1
        and not root.findall("p:event", P)
        and not root.findall("p:agent", P)
    )


def test_a_picture_that_was_not_delivered_is_in_the_records_alone():
    lost = Delivered([image("a.png", outcome="failed")], None, False, False, AT)
    root = document(lost, others=(File("records/u.parquet", "e" * 64, 9),))
    assert texts(root, ".//p:objectIdentifierValue") == ["records/u.parquet"]
    assert texts(root, ".//p:formatName") == ["application/vnd.apache.parquet"]


def test_verdicts_of_people_are_events_of_their_own_with_the_person():
    said = {"verdict_by": "Ada", "verdict_at": "2026-11-27T17:00:00Z"}
    first = face(0, verdict="accept", **said)
    second = face(1, verdict="redo", verdict_settings='{"seed": 3}', **said | {"verdict_by": ""})
    root = document(changed("a.png", first, second))
    reviews = [e for e in root.findall("p:event", P) if texts(e, "p:eventType") == ["quality review"]]
    assert [texts(e, ".//p:eventOutcome") for e in reviews] == [["accepted"], ["redone"]]
    assert [texts(e, ".//p:linkingAgentIdentifierValue") for e in reviews] == [["Ada"], ["unnamed"]]
    assert texts(reviews[1], ".//p:eventDetail") == ['face 1, by a person, with {"seed": 3}']
    people = [a for a in root.findall("p:agent", P) if texts(a, "p:agentType") == ["person"]]
    assert [texts(a, "p:agentName") for a in people] == [["Ada"], ["unnamed"]]


def test_a_rejected_face_of_a_picture_that_stayed_is_reviewed():
    said = face(0, kept="rejected", verdict="reject", verdict_by="Ada", verdict_at="2026-11-27")
    one = Delivered(
        [image("a.png", outcome="skipped"), said], File("images/a.png", "c" * 64, 3), False, False, AT
    )
    [event] = document(one).findall("p:event", P)
    assert texts(event, ".//p:eventOutcome") == ["rejected"]
    assert texts(event, "p:eventDateTime") == ["2026-11-27T00:00:00+00:00"]


def test_a_signature_is_an_event():
    one = changed("a.png", face())
    signed = Delivered(one.rows, one.file, False, True, AT, "2026-11-28T10:00:00+00:00")
    kinds = texts(document(signed), ".//p:eventType")
    assert kinds == ["derivation", "digital signature generation"]


def test_pictures_in_a_shard_are_bitstreams_of_it():
    shard = File("shards/u.tar", "d" * 64, 99)
    pictures = [
        Delivered([image("a.png"), face()], shard, True, True, AT),
        Delivered([image("b.png", outcome="no_face")], shard, True, False, AT),
    ]
    root = document(*pictures, others=(shard,))
    names = texts(root, ".//p:objectIdentifierValue")
    assert names == ["shards/u.tar", "c" * 64, "shards/u.tar#a.png"]
    assert texts(root, ".//p:relationshipSubType") == ["is included in", "has source"]


def test_a_source_that_two_pictures_share_is_one_object():
    root = document(changed("a.png", face()), changed("b.png", face()))
    assert texts(root, ".//p:objectIdentifierValue").count("c" * 64) == 1
    assert len(set(texts(root, ".//p:eventIdentifierValue"))) == 2


@pytest.mark.parametrize("name", ["caf\udce9.png", "a\x01b.png", "a & <b>.png", "\ufffe.png"])
def test_names_that_xml_cannot_hold_are_escaped(name):
    one = Delivered([image(name), face()], File("images/x.png", "d" * 64, 7), False, True, AT)
    assert document(one).findall(".//p:originalName", P)


def test_the_schema_of_these_tests_refuses_what_is_no_premis():
    root = document(changed("a.png", face()))
    for path in ("p:event/p:eventType", "p:event/p:eventIdentifier", "p:agent", "p:object"):
        broken = etree.fromstring(etree.tostring(root))
        element = broken.find(path, P)
        element.getparent().remove(element)
        assert not SCHEMA.validate(broken), path
    root.find("p:event/p:eventDateTime", P).text = "yesterday"
    assert not SCHEMA.validate(root)
