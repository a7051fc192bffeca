"""A writer that was paused writes nothing once the output is somebody else's."""

import fcntl
import json
import os
import threading

import pytest

from pipeline.io import layout, local, store
from pipeline.io.fence import Fenced, RunFence, write_while


def identity(data):
    try:
        return json.loads(data)["run"]
    except ValueError:
        return "?"


def fence_of(output, run):
    return RunFence(output, run, identity)


@pytest.fixture(params=["local", "s3"])
def output(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "out")
    return f"{request.getfixturevalue('s3').uri}/fence/{tmp_path.name}"


def own(output: str, run: str) -> None:
    """Make the output that run's."""
    write_while(lambda: True, output, layout.RUN, json.dumps({"run": run}).encode(), changes_owner=True)


def read(output: str, path: str) -> bytes:
    return store.read_bytes(store.join(output, path))


def test_a_run_writes_replaces_and_deletes_in_its_own_output(output):
    own(output, "a")
    mine = fence_of(output, "a")
    mine.write("images/x.png", b"1")
    mine.write("images/x.png", b"2")
    assert read(output, "images/x.png") == b"2"
    mine.delete("images/x.png")
    assert not store.exists(store.join(output, "images/x.png"))


def test_a_run_that_lost_its_output_replaces_and_deletes_nothing(output):
    own(output, "a")
    fence_of(output, "a").write("x", b"old")
    own(output, "b")
    fence_of(output, "b").write("x", b"new")
    late = fence_of(output, "a")
    with pytest.raises(
        Fenced, match="x is not written: another run or start has taken the output over since"
    ):
        late.write("x", b"late")
    with pytest.raises(Fenced):
        late.delete("x")
    assert read(output, "x") == b"new"


def test_an_output_without_a_run_file_is_that_of_a_run_without_identity(output):
    fence_of(output, "").write("x", b"1")
    assert read(output, "x") == b"1" and not fence_of(output, "a").holds()


def test_a_damaged_run_file_is_nobodys(output):
    store.write_bytes(store.join(output, layout.RUN), b"{")
    assert not fence_of(output, "").holds() and not fence_of(output, "a").holds()


def test_who_is_paused_between_its_look_and_its_write_does_not_overwrite_on_s3(s3, tmp_path):
    output = f"{s3.uri}/fence/{tmp_path.name}"
    own(output, "a")
    fence_of(output, "a").write("x", b"old")

    def paused_after_the_look() -> bool:
        held = fence_of(output, "a").holds()
        if held:
            own(output, "b")
            fence_of(output, "b").write("x", b"new")
        return held

    with pytest.raises(Fenced):
        write_while(paused_after_the_look, output, "x", b"late")
    assert read(output, "x") == b"new"


def test_what_a_late_writer_made_first_is_replaced_by_the_owner_on_s3(s3, tmp_path):
    output = f"{s3.uri}/fence/{tmp_path.name}"
    own(output, "b")
    write_while(lambda: True, output, "x", b"late")
    fence_of(output, "b").write("x", b"new")
    assert read(output, "x") == b"new"


def test_an_output_changes_hands_only_between_two_local_writes(tmp_path):
    output = str(tmp_path / "out")
    own(output, "a")
    looked, go_on, changed = threading.Event(), threading.Event(), threading.Event()

    def holds() -> bool:
        held = fence_of(output, "a").holds()
        looked.set()
        assert go_on.wait(60)
        return held

    def take_over() -> None:
        own(output, "b")
        changed.set()

    writer = threading.Thread(target=write_while, args=(holds, output, "x", b"a's"))
    writer.start()
    assert looked.wait(60)
    taker = threading.Thread(target=take_over)
    taker.start()
    # the look was answered, the file is not written yet: the output stays the writer's
    assert not changed.wait(0.2) and fence_of(output, "a").holds()
    go_on.set()
    for thread in (writer, taker):
        thread.join(60)
    assert changed.is_set() and read(output, "x") == b"a's" and fence_of(output, "b").holds()


def test_a_lock_that_a_suspended_process_holds_is_named_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "LOCK_TIMEOUT", 0.1)
    output = tmp_path / "out"
    own(str(output), "a")
    handle = os.open(output / layout.LOCK, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_SH)
    try:
        with pytest.raises(store.StoreError, match="it may be suspended: let it go on or end it"):
            own(str(output), "b")
    finally:
        os.close(handle)
    assert fence_of(str(output), "a").holds()


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    own(str(tmp_path), "a")
    fence_of(str(tmp_path), "a").write("x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"
