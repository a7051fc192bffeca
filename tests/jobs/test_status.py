"""The job that shows the status of a run, on a real run; and what its --retry does again."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from photographs import encoded, mixed, portrait, write_folder
from PIL import Image

from jobs import status as job
from pipeline.io import store
from pipeline.ledger.output import open_run
from pipeline.ledger.plan import load_units, read_plan
from pipeline.ledger.status import Observer
from pipeline.ledger.watch import CLEAR_SCREEN
from pipeline.reporting.text import printable
from pipeline.verify.unit import audit_unit

# Three units of two pictures: restored and cut off; no_face and animated; empty and a letter.
PHOTOS = ("a portrait.png", "b cut off.jpg", "c cat.png", "d moving.gif", "e empty.jpg", "f letter.jpg")
FAILED = (PHOTOS[1], *PHOTOS[4:])
OPTIONS = ("--unit-images", "2", "--max-error-rate", "0.5")
LAST = "_ledger/done/images-00000/0002.json"

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    archive = mixed()
    dark, light = (Image.new("L", (20, 20), level) for level in (0, 255))
    moving = encoded(dark, "GIF", save_all=True, append_images=[light])
    cut_off, *broken = (archive[f"broken/{name}.jpg"] for name in ("cut off", "empty", "letter"))
    contents = [encoded(portrait(), "PNG"), cut_off, archive["cat.png"], moving, *broken]
    return write_folder(
        tmp_path_factory.mktemp("status") / "photos", dict(zip(PHOTOS, contents, strict=True))
    )


@pytest.fixture(scope="module")
def finished(photos, restore) -> Path:
    """A run that came to its end; never tampered with."""
    output = photos.parent / "out"
    assert restore(photos, output, *OPTIONS) == 0
    return output


@pytest.fixture
def output(finished, tmp_path) -> Path:
    """A copy of it to tamper with."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


class Shown(NamedTuple):
    """What one call of the job gave."""

    code: int
    out: str
    err: str

    @property
    def looks(self) -> list[dict[str, Any]]:
        """The states of `--json -`."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def status(capsys):
    """Runs the job in this process."""

    def run(output: Path, *options: str) -> Shown:
        capsys.readouterr()
        try:
            code = job.main(["--output", str(output), *options])
        except SystemExit as stop:
            code = stop.code
        return Shown(code, *capsys.readouterr())

    return run


def image_rows(output: Path) -> dict[str, dict[str, Any]]:
    """The records of the images by name."""
    files = sorted((output / "records").iterdir())
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {row["member"]: row for row in rows if row["kind"] == "image"}


def test_a_finished_run_is_shown_with_outcomes_reasons_and_errors(finished, status):
    shown = status(finished)
    assert (shown.code, shown.err) == (0, "")
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines[0].startswith("out, preset small-srcnn, fingerprint ")
    for line in (
        "shards 1 of 1 planned, 1 with failures",
        "units 3 of 3 planned",
        "images 6 of 6 planned (100%)",
        "faces 1",
        "left as it was 0",
        "by diffusion 1",
        "restored 1",
        "1 read: animated",
        "failed 3",
        "1 read: truncated",
        "1 read: not an image",
        "exit code 0 complete, every image accounted for",
        "images-00000-0002 f letter.jpg [read: not an image] the bytes are of no picture format that is known here",
    ):
        assert line in lines
    assert "the run is complete" in shown.out and "time left" not in shown.out


def test_the_json_says_the_same_and_goes_to_a_file_or_to_the_output(finished, status, tmp_path):
    [printed] = status(finished, "--json", "-").looks
    assert status(finished, "--json", str(tmp_path / "state.json")).out.startswith("out, preset")
    written = json.loads((tmp_path / "state.json").read_bytes())
    assert {k for k in printed if printed[k] != written[k]} == {"read_at"}
    assert (printed["exit_code"], printed["complete"], printed["problems"]) == (0, True, [])
    assert printed["outcomes"] == {"restored": 1, "no_face": 1, "skipped": 1, "failed": 3}
    assert printed["images_per_second"] > 0
    rows = image_rows(finished)
    failures = {e["member"]: e for e in printed["errors"]}
    assert failures.keys() == set(FAILED)
    for name, failure in failures.items():
        assert {k: rows[name][k] for k in failure} == failure
        assert "pipeline/io/decoding.py:" in failure["traceback"] and failure["attempts"] == 1
    assert len(status(finished, "--json", "-", "--errors", "1").looks[0]["errors"]) == 1


def test_only_failures_have_a_traceback_and_it_names_no_folder_of_this_machine(finished):
    rows = image_rows(finished)
    assert {name for name, row in rows.items() if row["traceback"]} == set(FAILED)
    here = (str(Path(job.__file__).parents[1]), sys.prefix, str(finished.parent))
    assert not any(place in row["traceback"] for row in rows.values() for place in here)
    assert {row["attempts"] for row in rows.values()} == {1}


def test_an_unfinished_run_exits_with_four(output, status):
    (output / LAST).unlink()
    shown = status(output)
    assert shown.code == 4
    assert "4  of 6 planned (67%)" in shown.out and "not finished" in shown.out
    assert "e empty.jpg" not in shown.out and "b cut off.jpg" in shown.out


def test_books_that_do_not_balance_exit_with_one_and_say_why(output, status):
    (output / LAST).write_bytes(b"{")
    shown = status(output)
    assert shown.code == 1
    assert f"  {LAST}: a whole marker was wanted" in shown.out
    assert f"{'units':<14} {2:>10}  of 3 planned" in shown.out


def test_watching_ends_when_the_run_is_complete(output, status):
    marker = (output / LAST).read_bytes()
    (output / LAST).unlink()

    def finish() -> None:
        time.sleep(0.5)
        (output / LAST).write_bytes(marker)

    worker = threading.Thread(target=finish)
    worker.start()
    shown = status(output, "--watch", "0.05", "--json", "-")
    worker.join()
    codes = [look["exit_code"] for look in shown.looks]
    assert shown.code == 0 and len(codes) > 2
    assert codes == [4] * (len(codes) - 1) + [0]


def test_watching_ends_when_nothing_more_is_to_come(output, status):
    (output / LAST).write_bytes(b"{")
    assert status(output, "--watch", "0.05").code == 1


def test_watching_outlives_a_server_that_is_away(output, status, monkeypatch):
    (output / LAST).rename(output / "aside")
    look, looks = Observer.look, []

    def unsteady(self: Observer, errors: int) -> Any:
        looks.append(errors)
        if len(looks) == 2:
            raise store.StoreError("the server does not answer")
        if len(looks) == 3:
            (output / "aside").rename(output / LAST)
        return look(self, errors)

    monkeypatch.setattr(Observer, "look", unsteady)
    shown = status(output, "--watch", "0.01", "--errors", "2")
    assert (shown.code, looks) == (0, [2, 2, 2])
    assert shown.err == "warning: the server does not answer; looking again in 0.01 s\n"


def test_a_terminal_is_cleared_before_each_look_and_names_can_not_move_its_cursor(
    finished, status, monkeypatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert status(finished, "--watch", "1").out.startswith(CLEAR_SCREEN)
    assert CLEAR_SCREEN not in status(finished).out
    assert printable("a\x1b[2J\nb\udce9 é") == "a\\x1b[2J\\nb\\udce9 é"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--errors", "-1"], "error: --errors must not be negative, got -1"),
        (["--watch", "0"], "error: --watch must be above 0, got 0.0"),
        (["--watch", "nan"], "error: --watch must be above 0, got nan"),
    ],
)
def test_wrong_arguments_exit_with_two(finished, status, options, said):
    shown = status(finished, *options)
    assert (shown.code, shown.out, shown.err) == (2, "", f"{said}\n")


def test_a_place_without_a_run_exits_with_two(photos, status):
    shown = status(photos)
    assert (shown.code, shown.out) == (2, "")
    assert "holds no run" in shown.err and shown.err.count("\n") == 1


def test_a_retry_does_the_units_of_one_reason_again_and_counts_the_attempt(
    photos, output, restore, status, capsys
):
    before = {p.name: p.read_bytes() for p in (output / "images").iterdir()}
    marked = {p.name: p.read_bytes() for p in (output / "_ledger/done/images-00000").iterdir()}
    assert restore(photos, output, *OPTIONS, "--retry", "failed", "--reason", "truncated") == 0
    assert "1 of them are done again because images failed" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in (output / "images").iterdir()} == before
    again = {
        p.name for p in (output / "_ledger/done/images-00000").iterdir() if p.read_bytes() != marked[p.name]
    }
    assert again == {"0000.json"}
    assert {name: row["attempts"] for name, row in image_rows(output).items()} == dict(
        zip(PHOTOS, (2, 2, 1, 1, 1, 1), strict=True)
    )
    shown = status(output)
    assert shown.code == 0 and shown.out.count("(attempt 2)") == 1
    run, [planned] = open_run(str(output))[0], read_plan(str(output)).shards
    audited = [audit_unit(run, unit, True, sample=1) for unit in load_units(str(output), planned.shard)]
    assert [a.findings for a in audited] == [[], [], []]
    assert [[c.unit.attempts for c in a.candidates] for a in audited] == [[2], [], []]


def test_a_retry_that_nothing_failed_for_says_so_and_does_nothing(photos, output, restore, capsys):
    assert restore(photos, output, *OPTIONS, "--retry", "failed", "--reason", "paste") == 0
    assert "nothing to retry: no image failed for paste" in capsys.readouterr().err
    assert not (output / "_ledger/retries.json").exists()
