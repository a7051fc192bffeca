"""The conditions of --fail-if."""

import pytest

from pipeline.console.gates import parse_gates
from pipeline.console.options import UsageError


def test_conditions_are_separated_by_commas_and_hold_beyond_their_limit():
    gates = parse_gates("no_face>0.2, new.drop <= -1e-2,images<1000")
    assert [(g.name, g.sign, g.limit) for g in gates] == [
        ("no_face", ">", 0.2), ("new.drop", "<=", -0.01), ("images", "<", 1000.0)
    ]  # fmt: skip
    above, at_most, below = gates
    assert above.holds(0.21) and not above.holds(0.2)
    assert at_most.holds(-0.01) and not at_most.holds(0.0)
    assert below.holds(999) and not below.holds(1000)
    assert parse_gates("") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no_face", "expected NAME>NUMBER or NAME<NUMBER, such as no_face>0.2; got 'no_face'"),
        ("no_face=1", "got 'no_face=1'"),
        ("lpips>a", "got 'lpips>a'"),
        ("lpips>1.2.3", "'1.2.3' in 'lpips>1.2.3' is not a number"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_one_looks_like(text, sentence):
    with pytest.raises(UsageError, match="--fail-if") as refused:
        parse_gates(text)
    assert sentence in str(refused.value)
