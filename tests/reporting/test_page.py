"""Pages of reports: what is in them, and that nothing gets out of its place."""

import re

import pytest

from pipeline.reporting import page
from pipeline.reporting.text import value_text, words

HOSTILE = '<script>alert("x")</script>\' & \udce9'


def test_every_part_escapes_its_texts():
    parts = [
        page.heading(HOSTILE),
        page.note(HOSTILE),
        page.tiles({HOSTILE: HOSTILE}),
        page.pairs({HOSTILE: {HOSTILE: HOSTILE}}),
        page.table([HOSTILE], [[HOSTILE]]),
        page.picture(b"png", "png", HOSTILE),
    ]
    text = page.document(HOSTILE, parts)
    assert "<script" not in text and 'alert("' not in text
    assert text.count("&lt;script&gt;") == 12
    assert "\\udce9" in text
    text.encode()


def test_a_page_loads_nothing_and_its_policy_says_so():
    text = page.document("T", [page.picture(b"123", "png", "a picture")])
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:image/png;base64,MTIz"]
    assert "url(" not in text and "@import" not in text


def test_columns_of_numbers_are_aligned_right():
    text = page.document("T", [page.table(["first_name", "n"], [["a", 1], [None, None]])])
    assert '<th class="text">first name</th><th class="number">n</th>' in text
    assert '<td class="text">a</td><td class="number">1</td>' in text
    assert '<td class="text"></td><td class="number"></td>' in text


def test_mappings_inside_a_table_of_pairs_are_unfolded():
    assert "<td>weights.prior</td><td>abc</td>" in page.document(
        "T", [page.pairs({"weights": {"prior": "abc"}})]
    )


def test_an_empty_note_is_no_line():
    assert page.document("T", [page.note("")]) == page.document("T", [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (1234567, "1\u202f234\u202f567"),
        (128.0, "128"),
        (0.123456, "0.1235"),
        (None, ""),
        (True, "True"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("<b>", "<b>"),
    ],
)
def test_values_are_shown_as_people_write_them(value, text):
    assert value_text(value) == text


def test_names_are_shown_as_words():
    assert words("sharpness_after") == "sharpness after"
