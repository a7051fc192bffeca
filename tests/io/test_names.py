"""Names that other people gave their files."""

import json
import os

import pytest

from pipeline.io.names import escape_surrogates, is_hidden, unescape_surrogates
from pipeline.reporting.page import document, note
from pipeline.reporting.text import printable

HOSTILE = (
    "a\nb",
    'a"b,c',
    os.fsdecode(b"caf\xe9"),
    "\u202eabc",
    "\x1b[2J",
    "-rf",
    "%s",
    "<b>",
    "a\u2028b",
    "\tx",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_name_has_a_printable_line_and_a_spelling_in_utf_8(name):
    assert printable(name).isprintable()
    assert unescape_surrogates(escape_surrogates(name).encode().decode()) == name


def test_what_is_printable_stays():
    assert printable("é α 漢 ü.jpg") == "é α 漢 ü.jpg"
    assert printable("a\nb\udce9") == "a\\nb\\udce9"
    assert escape_surrogates("é\n") == "é\n" and escape_surrogates("\udce9") == "\\udce9"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_takes_every_name(name):
    page = document(name, [note(name)]).encode()
    assert b"<b>" not in page.replace(b"</b>", b"")
    assert json.dumps(name).isascii()


@pytest.mark.parametrize(
    "path", ["._a.jpg", "x/._a.jpg", "./._a.jpg", "__MACOSX/a.jpg", ".thumbs/a.jpg", "a/.b/c/d.jpg"]
)
def test_attributes_of_a_mac_and_what_lies_in_hidden_folders_is_hidden(path):
    assert is_hidden(path)


@pytest.mark.parametrize(
    "path",
    ["a.jpg", "./a.jpg", "../a.jpg", "../../b/a.jpg", "/a.jpg", "v1.0/a.jpg", "a._b.jpg", "MACOSX/a.jpg"],
)
def test_other_paths_are_not_hidden(path):
    assert not is_hidden(path)
