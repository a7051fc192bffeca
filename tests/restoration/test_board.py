"""WorkCounts from the workers to the driver, over a real local Ray; and that no stage suffers where none arrive."""

import threading
import time
from collections.abc import Callable

import pytest
import ray

from pipeline.console.work_counts import Report, WorkCounts
from pipeline.restoration import board as room
from pipeline.restoration.board import Board, Reporter
from pipeline.restoration.flow import connect, run_tasks

WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def local_ray():
    ray.shutdown()
    connect(None)
    yield
    ray.shutdown()


class Reads:
    """Row → the same row; reports a picture with two faces."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, row: dict) -> dict:
        self._report(WorkCounts(pictures=1, faces=2))
        return row


def polled(board: Board, wanted: Callable[[WorkCounts | None], bool]) -> WorkCounts | None:
    """What the board says once that is as wanted, or after a long while."""
    give_up = time.monotonic() + WAIT_SECONDS
    while not wanted(known := board.poll()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return known


@pytest.mark.slow
def test_what_workers_report_comes_to_the_driver_and_stays_after_they_have_ended(local_ray):
    board = Board(pytest.fail)
    assert board.poll() is None
    rows = [{"unit": str(i)} for i in range(6)]
    assert {row["unit"] for row in run_tasks(rows, Reads(board.report))} == {row["unit"] for row in rows}
    assert polled(board, lambda known: known == WorkCounts(pictures=6, faces=12)) == WorkCounts(
        pictures=6, faces=12
    )
    board.close()


@pytest.mark.slow
def test_threads_of_one_process_share_their_sums_and_boards_do_not(local_ray):
    one, other = Board(pytest.fail), Board(pytest.fail)
    threads = [
        threading.Thread(target=lambda: [one.report(WorkCounts(steps=1)) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    other.report(WorkCounts(faces=1))
    for thread in threads:
        thread.join()
    assert polled(one, lambda known: known == WorkCounts(steps=2000)) == WorkCounts(steps=2000)
    assert polled(other, lambda known: known == WorkCounts(faces=1)) == WorkCounts(faces=1)
    one.close()
    other.close()


@pytest.mark.slow
def test_a_process_reports_again_what_a_board_that_died_had_heard(local_ray):
    board = Board(pytest.fail)
    board.report(WorkCounts(pictures=3))
    assert polled(board, lambda known: known == WorkCounts(pictures=3)) == WorkCounts(pictures=3)
    ray.kill(board._actor, no_restart=False)

    def heard_again(known: WorkCounts | None) -> bool:
        board.report(WorkCounts(steps=1))
        return known is not None and known.pictures == 3 and known.steps > 0

    assert heard_again(polled(board, heard_again))
    board.close()


@pytest.mark.slow
def test_a_dead_board_harms_no_unit_and_is_asked_without_waiting(local_ray):
    board = Board(pytest.fail)
    report, actor = board.report, board._actor
    polled(board, lambda known: known is not None)
    ray.kill(actor)
    rows = [{"unit": str(i)} for i in range(3)]
    assert len(list(run_tasks(rows, Reads(report)))) == 3
    assert polled(board, lambda known: known is None) is None
    board.close()
    assert board.poll() is None
    report(WorkCounts(pictures=1))


def test_without_a_board_nothing_is_known_and_reporting_does_nothing(monkeypatch):
    def no_cluster() -> None:
        raise RuntimeError("no cluster")

    monkeypatch.setattr(room.ray, "get_runtime_context", no_cluster)
    said = []
    board = Board(said.append)
    assert said == ["warning: progress is shown by finished units only, no actor could be made: no cluster"]
    board.report(WorkCounts(pictures=1))
    assert board.poll() is None
    board.close()


def test_a_reporter_whose_board_can_not_be_reached_raises_nothing():
    class Gone:
        """An actor's handle without its cluster."""

        @property
        def _actor_id(self) -> bytes:
            raise RuntimeError("Ray has been shut down")

    Reporter(Gone())(WorkCounts(pictures=1))
