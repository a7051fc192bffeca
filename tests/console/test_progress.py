"""What a person sees while a run works."""

import io
import re
import threading
import time

import pytest

from pipeline.console.progress import Progress, WaitNotice, counted, duration, rounded, write_line
from pipeline.console.work_counts import WorkCounts


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def seen(progress, clock, counts, seconds):
    """Refresh once a second; `counts(t)` are those of second t."""
    known = [None]
    progress.follow(lambda: known[0], engines=1)
    for t in range(1, seconds + 1):
        clock.now += 1
        known[0] = counts(t)
        progress.refresh()


def restoring(t):
    """Ten pictures with a face each are read in five seconds; then two steps a second, twenty a face."""
    read, work = min(2 * t, 10), max(2 * (t - 5), 0)
    decided = min(-(-work // 20), read)
    return WorkCounts(read, read, 1, int(t >= 5), decided, work // 20, 19 * decided, max(work - decided, 0))


def test_a_line_says_how_far_how_fast_and_how_long_still():
    out, clock = io.StringIO(), Clock()
    with Progress(total=100, before=20, out=out, clock=clock) as progress:
        assert progress.line() == (
            "20/100 images (20%), 0 faces, 0 failed, 0.00 images/s, 0 s elapsed, unknown to go"
        )
        clock.now += 15
        progress.add(images=30, faces=41, failed=2)
    assert out.getvalue() == (
        "50/100 images (50%), 41 faces, 2 failed, 2.00 images/s, 15 s elapsed, 25 s to go\n"
    )


def test_a_job_names_what_its_third_number_counts():
    out = io.StringIO()
    with Progress(total=2, before=0, out=out, bad="different") as progress:
        progress.add(images=2, faces=3, failed=1)
    assert "3 faces, 1 different, " in out.getvalue()


def test_what_is_being_done_is_said_at_once_and_once():
    out = io.StringIO()
    with Progress(total=10, before=0, out=out, interval=1000, now="starting Ray") as progress:
        assert out.getvalue() == "0/10 images, starting Ray, 0 s elapsed\n"
        progress.phase("starting workers")
        progress.phase("starting workers")
    assert re.fullmatch(
        r"0/10 images, starting Ray, 0 s elapsed\n0/10 images, starting workers, \d s elapsed\n",
        out.getvalue(),
    )


def test_a_line_comes_by_itself_before_anything_is_done():
    out = io.StringIO()
    with Progress(total=10, before=0, out=out, interval=0.01, now="starting Ray"):
        give_up = time.monotonic() + 60
        while out.getvalue().count("starting Ray") < 3 and time.monotonic() < give_up:
            time.sleep(0.01)
    assert out.getvalue().count("starting Ray") >= 3


def test_counts_show_what_is_read_found_and_loaded_before_any_face_is_done():
    clock = Clock()
    progress = Progress(10, 0, io.StringIO(), now="starting workers", clock=clock)
    seen(progress, clock, lambda t: WorkCounts(), 2)
    assert progress.line() == "0/10 images, starting workers, 2 s elapsed"
    seen(progress, clock, restoring, 2)
    assert progress.line() == (
        "0/10 images (4%), 4 of 10 read, 4 faces to restore, loading networks (0 of 1 engines ready), 4 s elapsed, "
        "time to go not known yet"
    )


def test_a_line_shows_steps_rate_and_time_left_while_no_unit_is_finished():
    clock = Clock()
    progress = Progress(10, 0, io.StringIO(), clock=clock)
    seen(progress, clock, restoring, 55)
    # 100 of 200 calls: 50 s are left, and six faces a minute
    assert progress.line() == (
        "0/10 images (55%), 10 faces to restore, 5 done, 95 of about 190 steps, 6.0 faces/min, 55 s elapsed, "
        "about 50 s to go"
    )


def test_steps_are_counted_exactly_once_every_face_is_decided():
    clock = Clock()
    progress = Progress(10, 0, io.StringIO(), clock=clock)
    seen(progress, clock, restoring, 103)
    assert ", 9 done, 186 of 190 steps, " in progress.line()


def test_what_is_restored_is_said_to_be_delivered_without_a_rate_that_decays():
    clock = Clock()
    progress = Progress(10, 0, io.StringIO(), clock=clock)
    seen(progress, clock, lambda t: restoring(min(t, 105)), 150)
    assert progress.line() == (
        "0/10 images (99%), 10 faces to restore, 10 done, 190 of 190 steps, delivering the last pictures, "
        "2:30 min elapsed"
    )


def test_the_share_grows_by_steps_and_never_falls():
    clock, shares = Clock(), []
    progress = Progress(10, 0, io.StringIO(), clock=clock)
    known = [WorkCounts()]
    progress.follow(lambda: known[0], engines=1)
    for t in range(1, 120):
        clock.now += 1
        known[0] = restoring(t) if t != 60 else WorkCounts()  # once the board has forgotten all
        progress.refresh()
        shares.append(progress.share)
    assert shares == sorted(shares) and len(set(shares)) > 100
    # all is restored and nothing delivered
    assert shares[-1] == 0.99
    progress.add(10, 10, 0)
    assert progress.share == 1


def test_a_run_that_goes_on_counts_only_what_is_left():
    clock = Clock()
    progress = Progress(110, 100, io.StringIO(), clock=clock)
    seen(progress, clock, restoring, 3)
    assert progress.line().startswith(
        "100/110 images (91%), 6 of 10 read, 6 faces to restore, loading networks"
    )


def test_a_second_pass_begins_its_counts_anew():
    clock = Clock()
    progress = Progress(20, 0, io.StringIO(), clock=clock)
    seen(progress, clock, restoring, 30)
    progress.add(10, 10, 1)
    seen(progress, clock, restoring, 4)
    assert progress.line().startswith("10/20 images (")
    assert (
        ", 8 of 10 read, 8 faces to restore, loading networks (0 of 1 engines ready), 1 failed, "
        in progress.line()
    )


def test_a_pass_that_restores_nothing_says_nothing_of_engines():
    clock = Clock()
    progress = Progress(10, 0, io.StringIO(), bad="unreadable", clock=clock)
    progress.follow(lambda: WorkCounts(pictures=4, faces=7))
    for _ in range(5):
        clock.now += 1
        progress.refresh()
    assert progress.line() == ("0/10 images (40%), 4 of 10 read, 7 faces found, 5 s elapsed, about 5 s to go")


def test_a_board_that_died_leaves_what_is_finished():
    clock, known = Clock(), [restoring(10)]
    progress = Progress(10, 0, io.StringIO(), now="starting workers", clock=clock)
    progress.follow(lambda: known[0], engines=1)
    clock.now += 5
    progress.refresh()
    known[0] = None
    progress.refresh()
    progress.add(2, 2, 0)
    assert progress.line() == "2/10 images (20%), 2 faces, 0 failed, 0.40 images/s, 5 s elapsed, 20 s to go"


def test_the_last_line_is_of_what_was_counted_with_add():
    out, clock = io.StringIO(), Clock()
    with Progress(10, 0, out, interval=1000, clock=clock) as progress:
        seen(progress, clock, lambda t: restoring(t) + restoring(t), 100)
        progress.add(10, 9, 1)
    last = out.getvalue().splitlines()[-1]
    assert last == "10/10 images (100%), 9 faces, 1 failed, 0.10 images/s, 1:40 min elapsed, 0 s to go"


def test_a_terminal_shows_a_bar_that_moves_by_steps_and_no_lines():
    out, clock = Terminal(), Clock()
    with Progress(10, 0, out, interval=1000, now="starting Ray", clock=clock) as progress:
        assert "0% |" in out.getvalue() and "0/10 images, starting Ray, 0 s" in out.getvalue()
        seen(progress, clock, restoring, 55)
        progress._draw(progress._bar)
        assert "55% |" in out.getvalue()
        assert (
            "0/10 images, about 50 s to go, 10 faces to restore, 5 done, 95 of about 190 steps"
            in out.getvalue()
        )
        progress.add(10, 9, 1)
    assert "100% |" in out.getvalue() and "| 10/10 images, 9 faces, 1 failed, 55 s" in out.getvalue()
    # one row that is drawn again and again
    assert out.getvalue().count("\n") == 1


def test_a_bar_without_counts_shows_what_was_counted():
    out, clock = Terminal(), Clock()
    with Progress(10, 2, out, interval=1000, bad="different", clock=clock) as progress:
        clock.now += 6
        progress.add(3, 4, 1)
        progress._draw(progress._bar)
        assert (
            "50% |" in out.getvalue()
            and "| 5/10 images, 4 faces, 1 different, 6 s, 10 s to go" in out.getvalue()
        )


def test_a_message_is_printed_above_the_bar():
    out = Terminal()
    with Progress(10, 0, out, interval=1000, now="starting Ray"):
        write_line("warning: something", out)
    assert "warning: something\n" in out.getvalue()


def test_a_narrow_terminal_cuts_the_text_and_keeps_one_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    out, clock = Terminal(), Clock()
    with Progress(10, 0, out, interval=1000, clock=clock) as progress:
        progress._bar.dynamic_ncols, progress._bar.ncols = None, 40
        seen(progress, clock, restoring, 55)
        progress._draw(progress._bar)
    rows = [row for row in re.split(r"[\r\n]", out.getvalue()) if "0/10 images" in row]
    assert rows[-1].startswith(" 55% |") and all(len(row.rstrip()) <= 40 for row in rows[-1:])


def test_counting_and_showing_go_on_at_once():
    clock, out = Clock(), io.StringIO()
    with Progress(2000, 0, out, interval=0.001, clock=clock) as progress:
        progress.follow(lambda: WorkCounts(pictures=1, faces=1), engines=1)
        threads = [
            threading.Thread(target=lambda: [progress.add(1, 1, 0) for _ in range(500)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert out.getvalue().splitlines()[-1].startswith("2000/2000 images (100%), 2000 faces, 0 failed")


def test_waiting_is_said_only_where_it_takes_longer_than_a_moment():
    out = io.StringIO()
    with WaitNotice("listing the input", out=out, delay=1000):
        pass
    assert out.getvalue() == ""
    found = iter(range(10, 10**6))
    with WaitNotice("listing the input", (lambda: next(found), "files"), out, delay=0.01, interval=0.01):
        give_up = time.monotonic() + 60
        while out.getvalue().count("\n") < 2 and time.monotonic() < give_up:
            time.sleep(0.01)
    lines = out.getvalue().splitlines()
    assert lines[:2] == [
        "listing the input, 10 files, 0 s elapsed", "listing the input, 11 files, 0 s elapsed"
    ]  # fmt: skip


def test_what_is_awaited_is_counted(capsys):
    seen = ""

    def results():
        nonlocal seen
        yield "a"
        give_up = time.monotonic() + 60
        while "\n" not in seen and time.monotonic() < give_up:
            time.sleep(0.01)
            seen += capsys.readouterr().err
        yield "b"

    assert counted(results(), "making the set", 2, "pictures", delay=0.01) == ["a", "b"]
    assert re.match(r"making the set, [01] of 2 pictures, 0 s elapsed\n", seen)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (725, "12:05 min"), (12_000, "3:20 h"), (362_880, "4.2 days")]
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0, 5), (1, 5), (47, 45), (119, 120), (725, 720), (12_100, 12_000)]
)
def test_an_estimate_has_few_digits_and_is_never_nothing(seconds, wanted):
    assert rounded(seconds) == wanted
