"""The review page as a document: what is in it, that texts stay texts, and how large it gets."""

import base64
import hashlib
import json
import re
from dataclasses import fields, replace

import pytest
import review_pages

from pipeline.records.verdicts import FORMAT
from pipeline.reporting.review_page import Applied, Face, ReviewData, Tried, review_document

HOSTILE = "</script><!--<script><img src=x onerror=alert(1)>\"' & \u2028 \udce9"


def embedded(text: str) -> dict:
    """The data in the page, faces and what was tried as mappings."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    found = json.loads(data)
    faces = [dict(zip(found["columns"], row, strict=True)) for row in found["faces"]]
    for face in faces:
        face["tried"] = [dict(zip(found["tried"], row, strict=True)) for row in face["tried"]]
    return found | {"faces": faces}


def policy(text: str) -> dict[str, list[str]]:
    """The page's Content-Security-Policy, by directive."""
    (content,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = [rule.split() for rule in content.replace("&#39;", "'").split("; ")]
    return {name: values for name, *values in rules}


def test_the_page_carries_all_of_its_data():
    text = review_document(review_pages.data_of(review_pages.few_faces()))
    found = embedded(text)
    assert (found["run"], found["digest"]) == (review_pages.RUN, review_pages.DIGEST)
    assert found["command"] == review_pages.COMMAND and found["format"] == "difface verdicts 1"
    assert found["choices"][1] == {"label": "the estimator alone", "settings": {"method": "estimator"}}
    assert len(found["faces"]) == 8
    left = found["faces"][2]
    assert list(left) == [f.name for f in fields(Face)]
    assert (
        left["outcome"] == "left" and left["tile"] == [240, 200] and left["heat"] == [1.5, 0, 0, 1.5, 72, 52]
    )
    assert left["tried"][1] == {f.name: None for f in fields(Tried)} | {
        "rung": "estimator",
        "label": "estimator",
        "failed": "non_finite",
    }
    assert found["faces"][3]["applied"] == {
        "verdict": "accept",
        "who": "Ada",
        "at": "2026-01-02T03:04:05Z",
        "settings": None,
    }


def test_every_text_is_escaped():
    texts = {
        name: HOSTILE for name in ("unit", "picture", "sha256", "src", "rung", "treatment", "why", "more")
    }
    face = review_pages.face(
        0,
        panels=(HOSTILE,),
        tried=(Tried(HOSTILE, HOSTILE, failed=HOSTILE),),
        applied=Applied("redo", HOSTILE, HOSTILE, {"method": HOSTILE}),
        **texts,
    )
    data = replace(review_pages.data_of([face]), title=HOSTILE, run=HOSTILE, command=HOSTILE)
    text = review_document(data)
    plain = review_document(review_pages.data_of([]))
    assert [text.count(part) for part in ("<script", "</script", "<!--", "<img")] == [
        plain.count(part) for part in ("<script", "</script", "<!--", "<img")
    ]
    found = embedded(text)
    assert found["run"] == HOSTILE and found["faces"][0]["picture"] == HOSTILE
    assert found["faces"][0]["applied"]["settings"] == {"method": HOSTILE}
    text.encode()


def test_its_policy_lets_its_own_script_and_style_run_and_nothing_else():
    text = review_document(review_pages.data_of(review_pages.few_faces()))
    rules = policy(text)
    for name, tag in [("script-src", "script"), ("style-src", "style")]:
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == [f"'sha256-{digest}'"]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["img-src"] == ["'self'", "data:"] and rules["connect-src"] == ["'self'"]
    assert not any("unsafe" in one for values in rules.values() for one in values)
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]
    assert " style=" not in text and not re.findall(r"\son\w+=", text.partition('id="data"')[0])
    assert set(re.findall(r"url\([^)]*\)", text)) == {"url(#heat-colours)"}


def test_signed_addresses_are_let_in_by_their_host_alone():
    faces = [
        review_pages.face(0, src="https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Signature=1;x 'unsafe-inline'"),
        review_pages.face(1, src="data:image/png;base64,AAAA", more="http://127.0.0.1:9000/bucket/b.jpg?x=1"),
    ]
    assert policy(review_document(review_pages.data_of(faces)))["img-src"] == [
        "'self'",
        "data:",
        "http://127.0.0.1:9000",
        "https://bucket.s3.amazonaws.com",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_finite_number_was_not_measured(value):
    (face,) = embedded(review_document(review_pages.data_of([review_pages.face(0, identity=value)])))["faces"]
    assert face["identity"] is None


def test_a_face_takes_less_than_a_kilobyte():
    def size(count: int) -> int:
        faces = [review_pages.face(i, identity=1 / 3 + i) for i in range(count)]
        return len(review_document(review_pages.data_of(faces)).encode())

    assert (size(200) - size(100)) / 100 < 1000
    # the page itself
    assert size(0) < 60_000


def test_a_run_without_faces_has_a_page():
    assert embedded(review_document(ReviewData("T", FORMAT, "r", "d", "c", (), ())))["faces"] == []
