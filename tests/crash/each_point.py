"""Every crash point by itself, on an output of its own: `make crash`. The test suite takes them in chains instead."""

import signal

import pytest
from crash.hooks.crash_points import POINTS, Point
from crash.scene import KILLED, RETRY, Scene, differences

pytestmark = pytest.mark.timeout(1800)

# Points that need an earlier start to have been struck here.
AFTER = {
    "resume": "marker-taken-before",
    "resume-again": "marker-taken-before",
    "sigint-resuming": "marker-taken-before",
}
# Points that come by only where another has struck before in the same start.
TOGETHER = {"sigint-again": "sigint-flowing"}


def expected(point: Point) -> int:
    """Exit code of the start that is struck there."""
    if point.process == "worker":
        return 0
    return KILLED if point.sends == signal.SIGKILL else 130


@pytest.mark.parametrize("point", [p for p in POINTS if not p.always], ids=lambda point: point.name)
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
    assert differences(scene.left(name), scene.undisturbed[options]) == {}
