"""Where Ray puts its files, what is said where it can not, and what is kept off the screen."""

import io
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.console.options import UsageError
from pipeline.restoration import cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment says where Ray's files go."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def short() -> Iterator[Path]:
    """An empty folder whose path is short enough for sockets; pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="df", dir="/tmp") as folder:
        yield Path(folder)


def test_the_longest_folder_that_is_taken_has_room_for_the_longest_socket(short):
    longest = str(short / ("x" * (cluster.LONGEST_FOLDER - len(str(short)) - 1)))
    assert len(longest + cluster.DEEPEST_SOCKET) == cluster.LONGEST_SOCKET
    assert cluster.unfit(longest) == ""
    os.mkdir(longest + cluster.DEEPEST_SOCKET.split("/sockets")[0])
    os.mkdir(longest + cluster.DEEPEST_SOCKET.rpartition("/")[0])
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(longest + cluster.DEEPEST_SOCKET)
    assert cluster.unfit(longest + "x") == f"is {cluster.LONGEST_FOLDER + 1} bytes long"


def test_a_folder_s_length_is_counted_in_bytes(short):
    assert "bytes long" in cluster.unfit(str(short / ("é" * 20)))
    assert not (short / ("é" * 20)).exists()


def test_below_a_long_temporary_folder_ray_s_files_go_to_tmp(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("job-" * 20)))
    assert cluster.choose_folder() in ("/tmp/ray", f"/tmp/ray-{os.getuid()}")
    assert list(tmp_path.iterdir()) == []


def test_a_short_temporary_folder_is_used(short, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(short))
    assert cluster.choose_folder() == f"{short}/ray"


def test_the_named_folder_is_the_only_one_tried(short, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(short / "named"))
    assert cluster.choose_folder() == f"{short}/named/ray"
    monkeypatch.setenv("RAY_TMPDIR", str(short / ("long" * 20)))
    with pytest.raises(
        UsageError, match=r"longlong.* bytes long; name a short one on another disk with RAY_TMP"
    ):
        cluster.choose_folder()


def test_a_folder_that_can_not_be_made_is_named_with_the_reason(short, monkeypatch):
    (short / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(short / "file"))
    with pytest.raises(UsageError, match=r"/file/ray can not be written \(Not a directory\)") as refused:
        cluster.choose_folder()
    assert "\n" not in str(refused.value)


def test_a_folder_that_takes_no_bytes_is_passed_over(short):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    try:
        reason = cluster.unfit(str(short))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert reason == "can not be written (File too large)"
    assert cluster.first_fit([str(short / ("x" * 99)), str(short)]) == str(short)


def test_a_folder_without_room_is_refused(short, monkeypatch):
    monkeypatch.setattr(cluster, "FREE_BYTES", 1 << 60)
    with pytest.raises(UsageError, match=f"{short} has [0-9]+ MiB free; name"):
        cluster.first_fit([str(short)])


def test_lines_that_are_not_wanted_are_left_out_and_the_others_keep_their_order(capfd):
    with cluster.without_lines(b"noise"):
        os.write(2, b"first\n")
        os.write(2, b"some noise\n\xff second\n")
        assert capfd.readouterr().err == ""
    os.write(2, b"third")
    # bytes of no letter come through, too, and are shown by the test's own reader
    assert capfd.readouterr().err == "first\n\N{REPLACEMENT CHARACTER} second\nthird"


def test_after_an_error_stderr_is_itself_again(capfd):
    with pytest.raises(ZeroDivisionError), cluster.without_lines(b"noise"):
        os.write(2, b"before\n")
        raise ZeroDivisionError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:9", "connection refused"), ("nowhere.invalid:6379", "")]
)
def test_a_cluster_that_does_not_answer_is_refused_in_a_sentence(address, reason, tmp_path):
    """In a process of its own: this one may have joined Ray."""
    join = f"from pipeline.restoration.cluster import join\ntry: join('{address}')"
    program = f"{join}\nexcept ValueError as e: print('refused:', e)"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"refused: a Ray cluster was wanted at {address}, but {reason}")
    assert done.stdout.count("\n") == 1 and "--ray-address" in done.stdout
    assert done.stderr == ""


def test_of_ray_s_other_processes_the_words_of_one_name_are_heard_without_their_prefix():
    out = io.StringIO()
    heard = cluster.Heard(out, "RayTrainWorker")
    for line in (
        "our own (with brackets pid=1) line",
        "\x1b[36m(RayTrainWorker pid=19029)\x1b[0m step 4 of 4",
        "(RayTrainWorker pid=3, ip=192.0.2.2) step 5 (of 5)",
        "\x1b[36m(TrainController pid=18926)\x1b[0m Requesting resources: {'CPU': 1} * 1",
        "(pid=gcs_server) Failed to kill actor",
        "\x1b[33m(raylet)\x1b[0m A worker died or was killed",
        "",
    ):
        print(line, file=heard)
    heard.write("not ended")
    assert out.getvalue() == "our own (with brackets pid=1) line\nstep 4 of 4\nstep 5 (of 5)\n\n"


def test_lines_of_several_threads_stay_whole():
    out = io.StringIO()
    heard = cluster.Heard(out)
    heard.write("first, ")
    other = threading.Thread(target=print, args=("second",), kwargs={"file": heard})
    other.start()
    other.join()
    heard.write("and its end\n")
    assert out.getvalue() == "second\nfirst, and its end\n"
