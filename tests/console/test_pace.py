"""What a run's rate and time left are said to be, on a clock of the test's own."""

import random
from itertools import pairwise

import pytest

from pipeline.console.pace import WINDOW, Pace
from pipeline.console.work_counts import WorkCounts


def watched(pictures, counts, seconds, restores=True, delivered=lambda t: 0):
    """A pace that was given `counts(t)` once a second from 0 to `seconds`, and the seconds left it gave at each."""
    pace, left = Pace(pictures, restores), []
    for t in range(seconds + 1):
        pace.update(100.0 + t, counts(t), delivered(t))
        left.append(pace.left)
    return pace, left


def steady(t, calls=4, each=20, begins=5):
    """One picture a second with two faces each; engines make so many calls a second from second 5, `each` a face."""
    faces, work = 2 * min(t, 60), max(calls * (t - begins), 0)
    decided = min(-(-work // each), faces)
    return WorkCounts(
        pictures=min(t, 60),
        faces=faces,
        loading=1,
        ready=int(t >= begins),
        decided=decided,
        restored=work // each,
        steps_planned=decided * (each - 1),
        steps=max(work - decided, 0),
    )


def test_nothing_is_predicted_before_something_was_measured():
    _, left = watched(60, steady, 8)
    assert left == [None] * 9


def test_the_time_left_is_that_of_the_faces_still_to_come_at_the_rate_of_the_steps():
    # 60 pictures, 120 faces, 20 calls each at 4 a second: 600 s from second 5
    _, left = watched(60, steady, 300)
    assert left[20] == pytest.approx(585, rel=0.1)
    assert left[100] == pytest.approx(505, rel=0.03)
    assert left[300] == pytest.approx(305, rel=0.03)


def test_the_rate_counts_parts_of_faces_and_not_the_wait_for_the_engines():
    pace, _ = watched(60, lambda t: steady(t, begins=50), 60)
    assert pace.faces_per_second == pytest.approx(4 / 20, rel=0.1)


def test_further_samples_of_the_faces_are_work_to_come():
    """Three more chains of each face: 480 of 20 calls at 4 a second, 2,400 s from second 5."""

    def sampled(t):
        return steady(t) + WorkCounts(further=6 * min(t, 60))

    pace, left = watched(60, sampled, 300)
    assert left[100] == pytest.approx(2305, rel=0.1) and left[300] == pytest.approx(2105, rel=0.05)
    assert pace.faces_per_second == pytest.approx(4 / 80, rel=0.1)
    assert pace.steps == pytest.approx(480 * 19, rel=0.05)


def test_the_rate_is_that_of_the_last_minute():
    def slower(t):
        h = steady(t, calls=8)
        return h if t < 100 else steady(100, calls=8) + WorkCounts(steps=t - 100)

    pace, _ = watched(60, slower, 100 + int(WINDOW) + 1)
    assert pace.faces_per_second == pytest.approx(1 / 20, rel=0.05)


def test_the_time_left_settles_where_measurements_jump():
    draw = random.Random(0)
    total = {0: 0}

    def jumpy(t):
        total[t] = total.get(t - 1, 0) + draw.choice([0, 0, 12, 20])
        return WorkCounts(60, 120, 1, 1, 120, 0, 120 * 19, max(total[t] - 120, 0))

    _, left = watched(60, jumpy, 200)
    late = [x for x in left[60:] if x is not None]
    assert len(late) == 141
    # a second passes between two, and the rest is the correction
    assert all(abs(a - b - 1) < 6 for a, b in pairwise(late))


def test_no_time_is_negative_and_no_share_above_one_where_units_are_done_twice():
    twice = steady(1000)
    pace, left = watched(60, lambda t: twice + twice if t > 8 else steady(t), 400)
    assert min(x for x in left if x is not None) == 0
    assert pace.share == 1


def test_pictures_without_faces_count_by_being_read():
    pace, left = watched(100, lambda t: WorkCounts(pictures=min(2 * t, 100), loading=1, ready=1), 30)
    assert left[30] == pytest.approx(20, abs=1)
    assert pace.share == pytest.approx(0.6)


def test_a_pass_that_only_reads_ends_with_its_last_picture():
    pace, left = watched(100, lambda t: WorkCounts(pictures=min(t, 100), faces=3 * t), 50, restores=False)
    assert left[50] == pytest.approx(50, abs=2)
    assert pace.share == pytest.approx(0.5)
    assert pace.faces_per_second is None


def test_engines_that_estimate_alone_count_by_the_faces_they_end():
    pace, left = watched(
        50, lambda t: WorkCounts(pictures=50, faces=100, ready=1, restored=min(2 * t, 100)), 20
    )
    assert pace.faces_per_second == pytest.approx(2, rel=0.05)
    assert left[20] == pytest.approx(30, rel=0.1)


def test_slow_delivery_is_not_overlooked():
    # all is restored at once, and a unit of 5 pictures delivered every 10 s
    done = WorkCounts(100, 100, 1, 1, 100, 100, 1900, 1900)
    _, left = watched(100, lambda t: done, 120, delivered=lambda t: t // 10 * 5)
    assert left[120] == pytest.approx(80, abs=10)


def test_a_board_that_forgets_raises_nothing():
    pace, _ = watched(60, lambda t: steady(t) if t < 20 else WorkCounts(), 30)
    assert pace.share >= 0
    assert pace.faces_per_second is None or pace.faces_per_second >= 0


def test_engines_whose_report_is_ahead_of_the_readers_do_not_end_the_pass():
    pace, _ = watched(15, lambda t: WorkCounts(pictures=1, faces=0, loading=1, ready=1, restored=10), 3)
    assert pace.share == pytest.approx(1 / 15)


def test_a_pass_over_nothing_is_done():
    assert Pace(0, restores=True).share == 1
