"""What the jobs show while they work: the workers' own counts, over a real Ray, and the books' at the end."""

import json
import time

import pytest
from photographs import portraits, write_folder

from jobs import clean
from pipeline.console.work_counts import WorkCounts
from pipeline.restoration.board import Board

PICTURES = 4
WAIT_SECONDS = 60


@pytest.fixture
def heard(monkeypatch) -> list[WorkCounts]:
    """The last sums of each board, once every picture is counted."""
    found, close = [], Board.close

    def listen_first(board: Board) -> None:
        give_up = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < give_up:
            known = board.poll() or WorkCounts()
            if known.pictures == PICTURES:
                break
            time.sleep(0.05)
        found.append(known)
        close(board)

    monkeypatch.setattr(Board, "close", listen_first)
    return found


def test_a_restoration_is_shown_by_its_pictures_faces_and_steps(restore, heard, tmp_path, capsys):
    write_folder(tmp_path / "in", portraits(PICTURES))
    assert restore(tmp_path / "in", tmp_path / "out", "--unit-images", "3") == 0
    markers = [json.loads(m.read_bytes()) for m in (tmp_path / "out" / "_ledger" / "done").rglob("*.json")]
    steps = int(sum(m["sums"]["slot_steps"] for m in markers))
    assert steps > PICTURES
    (sums,) = heard
    assert (sums.pictures, sums.faces, sums.loading) == (PICTURES, PICTURES, 1)
    # an engine whose work is done is ended with what it had to say in its last second
    assert sums.restored <= sums.decided <= PICTURES and sums.steps <= sums.steps_planned <= steps
    said = capsys.readouterr().err
    assert "0/4 images, starting Ray, 0 s elapsed\n" in said
    assert "0/4 images, starting workers, " in said
    assert "\n4/4 images (100%), 4 faces, 0 failed, " in said


def test_a_measurement_is_shown_by_its_pictures(restore, heard, tmp_path, capsys):
    write_folder(tmp_path / "in", portraits(PICTURES))
    places = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert clean.main([*places, "--mlflow-uri", restore.mlflow_uri, "--dry-run"]) == 0
    assert heard == [WorkCounts(pictures=PICTURES, faces=PICTURES)]
    assert "\n4/4 images (100%), 4 faces, 0 unreadable, " in capsys.readouterr().err
