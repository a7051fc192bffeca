"""Workers, engine and driver of one run are killed, and the next start leaves what an undisturbed run leaves.

The shortest of the crash tests, which CI runs; every step has its own in test_crashes.py and each_point.py.
"""

import pytest
from crash.scene import KILLED, differences, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# the driver comes last: by then the units at which the others are struck have passed
STRUCK = ("picture-half", "marker-after", "engine-holds-faces", "settled-before-tracking")


def test_killed_workers_are_replaced_and_after_a_killed_driver_the_next_start_ends_as_if_nothing_had_happened(
    scene,
):
    code = scene.start("few", struck=STRUCK)
    assert (code, scene.armed()) == (KILLED, set()), scene.log("few").read_text()
    assert scene.start("few") == 0, scene.log("few").read_text()
    wait_for(lambda: not scene.workers())
    assert differences(scene.left("few"), scene.undisturbed()) == {}
