"""Verdicts are carried out once and whole, whatever is killed on the way."""

import json

import pytest
from crash.scene import KILLED, differences

from pipeline.records.verdicts import FORMAT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Points of the starts that are killed, in order.
STARTS = (("verdicts-half",), ("verdicts-after",), ("retry-order-half",), ("retry-order-after",))


def test_verdicts_are_carried_out_once_whatever_is_killed_on_the_way(scene):
    given = [
        {"picture": f"a/p{i:02d}.png", "face": 0, "verdict": what, "at": "2026-11-27T17:00:00Z"}
        for i, what in enumerate(("accept", "reject", "redo", "reject"))
    ]
    file = scene.folder / "verdicts.json"
    file.write_text(json.dumps({"format": FORMAT, "verdicts": given}))
    options = ("--verdicts", str(file))
    for name in ("calm verdicts", "verdicts"):
        assert scene.start(name) == 0, scene.log(name).read_text()
    assert scene.start("calm verdicts", *options) == 0, scene.log("calm verdicts").read_text()
    for points in STARTS:
        code = scene.start("verdicts", *options, struck=points)
        assert (code, scene.armed()) == (KILLED, set()), f"{points}\n{scene.log('verdicts').read_text()}"
    assert scene.start("verdicts", *options, struck=("picture-half",)) == 0, scene.log("verdicts").read_text()
    assert scene.armed() == set()
    assert differences(scene.left("verdicts"), scene.left("calm verdicts")) == {}
    assert differences(scene.left("verdicts"), scene.undisturbed()) != {}
