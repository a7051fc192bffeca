"""Killed at every step of the commit protocol and started again, a run leaves what an undisturbed one leaves."""

import pytest
from crash.scene import KILLED, RETRY, Scene, differences, wait_for

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
# Points of the starts of one output, in order; `make crash` takes all there are.
STARTS = (
    ("plan-half",),
    ("marker-taken-before",),
    ("settled-before-tracking",),
    ("report-page-half",),
)
RETRIES = (("retry-marker-taken",),)


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
