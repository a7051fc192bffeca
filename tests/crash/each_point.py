"""Every crash point by itself, on an output of its own, and what takes long: `make crash`.

The test suite strikes a few starts one after another, and all the workers' points in one run.
"""

import json
import signal
from pathlib import Path

import pytest
from crash.compare import told_mlflow
from crash.hooks.crash_points import POINTS, Point
from crash.scene import KILLED, RETRY, Scene, assert_all_accounted, differences
from photographs import read_folder

pytestmark = pytest.mark.timeout(1800)

# Points that need an earlier start to have been struck here.
AFTER = {
    "resume": "marker-taken-before",
    "resume-again": "marker-taken-before",
    "sigint-resuming": "marker-taken-before",
}
# Points that are struck one by one; those of verdicts are in test_verdict_crashes.py.
ALONE = [p for p in POINTS if not p.always and not p.name.startswith("verdicts-")]
# Points that come by only where another has struck before in the same start.
TOGETHER = {"sigint-again": "sigint-flowing"}


def expected(point: Point) -> int:
    """Exit code of the start that is struck there."""
    if point.process == "worker":
        return 0
    return KILLED if point.sends == signal.SIGKILL else 130


@pytest.mark.parametrize("point", ALONE, ids=lambda point: point.name)
def test_struck_at_one_point_a_run_ends_as_if_nothing_had_happened(scene: Scene, point: Point):
    name, options = f"each-{point.name}", RETRY if point.name.startswith("retry-") else ()
    if options:
        assert scene.start(name) == 0, scene.log(name).read_text()
    if point.name in AFTER:
        assert scene.start(name, struck=(AFTER[point.name],)) == KILLED, scene.log(name).read_text()
    struck = (TOGETHER[point.name], point.name) if point.name in TOGETHER else (point.name,)
    assert scene.start(name, *options, struck=struck) == expected(point), scene.log(name).read_text()
    assert scene.armed() == set()
    if expected(point):
        assert scene.start(name, *options) == 0, scene.log(name).read_text()
    assert differences(scene.left(name), scene.undisturbed(*options)) == {}


def test_a_picture_that_no_worker_survives_fails_alone(scene):
    assert scene.start("deadly", struck=("picture-deadly",)) == 0, scene.log("deadly").read_text()
    assert "1 units were lost with their workers" in scene.log("deadly").read_text()
    marks = [
        json.loads(f.read_bytes()) for f in (scene.output("deadly") / "_ledger" / "done").glob("*/*.json")
    ]
    killed = [m for m in marks if "align: killed its worker" in m["reasons"]["failed"]]
    assert [(m["unit"], m["outcomes"]["failed"]) for m in killed] == [("images-00001-0000", 1)]
    assert_all_accounted(scene.output("deadly"), Path(scene.source))
    other = differences(scene.left("deadly"), scene.undisturbed())
    assert [name for name in other if name.startswith(("images/", "records/"))] == [
        "images/a/p03.png",
        "records/images-00001-0000.parquet",
    ]


def test_signals_stop_a_run_at_any_time_and_the_same_command_completes_it(scene):
    def interrupted(*points: str) -> str:
        """What a start says that these points end, one signal each."""
        said_before = len(scene.log("signals").read_text())
        code = scene.start("signals", struck=points)
        said = scene.log("signals").read_text()[said_before:]
        assert (code, scene.armed()) == (130, set()), said
        return said

    scene.log("signals").touch()
    output = scene.output("signals")
    assert "the same command goes on" in interrupted("sigterm-planning")
    said = interrupted("sigterm-flowing")
    assert "units in flight are finished first" in said and "the same command goes on" in said
    # what was begun is whole: pictures, records and marker of the same units
    done = len(list((output / "_ledger" / "done").glob("*/*.json")))
    assert 0 < done < 21
    assert done == len(list((output / "records").iterdir())) == len(read_folder(output / "images"))
    assert told_mlflow(scene.mlflow_uri, "signals")["MLflow status"] == "KILLED"
    assert "the same command goes on" in interrupted("sigint-resuming")
    assert "units in flight are finished first" in interrupted("sigint-flowing", "sigint-again")
    assert "the same command goes on" in interrupted("sigterm-reporting")
    assert scene.start("signals") == 0, scene.log("signals").read_text()
    assert differences(scene.left("signals"), scene.undisturbed()) == {}
