"""store: the same behaviour for local files and for a real S3 server."""

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import ACCESS_KEY, SECRET_KEY, S3Server

from pipeline import store
from pipeline.store import StoreError


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of this test's own, once in a local folder and once in the bucket."""
    if request.param == "local":
        return str(tmp_path)
    server: S3Server = request.getfixturevalue("s3")
    return store.join(server.uri, tmp_path.name)


def test_written_bytes_come_back_and_are_replaced_whole(root: str) -> None:
    uri = store.join(root, "new folder", "bild ä 1.bin")
    assert not store.exists(uri)
    store.write_bytes(uri, b"first, longer")
    store.write_bytes(uri, b"second")
    assert store.read_bytes(uri) == b"second"
    assert store.exists(uri)


def test_listing_is_recursive_sorted_relative_and_without_hidden_names(root: str) -> None:
    for name in ("b.png", "a/z.png", "a/ä b.png", ".hidden", "a/.x.png", ".git/c.png", "_ledger/run.json"):
        store.write_bytes(store.join(root, name), name.encode())
    found = store.list_files(root)
    assert [entry.path for entry in found] == ["_ledger/run.json", "a/z.png", "a/ä b.png", "b.png"]
    assert [store.read_bytes(entry.uri) for entry in found] == [entry.path.encode() for entry in found]
    assert [entry.size for entry in found] == [len(entry.path.encode()) for entry in found]


def test_listing_a_file_gives_that_file(root: str) -> None:
    uri = store.join(root, "one.tar")
    store.write_bytes(uri, b"12345")
    (entry,) = store.list_files(uri)
    assert (entry.uri, entry.path, entry.size) == (uri, "one.tar", 5)
    assert entry == store.stat(uri)


def test_listing_a_folder_leaves_out_neighbours_whose_names_begin_alike(root: str) -> None:
    store.write_bytes(store.join(root, "in", "a"), b"1")
    store.write_bytes(store.join(root, "in2", "b"), b"2")
    assert [entry.path for entry in store.list_files(store.join(root, "in"))] == ["a"]
    assert [entry.path for entry in store.list_files(store.join(root, "in") + "/")] == ["a"]


def test_version_changes_with_the_content(root: str) -> None:
    uri = store.join(root, "x")
    store.write_bytes(uri, b"one")
    before = store.stat(uri).version
    store.write_bytes(uri, b"two!")
    assert store.stat(uri).version != before


def test_ranges_are_exact_and_a_range_past_the_end_is_an_error(root: str) -> None:
    uri = store.join(root, "x")
    store.write_bytes(uri, bytes(range(100)))
    assert store.read_range(uri, 10, 5) == bytes(range(10, 15))
    assert store.read_range(uri, 99, 1) == b"\x63"
    assert store.read_range(uri, 100, 0) == b""
    for offset, length in ((98, 3), (100, 1), (500, 10)):
        with pytest.raises(StoreError, match="shorter"):
            store.read_range(uri, offset, length)


def test_a_tar_streams_through_open_read_and_its_members_are_ranges(root: str) -> None:
    members = {f"{i:03d}.png": os.urandom(40_000 + i) for i in range(5)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    uri = store.join(root, "shard.tar")
    store.write_bytes(uri, packed.getvalue())
    for mode in ("r:", "r|"):
        with store.open_read(uri) as file, tarfile.open(fileobj=file, mode=mode) as tar:
            read = {}
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                read[member.name] = content.read()
                assert store.read_range(uri, member.offset_data, member.size) == members[member.name]
            assert read == members


def test_an_open_file_can_be_searched_backwards(root: str) -> None:
    uri = store.join(root, "x")
    store.write_bytes(uri, bytes(range(200)))
    with store.open_read(uri) as file:
        file.seek(-8, os.SEEK_END)
        assert file.read() == bytes(range(192, 200))
        file.seek(3)
        assert file.read(2) == b"\x03\x04"


def test_of_eight_threads_that_create_a_file_exactly_one_wins(root: str) -> None:
    for i in range(5):
        uri = store.join(root, f"claim-{i}")
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda n, uri=uri: store.create_bytes(uri, b"%d" % n), range(8)))
        assert sum(won) == 1
        assert store.read_bytes(uri) == b"%d" % won.index(True)
    assert [entry.path for entry in store.list_files(root)] == [f"claim-{i}" for i in range(5)]


def test_deleting_is_final_and_may_be_repeated(root: str) -> None:
    uri = store.join(root, "x")
    store.write_bytes(uri, b"1")
    store.delete(uri)
    store.delete(uri)
    assert not store.exists(uri)


def test_what_is_missing_is_named_in_one_sentence(root: str) -> None:
    uri = store.join(root, "not there")
    for act in (store.list_files, store.stat, store.open_read, store.read_bytes, store.check_readable):
        with pytest.raises(StoreError, match="not there: there is nothing of that name") as caught:
            act(uri)
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="nothing of that name"):
        store.read_range(uri, 0, 1)


def test_checks_pass_on_a_good_place_and_leave_nothing_behind(root: str) -> None:
    store.write_bytes(store.join(root, "a"), b"1")
    store.check_readable(root)
    store.check_readable(store.join(root, "a"))
    store.check_writable(store.join(root, "new", "output"))
    assert [entry.path for entry in store.list_files(root)] == ["a"]


def test_a_local_output_below_a_file_is_refused_up_front(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="a file stands where a folder was wanted"):
        store.check_writable(str(tmp_path / "file" / "out"))
    with pytest.raises(StoreError, match="could not write"):
        store.write_bytes(str(tmp_path / "file" / "out"), b"")


def test_a_failed_local_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_bytes(b"")
    with pytest.raises(StoreError):
        store.write_bytes(str(tmp_path / "taken"), b"data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "taken"]


def test_the_longest_name_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    name = "n" * 255
    store.write_bytes(str(tmp_path / name), b"1")
    assert store.create_bytes(str(tmp_path / name), b"2") is False


def test_links_to_nowhere_and_pipes_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert [entry.path for entry in store.list_files(str(tmp_path))] == ["a"]


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    store.write_bytes(f"file://{tmp_path}/x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert not store.is_remote(f"file://{tmp_path}")
    assert store.is_remote("s3://bucket/x")
    assert store.name_of("s3://bucket/a/b.tar") == "b.tar"


def test_an_unknown_protocol_is_refused_without_showing_its_password() -> None:
    with pytest.raises(StoreError, match="Protocol not known") as caught:
        store.check_readable("nonsense://user:hunter2@host/x")
    assert "hunter2" not in str(caught.value)


def test_a_missing_bucket_is_named_up_front(s3: S3Server) -> None:
    for check in (store.check_readable, store.check_writable, store.list_files, store.delete):
        with pytest.raises(StoreError, match="the bucket 'no-such-bucket' does not exist"):
            check("s3://no-such-bucket/in")


def test_an_object_of_several_parts_arrives_whole(s3: S3Server) -> None:
    uri = store.join(s3.uri, "large.bin")
    data = os.urandom(1 << 20) * 110
    store.write_bytes(uri, data)
    assert store.stat(uri).size == len(data)
    assert store.read_range(uri, len(data) - 7, 7) == data[-7:]
    store.delete(uri)


CHECKS = """
import sys, traceback
from pipeline import store
for check in (store.check_readable, store.check_writable, store.list_files, store.read_bytes, store.exists):
    try:
        check(sys.argv[1])
    except store.StoreError as error:
        traceback.print_exc()
        print(error)
"""


def checked(s3: S3Server, **changed: str) -> tuple[list[str], str]:
    """The sentences of five checks in a new process with other AWS variables, and everything it printed."""
    env = {**os.environ, **s3.env, **changed}
    done = subprocess.run(
        [sys.executable, "-c", CHECKS, f"{s3.uri}/x"], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines(), done.stdout + done.stderr


def test_a_wrong_secret_is_refused_in_one_sentence_that_holds_no_secret(s3: S3Server) -> None:
    wrong = SECRET_KEY + "-but-wrong"
    sentences, everything = checked(s3, AWS_SECRET_ACCESS_KEY=wrong)
    assert len(sentences) == 5
    assert "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY" in sentences[0]
    assert SECRET_KEY not in everything
    assert ACCESS_KEY not in everything


def test_an_unknown_access_key_is_refused_in_one_sentence(s3: S3Server) -> None:
    sentences, everything = checked(s3, AWS_ACCESS_KEY_ID="somebody-else")
    assert "the server does not know the access key" in sentences[0]
    assert len(sentences) == 5
    assert "somebody-else" not in everything


def test_missing_credentials_are_named(s3: S3Server) -> None:
    sentences, _ = checked(s3, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", HOME="/nonexistent")
    assert len(sentences) == 5
    assert all("no complete credentials were found" in sentence for sentence in sentences)


def test_threads_and_forked_workers_share_nothing_that_breaks(s3: S3Server) -> None:
    uri = store.join(s3.uri, "shared")
    store.write_bytes(uri, b"0123456789")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: store.read_range(uri, i % 10, 1), range(40))) == [
            b"%d" % (i % 10) for i in range(40)
        ]
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read_bytes(uri) == b"0123456789" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pipeline import store; "
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); store.write_bytes(sys.argv[1], b'half')"
    )
    place = tmp_path / "a" / "b"
    killed = subprocess.run([sys.executable, "-c", program, str(place / "x.png")], check=False)
    assert killed.returncode == -signal.SIGKILL and len(list(place.iterdir())) == 1
    for name in (".hidden", "y.tmp", "x.png"):
        (place / name).write_bytes(b"somebody's")
    store.sweep(str(tmp_path))
    assert {p.name for p in place.iterdir()} == {".hidden", "y.tmp", "x.png"}
    store.sweep(str(tmp_path / "nothing there"))


def test_a_large_file_is_copied_without_being_read_whole_into_memory(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.objects, "PART_BYTES", 5 << 20)  # S3 takes no smaller ones
    monkeypatch.setattr(store.objects, "PARTS_AT_ONCE", 1)
    data = random.Random(0).randbytes((40 << 20) + 7)
    (tmp_path / "weights").write_bytes(data)
    uri = store.join(root, "to", "copy")
    tracemalloc.start()
    store.write_file(uri, tmp_path / "weights")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data) * 0.75
    assert store.read_bytes(uri) == data


def test_a_file_that_can_not_be_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(store.StoreError, match="could not write"):
        store.write_file(str(tmp_path / "to"), tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
