"""Where a job's MLflow store lies, by what address it is opened, and what is typed to look at it."""

import os
import re
import shlex
import sqlite3
from pathlib import Path

import pytest

from pipeline.tracking import address
from pipeline.tracking.address import (
    NO_TRACKING,
    absolute_uri,
    database_path,
    default_uri,
    settle_uri,
    ui_command,
)
from pipeline.tracking.lookup import find_outputs
from pipeline.tracking.tracker import RunTracker


def test_the_store_lies_beside_a_local_output_and_in_the_working_folder_for_a_remote_one(tmp_path):
    assert default_uri(str(tmp_path / "runs" / "one")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert default_uri(f"file://{tmp_path}/runs/one/") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert default_uri("s3://bucket/out") == "sqlite:///mlflow.db"


ALBUMS = ["album (1890?)", "a#b", "100%41 of 写真", "%3F?x=1&uri=false", "plain"]


@pytest.mark.parametrize("name", ALBUMS)
def test_the_address_of_a_store_is_read_back_as_its_path_whatever_letters_that_has(tmp_path, name):
    (tmp_path / name).mkdir()
    uri = default_uri(str(tmp_path / name / "out"))
    assert database_path(uri) == tmp_path / name / "mlflow.db"
    # an address has one `?` at most, before its options, and a % only before the number of a letter
    assert "?" not in uri and "#" not in uri


def test_a_store_lies_where_it_belongs_below_a_folder_with_a_question_mark(tmp_path, monkeypatch):
    """And nowhere else: no folder of a like name appears, neither there nor in the working folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    folder = tmp_path / "100%41" / "album (1890?)#2"
    (folder / "out").mkdir(parents=True)
    (folder / "out" / "sheet.txt").write_text("faces")
    uri = default_uri(str(folder / "out"))
    said: list[str] = []
    for step in (1, 2):
        state = str(folder / "out" / "tracking.json")
        params = {"output": str(folder / "out")}
        tracker = RunTracker.open(uri, "album", "a", params=params, state_uri=state, warn=said.append)
        tracker.log_shard(step, {"faces": 3.0}, 1_700_000_000_000 + step)
        tracker.log_artifact(str(folder / "out" / "sheet.txt"), "report/sheet.txt")
        assert tracker.finish() == 0
    assert said == []
    assert find_outputs(uri, "a") == find_outputs(uri, str(tracker.run_id)) == [str(folder / "out")]
    with sqlite3.connect(folder / "mlflow.db") as connection:
        assert connection.execute("select count(*) from metrics where key = 'faces'").fetchall() == [(2,)]
    assert [p.read_text() for p in (folder / "mlartifacts").rglob("sheet.txt")] == ["faces"]
    assert {p.name for p in tmp_path.iterdir()} == {"here", "100%41"}
    assert {p.name for p in (tmp_path / "100%41").iterdir()} == {folder.name}
    assert {p.name for p in folder.iterdir()} == {"out", "mlflow.db", "mlartifacts"}
    assert list(here.iterdir()) == []


def test_the_ui_of_a_store_in_such_a_folder_is_opened_from_within_it(tmp_path):
    """An address of it would make MLflow's server leave a folder beside it."""
    folder = tmp_path / "it's 50% (1890?)"
    folder.mkdir()
    command = ui_command(default_uri(str(folder / "out")))
    assert command.startswith("(cd ") and command.endswith(" --backend-store-uri sqlite:///mlflow.db)")
    words = shlex.split(command.strip("()"))
    assert words[:3] == ["cd", str(folder), "&&"]
    assert os.path.isabs(words[4]) and words[5] == "ui"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////data/my runs/mlflow.db", "/data/my runs/mlflow.db"),
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////data/mlflow.db?timeout=60", "/data/mlflow.db"),
        ("sqlite:////a:b/mlflow.db", "/a:b/mlflow.db"),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:/data/mlflow.db?uri=true", None),
        ("sqlite://", None),
        ("postgresql://me@db/mlflow", None),
        ("http://host:5000", None),
        ("none", None),
    ],
)
def test_only_the_address_of_a_sqlite_file_has_a_path(uri, path):
    assert database_path(uri) == (path and Path(path))


def test_the_path_of_a_store_is_made_absolute_for_processes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "why?").mkdir()
    monkeypatch.chdir(tmp_path / "why?")
    uri = absolute_uri("sqlite:///a/mlflow.db?timeout=60")
    assert uri == f"sqlite:///{tmp_path}/why%3F/a/mlflow.db?timeout=60"
    assert absolute_uri(uri) == uri
    assert absolute_uri("http://host:5000") == "http://host:5000"


def test_a_job_is_tracked_where_it_is_said_else_where_the_environment_says_else_beside_its_output(
    tmp_path, monkeypatch
):
    output = str(tmp_path / "out")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert settle_uri(None, output) == default_uri(output)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert settle_uri(None, output) == "http://mlflow:5000"
    assert settle_uri("sqlite:///mine.db", output) == "sqlite:///mine.db"
    assert settle_uri(NO_TRACKING, output) == NO_TRACKING
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert settle_uri(None, output) == default_uri(output)


def test_nobody_but_the_one_function_settles_where_a_job_is_tracked():
    """Every job with the option asks it: none reads the environment, or takes the default, by itself."""
    root = Path(address.__file__).parents[2]
    modules = {f: f.read_text() for folder in ("jobs", "pipeline") for f in (root / folder).rglob("*.py")}
    own = {
        f.name for f, text in modules.items() if re.search(r"default_uri\(|environ.*MLFLOW_TRACKING", text)
    }
    assert own == {"address.py"}
    opening = {f.parent.name for f, text in modules.items() if "RunTracker.open" in text} - {"tracking"}
    asking = {f.parent.name for f, text in modules.items() if "settle_uri(" in text} - {"tracking"}
    assert opening == asking == {"restoration", "cleaning", "compare", "evaluation", "training"}


def test_the_ui_command_is_a_command_line_without_secrets():
    words = shlex.split(ui_command("sqlite:////data/my runs/mlflow.db"))
    assert words[-2:] == ["--backend-store-uri", "sqlite:////data/my runs/mlflow.db"]
    assert os.path.basename(words[1]) == "mlflow"
    assert "hunter2" not in ui_command("postgresql://me:hunter2@db/mlflow")
    assert ui_command("http://me:hunter2@host:5000") == "python -m webbrowser 'http://***@host:5000'"
