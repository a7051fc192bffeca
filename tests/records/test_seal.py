"""A JSON object that carries its checksum is intact, or is known not to be."""

import json

import pytest

from pipeline.records.seal import is_intact, sealed

VALUES = {"run": "a", "sums": {"distance": 0.1, "seconds": 1e-30}, "names": ["ä", "\udce9"], "none": None}


def test_what_was_sealed_is_intact_after_json_and_in_any_order():
    there_and_back = json.loads(json.dumps(sealed(VALUES), indent=1))
    assert is_intact(there_and_back)
    assert is_intact(dict(reversed(there_and_back.items())))
    assert there_and_back == VALUES | {"seal": there_and_back["seal"]}


def test_sealing_again_replaces_the_seal():
    assert sealed(sealed(VALUES)) == sealed(VALUES)
    assert sealed(sealed(VALUES) | {"run": "b"}) == sealed(VALUES | {"run": "b"})


@pytest.mark.parametrize(
    "change", [{"run": "b"}, {"sums": {"distance": 0.2, "seconds": 1e-30}}, {"seal": ""}]
)
def test_a_change_is_found(change):
    assert not is_intact(sealed(VALUES) | change)


def test_without_a_seal_nothing_is_intact():
    assert not is_intact(VALUES)
