"""The status of a cleaning from its files: before, during and after a start, and where they are damaged."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import status as job
from pipeline.cleaning.note import NOTE, Note
from pipeline.cleaning.status import CleaningObserver, CleaningState, is_cleaning
from pipeline.cleaning.status_text import exit_code, lines
from pipeline.cleaning.versions import MANIFEST, MEASURED, Version, manifest_path, table_bytes, write_version
from pipeline.ledger.lease import Start, process_identity

BEGAN = 1_700_000_000.0
NOTED = Note(2, "s3://name:word@in/photos", "measuring", BEGAN, 3, 6, 1, 2, "measurements/m")
ROWS = [
    {"name": "a", "verdict": "keep", "reason": "sharp", "problem": ""},
    {
        "name": "b",
        "verdict": "drop",
        "reason": "unreadable",
        "problem": "truncated",
        "detail": "b: ends early",
    },
]
VERSION = Version(
    1, 0, "", "in", "l", "s", "m", {}, "", "", "", 2, {"keep": 1, "drop": 1}, {"sharp": 1, "unreadable": 1},
    {"unreadable": 1}, 2, {}, {}, 0,
)  # fmt: skip


def save(output: Path, version: Version = VERSION) -> Version:
    """Write a version with ROWS."""
    import hashlib

    body = table_bytes(pa.Table.from_pylist(ROWS, schema=MANIFEST))
    digest = hashlib.sha256(body).hexdigest()
    made = replace(version, manifest=manifest_path(version.number, digest), manifest_sha256=digest)
    assert write_version(str(output), made, body)
    return made


def start(output: Path, **values: object) -> None:
    """The file of a start of this process, or of one that ended."""
    pid = os.getpid()
    made = Start(1, socket.gethostname(), pid, process_identity(pid), BEGAN, BEGAN)
    path = output / made.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(replace(made, **values).to_json())


def measure(output: Path, *units: str) -> None:
    """Measurements of two pictures each, of which one has two faces and the other is cut off."""
    for unit in units:
        rows = [{"name": f"{unit}1", "problem": "", "faces": 2}, {"name": f"{unit}2", "problem": "truncated"}]
        path = output / "measurements" / "m" / f"{unit}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(table_bytes(pa.Table.from_pylist(rows, schema=MEASURED)))


def look(output: Path, seconds: float = 10.0) -> CleaningState:
    return CleaningObserver(str(output)).look(now=BEGAN + seconds)


def shown(state: CleaningState) -> list[str]:
    return [" ".join(line.split()) for line in lines(state)]


def test_a_version_is_complete_with_its_counts_and_its_unreadable_pictures(tmp_path, capsys):
    save(tmp_path)
    state = look(tmp_path)
    assert state.complete and exit_code(state) == 0
    assert {"pictures 2 in version 1", "sharp 1", "unreadable 1"} <= set(shown(state))
    assert state.errors == [{"name": "b", "problem": "truncated", "detail": "b: ends early"}]
    assert job.main(["--output", str(tmp_path), "--watch", "0.01", "--json", "-"]) == 0
    [values] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (values["kind"], values["version"], values["exit_code"]) == ("cleaning", 1, 0)


def test_a_start_at_work_is_shown_with_its_rate_and_the_time_left(tmp_path):
    save(tmp_path)
    start(tmp_path)
    NOTED.write(str(tmp_path))
    measure(tmp_path, "u0", "u1", "u2")
    state = look(tmp_path)
    assert (state.units_done, state.units_planned, state.images_measured, state.images_planned) == (
        3,
        4,
        6,
        8,
    )
    # of the six, two were measured before: four in ten seconds
    assert state.images_per_second == pytest.approx(0.4) and state.seconds_left == pytest.approx(5)
    assert (state.faces, state.problems_of_pictures) == (6, {"truncated": 3})
    assert exit_code(state) == 4 and not state.complete
    text = shown(state)
    assert "making version 2: measuring" in text and "pictures 6 of 8 measured (75%)" in text
    assert not any("word" in line for line in text) and "pictures 2 in version 1" in text


@pytest.mark.parametrize(
    ("ended", "making", "code"),
    [
        ({"exit_code": 0}, 2, 0),
        ({"exit_code": 5}, 2, 0),
        ({"exit_code": 130}, 2, 4),
        ({}, 2, 4),
        # it was killed after its version was written
        ({}, 1, 0),
    ],
)
def test_a_start_that_ended_is_unfinished_unless_it_did_its_work(tmp_path, ended, making, code):
    save(tmp_path)
    replace(NOTED, version=making).write(str(tmp_path))
    start(tmp_path, process="of another boot", **ended, ended_at=BEGAN if ended else None)
    state = look(tmp_path, 1000)
    assert exit_code(state) == code
    assert any("goes on" in line for line in shown(state)) == (code == 4)


def test_a_cleaning_without_a_version_is_not_finished(tmp_path):
    NOTED.write(str(tmp_path))
    state = look(tmp_path)
    assert exit_code(state) == 4 and "no version yet" in shown(state)[0]


def test_damage_is_named_and_not_fatal(tmp_path):
    made = save(tmp_path, replace(VERSION, images=3))
    measure(tmp_path, "u0", "u1")
    (tmp_path / "measurements/m/u1.parquet").write_bytes(b"no table")
    NOTED.write(str(tmp_path))
    (tmp_path / made.manifest).unlink()
    state = look(tmp_path)
    assert exit_code(state) == 1
    for part in ("is gone", "verdicts of 3 pictures, got 2", "measurements/m/u1.parquet: expected"):
        assert any(part in sentence for sentence in state.problems)
    (tmp_path / NOTE).write_text("[]")
    (tmp_path / made.path).write_text("{")
    state = look(tmp_path)
    assert state.version is None and len(state.problems) == 2 and exit_code(state) == 1


def test_an_output_is_a_cleaning_by_its_files_and_another_folder_is_refused_in_a_sentence(tmp_path, capsys):
    assert not is_cleaning(str(tmp_path))
    assert job.main(["--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "give the --output of a jobs.restore or jobs.clean command" in said and said.count("\n") == 1
    NOTED.write(str(tmp_path))
    assert is_cleaning(str(tmp_path))
    (tmp_path / "_ledger/run.json").write_text("{}")
    assert not is_cleaning(str(tmp_path))
