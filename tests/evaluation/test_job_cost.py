"""CPU time of a job is that of all its processes, between two units that ended under way."""

import sys
import time

import pytest

from pipeline.evaluation.job_cost import FaceCost, ProcessTimes, restore_arguments, watch
from pipeline.records.marker import Marker
from pipeline.records.rows import Counts

# Takes 0.4 s of CPU itself and 0.6 s in a process below, and stays until both were seen.
BUSY = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < {}: pass\\ntime.sleep(1)"
child = subprocess.Popen([sys.executable, "-c", burn.format(0.6)])
exec(burn.format(0.4))
child.wait()
time.sleep(1)
"""


def test_cpu_time_is_that_of_a_process_and_those_below_it():
    began = time.time()
    spent = watch([sys.executable, "-c", BUSY]).between(began - 1, time.time())
    assert set(spent) == {"driver", "Ray's daemons"}
    assert spent["driver"] >= 0.35 and spent["Ray's daemons"] >= 0.55


def test_a_command_that_fails_is_an_error_with_its_words():
    with pytest.raises(RuntimeError, match="ended with 3: no such thing"):
        watch([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"])


def test_between_two_looks_time_is_shared_out_evenly():
    process = ProcessTimes([100.0, 102.0, 106.0], [0.0, 1.0, 5.0])
    assert process.between(101.0, 104.0) == 2.5
    assert process.between(0.0, 200.0) == 5 and process.between(0.0, 99.0) == 0


@pytest.mark.parametrize(
    ("titles", "role"),
    [
        ({"ray::IDLE", "ray::MapWorker(Map(RestoreFaces)).submit"}, "engine"),
        ({"ray::IDLE", "ray::Map(LoadUnit)->Map(Watched)"}, "reading and publishing"),
        ({"ray::Sums"}, "progress board"),
        ({"ray::IDLE", "ray::_StatsActor"}, "Ray Data's actors, idle workers"),
        ({"ray::DashboardAgent"}, "Ray's daemons"),
        (set(), "Ray's daemons"),
    ],
)
def test_processes_are_told_apart_by_what_ray_calls_them(titles, role):
    assert ProcessTimes([0.0], [0.0], titles).role == role


class Steady:
    """A history of processes that always take the same."""

    def between(self, begin, end):
        return {"engine": 2 * (end - begin), "driver": 0.5 * (end - begin)}


def marker(number):
    """A unit of four faces that ended ten seconds after the one before."""
    sums = {"seconds_read": 1.0, "seconds_restore": 20.0, "seconds_paste": 2.0}
    counts = Counts(4, 4, {"restored": 4})
    return Marker(f"u{number}", "s", number, False, counts, sums, 1000.0 + 10 * number)


def test_a_face_takes_what_is_spent_between_the_quarters_of_a_run():
    cost = FaceCost.of(Steady(), [marker(n) for n in (7, 0, 1, 2, 3, 4, 5, 6)])
    # from the end of the third unit to that of the sixth: 30 s, 12 faces
    assert cost.seconds == 2.5
    assert cost.cpu == {"engine": 5.0, "driver": 1.25} and cost.cpu_seconds == 6.25
    assert cost.stages == {"seconds_read": 0.25, "seconds_restore": 5.0, "seconds_paste": 0.5}


def test_of_two_units_the_second_counts():
    assert FaceCost.of(Steady(), [marker(0), marker(1)]).seconds == 2.5


def test_options_become_the_command_line(tmp_path):
    arguments = restore_arguments({"start_step": 40, "preset": "portrait"}, tmp_path / "in", tmp_path / "out")
    assert arguments[4:] == [
        "--aligned",
        "--alignment",
        "preset",
        "--start-step",
        "40",
        "--preset",
        "portrait",
    ]
