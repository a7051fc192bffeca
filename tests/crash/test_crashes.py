"""Killed at every step of the commit protocol and started again, a run leaves what an undisturbed one leaves."""

import json
from pathlib import Path

import pytest
from crash.compare import told_mlflow
from crash.scene import KILLED, RETRY, Scene, assert_all_accounted, differences, wait_for
from photographs import read_folder

pytestmark = pytest.mark.timeout(1800)

# All in one run, each at another unit.
WORKERS = (
    "read-before",
    "read-after",
    "picture-before",
    "picture-half",
    "records-before",
    "sample-before",
    "marker-before",
    "marker-half",
    "marker-after",
    "row-before",
    "engine-called",
    "engine-holds-faces",
    "engine-done",
)
# Points of the starts of one output, in order: one for each step of the protocol. `make crash` takes all there are.
STARTS = (
    ("claim-half",),
    ("plan-shards-between",),
    ("plan-half",),
    ("mlflow-run-made",),
    ("marker-taken-before",),
    ("resume-again",),
    ("settled-before-tracking",),
    ("tracking-half",),
    ("report-page-half",),
    ("mlflow-closed-not-noted",),
)
RETRIES = (
    ("retry-order-half",),
    ("retry-marker-taken",),
    ("retry-close-half",),
)


def killed_then_finished(scene: Scene, name: str, starts: tuple[tuple[str, ...], ...], *options: str) -> None:
    """Every start dies at its last point, then one more comes to its end."""
    for points in starts:
        code = scene.start(name, *options, struck=points)
        assert (code, scene.armed()) == (KILLED, set()), f"{points}\n{scene.log(name).read_text()}"
    assert scene.start(name, *options) == 0, scene.log(name).read_text()


def test_a_driver_killed_at_every_step_leaves_no_worker_and_the_next_ends_as_if_nothing_had_happened(scene):
    killed_then_finished(scene, "driver", STARTS)
    wait_for(lambda: not scene.workers())
    assert differences(scene.left("driver"), scene.undisturbed[()]) == {}
    killed_then_finished(scene, "driver", RETRIES, *RETRY)
    assert differences(scene.left("driver"), scene.undisturbed[RETRY]) == {}


def test_workers_and_engines_killed_at_every_step_are_replaced_within_the_run(scene):
    assert scene.start("workers", struck=WORKERS) == 0, scene.log("workers").read_text()
    assert scene.armed() == set()
    assert differences(scene.left("workers"), scene.undisturbed[()]) == {}


def test_a_picture_that_no_worker_survives_fails_alone(scene):
    assert scene.start("deadly", struck=("picture-deadly",)) == 0, scene.log("deadly").read_text()
    assert "1 units did not survive" in scene.log("deadly").read_text()
    marks = [
        json.loads(f.read_bytes()) for f in (scene.output("deadly") / "_ledger" / "done").glob("*/*.json")
    ]
    killed = [m for m in marks if "align: killed its worker" in m["reasons"]["failed"]]
    assert [(m["unit"], m["outcomes"]["failed"]) for m in killed] == [("images-00001-0000", 1)]
    assert_all_accounted(scene.output("deadly"), Path(scene.source))
    other = differences(scene.left("deadly"), scene.undisturbed[()])
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
    assert differences(scene.left("signals"), scene.undisturbed[()]) == {}
