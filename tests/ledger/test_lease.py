"""One driver at a time works on an output, and one that died is followed."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.io import layout, store
from pipeline.ledger import lease
from pipeline.ledger.lease import AlreadyLeased, Lease, Start, last_start, process_identity

NOW = time.time()


def elsewhere(output: Path, number: int = 1, **values) -> Start:
    """A driver on another machine, as it last wrote of itself."""
    start = replace(Start(number, "elsewhere", 7, "boot:1", NOW - 60, NOW - 1), **values)
    store.write_bytes(str(output / start.path), start.to_json())
    return start


def take(output: Path, said: list[str] | None = None, patience: float = 0.2) -> Lease:
    return Lease.take(str(output), (said if said is not None else []).append, patience)


def test_a_start_is_written_down_with_its_end_and_the_next_has_the_next_number(tmp_path):
    with take(tmp_path) as first:
        working = last_start(str(tmp_path))
        assert (working.number, working.pid, working.host) == (1, os.getpid(), socket.gethostname())
        assert working.lives() and working.exit_code is None
        first.exit_code = 130
    ended = last_start(str(tmp_path))
    assert (ended.exit_code, ended.lives()) == (130, False)
    with take(tmp_path):
        assert last_start(str(tmp_path)).number == 2


def test_a_second_driver_is_refused_while_the_first_lives_and_told_who_it_is(tmp_path):
    with take(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(
            AlreadyLeased, match=rf"is being worked on by process {os.getpid()} on .*, started 20"
        ):
            take(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_start_leaves_no_trace(tmp_path):
    with take(tmp_path) as refused:
        refused.withdraw()
    assert last_start(str(tmp_path)) is None


def test_a_killed_driver_of_this_machine_is_followed_at_once(tmp_path):
    program = (
        "import sys, time\nfrom pipeline.ledger.lease import Lease\n"
        f"with Lease.take({str(tmp_path)!r}, print):\n print('working', flush=True)\n time.sleep(60)"
    )
    killed = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert killed.stdout.readline() == b"working\n"
    with pytest.raises(AlreadyLeased):
        take(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    said: list[str] = []
    with take(tmp_path, said, patience=1000):
        assert said == []


def test_a_process_that_has_the_number_of_a_dead_driver_is_not_taken_for_it(tmp_path):
    [boot, began] = process_identity(os.getpid()).split(":")
    for other in (f"{boot}:{int(began) - 1}", f"another-boot:{began}"):
        elsewhere(tmp_path, 1, host=socket.gethostname(), pid=os.getpid(), process=other)
        assert last_start(str(tmp_path)).lives() is False
    with take(tmp_path, patience=1000):
        pass


def test_a_clock_that_is_set_makes_no_live_driver_dead(tmp_path, monkeypatch):
    with take(tmp_path):
        for seconds in (-1e6, 1e6):
            now = NOW + seconds
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda now=now: now)
                # what psutil and ps say a process began at moves with the clock
                patch.setattr(psutil, "boot_time", lambda now=now: now)
                assert last_start(str(tmp_path)).lives()
                with pytest.raises(AlreadyLeased):
                    take(tmp_path)


def test_a_start_of_a_version_that_named_no_process_is_watched_for_signs_of_life(tmp_path):
    values = {"number": 1, "host": socket.gethostname(), "pid": os.getpid(), "process_began": 1.0}
    values |= {"began_at": NOW, "seen_at": NOW, "ended_at": None, "exit_code": None, "token": "t"}
    store.write_bytes(str(tmp_path / layout.DRIVERS / "0001.json"), json.dumps(values).encode())
    said: list[str] = []
    with take(tmp_path, said):
        assert last_start(str(tmp_path)).number == 2
    assert len(said) == 1


def test_a_silent_driver_elsewhere_is_followed_after_a_while(tmp_path):
    elsewhere(tmp_path)
    said: list[str] = []
    with take(tmp_path, said):
        assert last_start(str(tmp_path)).number == 2
    assert len(said) == 1 and "process 7 on elsewhere" in said[0]


def test_a_driver_elsewhere_that_gives_a_sign_of_life_is_not_followed(tmp_path):
    start = elsewhere(tmp_path)
    threading.Timer(0.2, lambda: elsewhere(tmp_path, seen_at=start.seen_at + 10)).start()
    with pytest.raises(AlreadyLeased):
        take(tmp_path, patience=30)


def test_a_driver_elsewhere_that_ends_while_we_watch_is_followed_at_once(tmp_path):
    elsewhere(tmp_path)
    threading.Timer(0.2, lambda: elsewhere(tmp_path, ended_at=NOW, exit_code=0)).start()
    with take(tmp_path, patience=1000):
        pass


def test_a_driver_elsewhere_whose_clock_is_hours_behind_is_watched_all_the_same(tmp_path):
    start = elsewhere(tmp_path, seen_at=NOW - 400_000)
    threading.Timer(0.2, lambda: elsewhere(tmp_path, seen_at=start.seen_at + 10)).start()
    with pytest.raises(AlreadyLeased):
        take(tmp_path, patience=30)


def test_a_damaged_file_of_a_driver_stops_nobody(tmp_path):
    store.write_bytes(str(tmp_path / "_ledger/drivers/0003.json"), b"{")
    with take(tmp_path, patience=1000):
        assert last_start(str(tmp_path)).number == 4


def test_a_driver_that_was_followed_while_it_was_paused_stops_its_stages(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    with take(tmp_path) as paused:
        elsewhere(tmp_path, number=2)
        give_up = time.monotonic() + 30
        while paused.successor is None and time.monotonic() < give_up:
            time.sleep(0.01)
        assert paused.successor.host == "elsewhere"
        assert store.exists(paused.stop_uri)
    assert not store.exists(paused.stop_uri)


def test_whether_a_driver_drives_is_looked_at_afresh(tmp_path):
    with take(tmp_path) as paused:
        assert paused.is_held()
        elsewhere(tmp_path, number=2)
        assert not paused.is_held() and paused.successor.host == "elsewhere"


def test_the_end_of_a_start_is_written_on_a_full_disk_too(tmp_path, monkeypatch):
    def full(uri, data):
        raise store.StoreFull(f"could not write {uri}: no room")

    with take(tmp_path) as last:
        last.exit_code, last.reason = 1, "the disk is full"
        monkeypatch.setattr(store, "write_bytes", full)
    ended = last_start(str(tmp_path))
    assert (ended.exit_code, ended.reason, ended.lives()) == (1, "the disk is full", False)


def test_a_working_driver_says_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    with take(tmp_path):
        first = last_start(str(tmp_path)).seen_at
        give_up = time.monotonic() + 30
        while last_start(str(tmp_path)).seen_at == first:
            assert time.monotonic() < give_up
            time.sleep(0.01)


def race(output: str, begin, won) -> None:
    begin.wait()
    try:
        with Lease.take(output, lambda _: None):
            won.put(os.getpid())
            time.sleep(1.0)
    except AlreadyLeased:
        won.put(None)


def test_of_many_starts_at_once_one_drives(tmp_path):
    context = multiprocessing.get_context("fork")
    begin, won = context.Event(), context.Queue()
    racers = [context.Process(target=race, args=(str(tmp_path), begin, won)) for _ in range(8)]
    for racer in racers:
        racer.start()
    begin.set()
    results = [won.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert len([r for r in results if r is not None]) == 1
    assert [json.loads(f.read_bytes())["number"] for f in (tmp_path / layout.DRIVERS).iterdir()] == [1]


def test_it_works_on_an_object_store(s3):
    output = f"{s3.uri}/driven"
    with Lease.take(output, lambda _: None) as first:
        with pytest.raises(AlreadyLeased):
            Lease.take(output, lambda _: None)
        first.stop()
        assert store.exists(first.stop_uri)
    assert not store.exists(first.stop_uri)
    assert last_start(output).ended_at is not None


def test_the_stop_signs_of_starts_that_were_killed_are_taken_away_by_the_next(tmp_path):
    killed = [elsewhere(tmp_path, number=number, ended_at=NOW) for number in (1, 2)]
    for start in killed:
        store.write_bytes(str(tmp_path / start.stop_path), b"")
    with take(tmp_path) as third:
        assert not any((tmp_path / start.stop_path).exists() for start in killed)
        assert third.number == 3
