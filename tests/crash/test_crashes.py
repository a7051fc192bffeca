"""Killed at every step of the commit protocol and started again, a run leaves what an undisturbed one leaves."""

import pytest
from crash.scene import KILLED, differences, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# All in one run, each at another unit.
WORKERS = (
    "read-after",
    "picture-half",
    "marker-before",
    "marker-after",
    "engine-holds-faces",
)
# Points of the starts of one output, in order; `make crash` takes all there are.
STARTS = (
    ("plan-half",),
    ("marker-taken-before",),
    ("settled-before-tracking",),
)


def test_a_driver_killed_at_every_step_leaves_no_worker_and_the_next_ends_as_if_nothing_had_happened(scene):
    for points in STARTS:
        code = scene.start("driver", struck=points)
        assert (code, scene.armed()) == (KILLED, set()), f"{points}\n{scene.log('driver').read_text()}"
    assert scene.start("driver") == 0, scene.log("driver").read_text()
    wait_for(lambda: not scene.workers())
    assert differences(scene.left("driver"), scene.undisturbed()) == {}


def test_workers_and_engines_killed_at_every_step_are_replaced_within_the_run(scene):
    assert scene.start("workers", struck=WORKERS) == 0, scene.log("workers").read_text()
    assert scene.armed() == set()
    assert differences(scene.left("workers"), scene.undisturbed()) == {}
