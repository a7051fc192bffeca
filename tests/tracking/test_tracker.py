"""Tracking against a real SQLite store and a real server that comes and goes."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_server import MlflowServer

from pipeline.io.errors import reason_of, redact
from pipeline.tracking.address import NO_TRACKING
from pipeline.tracking.delivery import Delivered, grouped, make_point
from pipeline.tracking.tracker import RunTracker

FIRST_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store for all tests of this file: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    one = MlflowServer(tmp_path)
    yield one
    one.kill()


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "output" / "_ledger" / "tracking.json")


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs(uri: str, experiment: str) -> list[Any]:
    found = client(uri).get_experiment_by_name(experiment)
    return list(client(uri).search_runs([found.experiment_id])) if found else []


def history(uri: str, run_id: str, key: str = "faces") -> list[tuple[int, int, float]]:
    return sorted((m.step, m.timestamp, m.value) for m in client(uri).get_metric_history(run_id, key))


def log_shards(tracker: RunTracker, steps: range) -> None:
    for step in steps:
        metrics = {"faces": 3.0 * step, "images": 64, "seconds/read": step / 7}
        tracker.log_shard(step, metrics, FIRST_MS + step)


def expected(steps: range) -> list[tuple[int, int, float]]:
    return [(step, FIRST_MS + step, 3.0 * step) for step in steps]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.05)


def test_a_run_holds_params_tags_shards_input_artifact_and_images(database, state, tmp_path):
    report = tmp_path / "contact.html"
    report.write_text("<p>faces</p>")
    tracker = RunTracker.open(
        database,
        "everything",
        "first run",
        params={"eta": 0.5, "preset": "small-swinir", "odd*name": "x" * 7000},
        tags={"input": "http://me:secret@host/pictures"},
        state_uri=state,
    )
    log_shards(tracker, range(700))
    tracker.log_metrics(10, {"train/loss": 0.25, "nothing": float("nan")})
    tracker.log_artifact(str(report), "report/index.html")
    tracker.log_image("contact sheet", np.full((40, 60, 3), 200, np.uint8), step=2)
    tracker.log_input("s3://bucket/photos", "f" * 64)
    tracker.set_tags({"outcome": "complete"})
    assert tracker.finish() == 0

    (run,) = runs(database, "everything")
    assert run.info.run_id == tracker.run_id
    assert (run.info.run_name, run.info.status) == ("first run", "FINISHED")
    assert run.data.params == {"eta": "0.5", "preset": "small-swinir", "odd_name": "x" * 6000}
    assert run.data.tags["input"] == "http://***@host/pictures"
    assert run.data.tags["outcome"] == "complete"
    assert history(database, run.info.run_id) == expected(range(700))
    assert set(run.data.metrics) == {"faces", "images", "seconds/read", "train/loss"}
    (dataset,) = [i.dataset for i in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest, dataset.source_type) == ("photos", "f" * 36, "s3")
    assert json.loads(dataset.source) == {"uri": "s3://bucket/photos"}
    artifacts = client(database)
    assert [f.path for f in artifacts.list_artifacts(run.info.run_id, "report")] == ["report/index.html"]
    images = [f.path for f in artifacts.list_artifacts(run.info.run_id, "images")]
    assert any(path.startswith("images/contact sheet+step+2") and path.endswith(".png") for path in images)
    beside = Path(database.removeprefix("sqlite:///")).with_name("mlartifacts")
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(beside)


def test_a_second_start_continues_the_run_and_sends_only_what_is_missing(database, state):
    picture = np.zeros((8, 8, 3), np.uint8)
    first = RunTracker.open(database, "resumed", "a", params={"eta": 0.5, "slots": 8}, state_uri=state)
    log_shards(first, range(5))
    first.log_metrics(100, {"loss": 1.0})
    first.log_image("sheet", picture)
    assert first.finish("KILLED") == 0

    second = RunTracker.open(database, "resumed", "a", params={"eta": 0.5, "slots": 16}, state_uri=state)
    log_shards(second, range(9))
    # a shard that was done again, with another result
    second.log_shard(2, {"faces": 99.0}, FIRST_MS + 1000)
    # a training's loop goes on from a checkpoint before the last delivered step
    second.log_metrics(100, {"loss": 1.0})
    second.log_metrics(150, {"loss": 0.5})
    second.log_image("sheet", picture)
    assert second.finish() == 0

    (run,) = runs(database, "resumed")
    assert run.info.run_id == first.run_id == second.run_id
    assert run.info.status == "FINISHED"
    assert history(database, run.info.run_id) == sorted([*expected(range(9)), (2, FIRST_MS + 1000, 99.0)])
    assert [(s, v) for s, _, v in history(database, run.info.run_id, "loss")] == [(100, 1.0), (150, 0.5)]
    assert (
        len(client(database).list_artifacts(run.info.run_id, "images")) == 2
    )  # the picture and its thumbnail
    assert run.data.params["slots"] == "8"
    assert run.data.tags["changed.slots"] == "16"


def test_a_run_is_found_again_when_the_state_lost_its_id(database, state):
    first = RunTracker.open(database, "lost answer", "a", state_uri=state)
    log_shards(first, range(3))
    assert first.finish() == 0
    kept = json.loads(Path(state).read_bytes())
    Path(state).write_bytes(Delivered(token=kept["token"]).to_json())

    second = RunTracker.open(database, "lost answer", "a", state_uri=state)
    log_shards(second, range(4))
    assert second.finish() == 0
    assert second.run_id == first.run_id
    assert history(database, str(first.run_id)) == expected(range(4))


def test_a_run_that_the_server_does_not_know_begins_anew_and_gets_everything(database, state):
    stale = Delivered("token", "0" * 32, shards=dict.fromkeys(range(6), FIRST_MS + 5), series={"loss": 9})
    Path(state).parent.mkdir(parents=True)
    Path(state).write_bytes(stale.to_json())
    tracker = RunTracker.open(database, "new database", "a", tags={"kept": "yes"}, state_uri=state)
    log_shards(tracker, range(6))
    tracker.log_metrics(3, {"loss": 2.0})
    assert tracker.finish() == 0
    (run,) = runs(database, "new database")
    assert run.info.run_id != "0" * 32
    assert history(database, run.info.run_id) == expected(range(6))
    assert run.data.metrics["loss"] == 2.0
    assert run.data.tags["kept"] == "yes"


def test_a_named_run_is_continued_and_a_deleted_one_is_not(database, state):
    first = RunTracker.open(database, "named", "a")
    log_shards(first, range(2))
    assert first.finish() == 0
    second = RunTracker.open(database, "named", "a", run_id=first.run_id, state_uri=state)
    log_shards(second, range(3))
    assert second.finish() == 0
    assert second.run_id == first.run_id
    assert history(database, str(first.run_id)) == expected(range(3))
    client(database).delete_run(first.run_id)
    third = RunTracker.open(database, "named", "a", state_uri=state)
    log_shards(third, range(3))
    assert third.finish() == 0
    assert third.run_id != first.run_id
    assert history(database, str(third.run_id)) == expected(range(3))


def test_a_missing_file_keeps_nothing_else_back_and_is_warned_of_once(database, tmp_path):
    said: list[str] = []
    tracker = RunTracker.open(database, "missing file", "a", warn=said.append)
    tracker.log_artifact(str(tmp_path / "gone.html"), "gone.html")
    tracker.log_artifact(str(tmp_path / "gone too.html"), "gone too.html")
    log_shards(tracker, range(2))
    assert tracker.flush() == 2
    assert tracker.finish() == 2
    assert len(said) == 1
    assert "gone.html" in said[0]
    (run,) = runs(database, "missing file")
    assert run.info.status == "FINISHED"
    assert history(database, run.info.run_id) == expected(range(2))


def test_an_unreadable_state_is_named_and_everything_is_sent_again(database, state):
    Path(state).parent.mkdir(parents=True)
    Path(state).write_text('{"half": ')
    said: list[str] = []
    tracker = RunTracker.open(database, "torn state", "a", state_uri=state, warn=said.append)
    log_shards(tracker, range(2))
    assert tracker.finish() == 0
    assert len(said) == 1
    assert "tracking.json" in said[0]
    assert history(database, str(tracker.run_id)) == expected(range(2))


@pytest.mark.slow
def test_a_server_that_comes_late_dies_and_returns_gets_everything_once(server, state):
    said: list[str] = []
    picture = np.zeros((8, 8, 3), np.uint8)
    began = time.monotonic()
    tracker = RunTracker.open(
        server.uri,
        "late",
        "a",
        params={"eta": 0.5},
        tags={"who": "me"},
        state_uri=state,
        interval=0.2,
        warn=said.append,
    )
    log_shards(tracker, range(10))
    tracker.log_image("sheet", picture, step=1)
    assert time.monotonic() - began < 2, "the caller waits for nothing"
    assert tracker.flush(10) == 12
    assert len(said) == 1
    assert "connection refused" in said[0]

    server.start()
    assert tracker.flush() == 0
    log_shards(tracker, range(10, 20))
    assert tracker.flush() == 0
    server.kill()
    log_shards(tracker, range(20, 30))
    assert tracker.flush() > 0
    assert len(said) == 1

    # the job ends while the server is away; its next start passes every shard again
    began = time.monotonic()
    assert tracker.finish() > 0
    assert time.monotonic() - began < 10
    server.start()
    again = RunTracker.open(server.uri, "late", "a", params={"eta": 0.5}, state_uri=state, warn=said.append)
    log_shards(again, range(30))
    again.log_image("sheet", picture, step=1)
    assert again.finish() == 0
    assert len(said) == 1

    server.kill()
    (run,) = runs(server.database, "late")
    assert run.info.run_id == tracker.run_id == again.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"eta": "0.5"}
    assert run.data.tags["who"] == "me"
    for key in ("faces", "images", "seconds/read"):
        assert [step for step, _, _ in history(server.database, run.info.run_id, key)] == list(range(30))
    assert history(server.database, run.info.run_id) == expected(range(30))
    stored = [
        f for f in (Path(server.database.removeprefix("sqlite:///")).parent / "artifacts").rglob("*.png")
    ]
    assert len(stored) == 1


def test_points_sent_twice_are_one(database):
    """As after a crash between the delivery and the note of it."""
    first = RunTracker.open(database, "twice", "a")
    log_shards(first, range(400))
    assert first.finish() == 0
    second = RunTracker.open(database, "twice", "a", run_id=first.run_id)
    log_shards(second, range(400))
    assert second.finish() == 0
    assert history(database, str(first.run_id)) == expected(range(400))


@pytest.mark.parametrize(
    "uri",
    ["sqlite:////proc/nowhere/mlflow.db", "nonsense://host", "http://user:hunter2@127.0.0.1:9"],
)
def test_a_store_that_cannot_be_opened_costs_one_warning_without_secrets(uri):
    said: list[str] = []
    tracker = RunTracker.open(uri, "broken", "a", warn=said.append)
    log_shards(tracker, range(3))
    assert tracker.finish("FAILED", timeout=4) == 4
    until(lambda: bool(said))
    assert len(said) == 1
    assert "hunter2" not in said[0]
    assert said[0].count("\n") == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        ("postgresql://me:se/cr@et@db/mlflow", "postgresql://***@db/mlflow"),
        ("https://token@host", "https://***@host"),
        ("http://host:5000/a@b.jpg", "http://host:5000/a@b.jpg"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("/home/me/a@b.jpg", "/home/me/a@b.jpg"),
        ("https://h/x?X-Amz-Signature=abc&v=1", "https://h/x?X-Amz-Signature=***&v=1"),
        ("https://h/x?v=1&access_token=abc", "https://h/x?v=1&access_token=***"),
        ("cannot reach http://a:b@c and http://d:e@f", "cannot reach http://***@c and http://***@f"),
    ],
)
def test_credentials_in_addresses_are_hidden(text, shown):
    assert redact(text) == shown


def test_reasons_are_one_plain_line():
    assert reason_of(OSError("... [Errno 111] Connection refused ...")) == "connection refused"
    assert reason_of(ValueError("first.\nsecond")) == "first"
    assert reason_of(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError("full"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_a_run_whose_job_ends_by_an_error_does_not_stay_running(database, error, status):
    with pytest.raises(type(error)), RunTracker.open(database, f"ended by {error!r}", "a") as tracker:
        log_shards(tracker, range(2))
        raise error
    (run,) = runs(database, f"ended by {error!r}")
    assert run.info.status == status
    assert len(history(database, run.info.run_id)) == 2


def test_a_run_that_was_closed_keeps_its_status_whatever_comes_after(database):
    with pytest.raises(OSError, match="late"), RunTracker.open(database, "closed", "a") as tracker:
        tracker.finish("FINISHED")
        raise OSError("late")
    (run,) = runs(database, "closed")
    assert run.info.status == "FINISHED"


def test_what_was_delivered_is_known_by_shard_and_survives_its_file():
    delivered = Delivered("token", "run")
    for step in (3, 0, 1, 7, 2, 8):
        delivered.add([make_point(step, 100 + step, {})])
    again = Delivered.from_json(delivered.to_json())
    assert again == delivered
    assert [s for s in range(10) if again.has(make_point(s, 100 + s, {}))] == [0, 1, 2, 3, 7, 8]
    with pytest.raises(ValueError, match="not a tracking state"):
        Delivered.from_json(b"[]")


def test_a_shard_done_again_is_delivered_though_one_that_ended_later_came_first():
    delivered = Delivered("token", "run")
    delivered.add([make_point(1, 100, {}), make_point(2, 101, {})])
    delivered.add([make_point(2, 205, {})])
    assert not delivered.has(make_point(1, 203, {}))
    delivered.add([make_point(1, 203, {})])
    assert delivered.has(make_point(1, 203, {})) and delivered.has(make_point(2, 205, {}))


def test_points_are_grouped_in_order_up_to_the_limit():
    points = [make_point(i, 0, dict.fromkeys("abcdefg"[:n], 1.0)) for i, n in enumerate((2, 2, 0, 7, 1, 4))]
    groups = list(grouped(points, 4))
    assert [[p.step for p in g] for g in groups] == [[0, 1, 2], [3], [4], [5]]
    assert list(grouped([], 4)) == []


def test_a_new_sqlite_store_appears_whole_so_that_a_kill_leaves_none_that_can_not_be_opened(tmp_path):
    def tables() -> tuple[int, list[tuple[str]]]:
        with sqlite3.connect(path) as connection:
            [(count,)] = connection.execute("select count(*) from sqlite_master where type = 'table'")
            return count, connection.execute("select version_num from alembic_version").fetchall()

    path = tmp_path / "new" / "mlflow.db"
    tracker = RunTracker.open(f"sqlite:///{path}", "made", "run")
    give_up = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < give_up
        time.sleep(0.001)
    at_once = tables()
    assert tracker.finish() == 0
    assert tables() == at_once
    assert len(runs(f"sqlite:///{path}", "made")) == 1


def test_a_run_that_is_not_tracked_takes_everything_and_writes_nothing(tmp_path):
    run = RunTracker.open(NO_TRACKING, "e", "r", state_uri=str(tmp_path / "state.json"))
    run.log_shard(1, {"images": 1}, 1)
    run.log_metrics(1, {"loss": 1})
    run.log_input("there", "digest")
    run.set_tags({"a": "b"})
    with pytest.raises(OSError), run:
        raise OSError
    assert (run.flush(), run.finish(), run.run_id, run.undelivered) == (0, 0, None, 0)
    assert not list(tmp_path.iterdir())


def test_names_of_folders_that_are_anything_arrive(database, state):
    name = 'a\n"b",<b>%s漢\u202e' + os.fsdecode(b"caf\xe9")
    given: dict[str, Any] = {"params": {"input": name}, "tags": {"t": name}}
    tracker = RunTracker.open(database, f"x {name}", name, **given, state_uri=state)
    tracker.log_input(name, "f" * 64)
    assert tracker.finish() == 0
    escaped = name.replace("\udce9", "\\udce9")
    (run,) = runs(database, f"x {escaped}")
    assert [run.data.params["input"], run.data.tags["t"], run.info.run_name] == [escaped] * 3
