"""store: the same behaviour for local files and for a real S3 server."""

import errno
import io
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import s3fs
from exact_store import ExactStore, exact_store
from servers import ACCESS_KEY, SECRET_KEY, S3Server

from pipeline.io import exclusive, local, store
from pipeline.io import s3 as objects
from pipeline.io.readers import read_unit
from pipeline.io.shards import cut_units, list_input, make_shards, path_below
from pipeline.io.store import StoreError, StoreFull


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


def test_what_is_larger_than_one_plain_put_claims_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LARGEST_CLAIM", 1000)
    uri = store.join(root, "claim")
    with pytest.raises(StoreError, match=r"at most 1000 bytes can be made.*got 1001") as caught:
        store.create_bytes(uri, bytes(1001))
    assert "\n" not in str(caught.value)
    assert not store.exists(uri)
    assert store.create_bytes(uri, bytes(1000)) is True


# Each means something else to a shell, a glob, a URL, or to fsspec.
ODD_NAMES = (
    *(
        "scan 10::42::07.jpg",
        "zip::x.jpg",
        "file:x.jpg",
        "what?versionId=3.jpg",
        "no#1.jpg",
        "st*r.jpg",
        "[x].jpg",
    ),
    *(
        "{a,b}.jpg",
        "~.jpg",
        "~root.jpg",
        "$HOME.jpg",
        "%20.jpg",
        "%2F.jpg",
        "two\nlines.jpg",
        "t\tab.jpg",
        " a .jpg",
    ),
    *("a&b+c=d;e.jpg", "co:lon@x.jpg", "'\"<>.jpg", "e\u0301.jpg", "\u00e9.jpg", "\U0001f600.jpg"),
    *("a:b/c::d/e.jpg", "~/f.jpg", "deep/?/#/*.jpg"),
)


def test_any_name_can_be_written_listed_read_and_deleted(root: str) -> None:
    names = sorted(ODD_NAMES)
    for number, name in enumerate(names):
        uri = store.join(root, name)
        if number % 2:
            assert store.create_bytes(uri, name.encode()) is True
            assert store.create_bytes(uri, b"second") is False
        store.write_bytes(uri, name.encode())
    listed = store.list_files(root)
    assert [entry.path for entry in listed] == names
    for entry in listed:
        data = entry.path.encode()
        assert store.read_bytes(entry.uri) == store.read_range(entry.uri, 0, entry.size) == data
        with store.open_read(entry.uri) as file:
            assert file.read() == data
        assert store.stat(entry.uri).version == entry.version
        assert store.exists(entry.uri)
        assert [e.uri for e in store.list_files(entry.uri)] == [entry.uri]
        store.check_readable(entry.uri)
        store.delete(entry.uri)
        assert not store.exists(entry.uri)


def test_any_name_can_be_a_folder_to_write_to(root: str) -> None:
    for name in ("10::42", "album (1890?)", "100%", "#1", "[x]*"):
        folder = store.join(root, name)
        store.check_claims(folder)
        store.write_bytes(store.join(folder, "a"), b"1")
        assert [entry.uri for entry in store.list_files(folder)] == [store.join(folder, "a")]


def test_names_of_other_stores_are_not_interpreted_either() -> None:
    root = "memory://other store"
    for name in ODD_NAMES:
        store.write_bytes(store.join(root, name), name.encode())
    listed = store.list_files(root)
    assert [entry.path for entry in listed] == sorted(ODD_NAMES)
    assert [store.read_bytes(entry.uri).decode() for entry in listed] == sorted(ODD_NAMES)
    (alone,) = store.list_files(store.join(root, "[x].jpg"))
    assert alone.uri == f"{root}/[x].jpg"
    for entry in listed:
        store.delete(entry.uri)
    with pytest.raises(StoreError, match="nothing of that name"):
        store.list_files(root)


def test_only_a_protocol_at_the_beginning_makes_an_address_remote() -> None:
    for near in ("/photos/s3://x", "a b://c", "scan::s3", "./http:/x", "C:/x", "file:///x", "://x", "1://x"):
        assert not store.is_remote(near)
    for remote in ("s3://b/k", "memory://x", "git+ssh://x", "S3A://b"):
        assert store.is_remote(remote)


def test_parts_are_joined_as_they_are() -> None:
    assert store.join("s3://b/in", "/a.jpg") == "s3://b/in//a.jpg"
    assert store.join("s3://b/in/", "a//b", "c") == "s3://b/in/a//b/c"
    assert store.join("s3://b", "x", "") == "s3://b/x/"
    assert store.join("", "x") == "x"


# Keys that differ by what a path would not keep apart, and others that no file can have.
EXACT_KEYS = {
    "a.jpg", "/a.jpg", "//a.jpg", "x//b.jpg", "x/b.jpg", "./a.jpg", "../a.jpg", "x/../a.jpg", "x/./b.jpg",
    "a.jpg ", "%2Fa.jpg", "x%2Fb.jpg", "?versionId=1", "a.jpg?versionId=1", "\x01.jpg", "back\\slash.jpg",
}  # fmt: skip


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExactStore]:
    """A server that keeps keys letter by letter; this process's S3 requests go there."""
    with exact_store() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("root", ["s3://bucket/in", "s3://bucket/in/", "s3://bucket"])
def test_each_key_is_read_as_itself(exact: ExactStore, root: str) -> None:
    for key in EXACT_KEYS:
        store.write_bytes(f"{root.removesuffix('/')}/{key}", key.encode())
    below = root.removeprefix("s3://").removesuffix("/")
    assert exact.objects == {f"{below}/{key}": key.encode() for key in EXACT_KEYS}
    listed = store.list_files(root)
    assert [entry.path for entry in listed] == sorted(EXACT_KEYS)
    for entry in listed:
        assert entry.uri == f"{root.removesuffix('/')}/{entry.path}"
        assert (
            store.read_bytes(entry.uri) == store.read_range(entry.uri, 0, entry.size) == entry.path.encode()
        )


def test_keys_that_no_path_keeps_apart_are_delivered_under_names_of_their_own(exact: ExactStore) -> None:
    pictures = {key for key in EXACT_KEYS if key.endswith(".jpg")}
    for key in pictures:
        store.write_bytes(f"s3://bucket/in/{key}", key.encode())
    kind, entries = list_input("s3://bucket/in", "auto")
    assert kind == "folder"
    (shard,) = make_shards(kind, entries, 100)
    (unit,) = cut_units(shard, 100, "image")
    read = {address.member: data.decode() for address, data in read_unit(unit, "image")}
    assert set(read.values()) == pictures
    assert len(read) == len(pictures)
    assert read["a.jpg"] == "a.jpg"
    assert read["x/b.jpg"] == "x/b.jpg"
    assert all(address.is_path for address in unit.images)
    assert read == {path_below(key): key for key in pictures}


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


def without(monkeypatch: pytest.MonkeyPatch, *ways: str) -> None:
    """As on a file system without hard links, exclusive renames, or fsync of folders."""
    sync = os.fsync

    def refuse(number: int) -> Callable[..., None]:
        def call(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    def sync_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            refuse(errno.EINVAL)()
        sync(handle)

    if "link" in ways:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    if "rename" in ways:
        monkeypatch.setattr(exclusive, "_rename_exclusively", refuse(errno.EINVAL))
    if "fsync" in ways:
        monkeypatch.setattr(os, "fsync", sync_files)


POOR = {"no links": ("link", "fsync"), "no exclusive rename": ("link", "rename", "fsync")}


@pytest.mark.parametrize("missing", POOR.values(), ids=POOR)
def test_a_file_system_without_hard_links_or_fsync_of_folders_has_one_winner_and_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    without(monkeypatch, *missing)
    for i in range(5):
        uri = str(tmp_path / "new" / f"claim-{i}")
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda n, uri=uri: store.create_bytes(uri, b"%d" % n * 1000), range(8)))
        assert sum(won) == 1
        assert store.read_bytes(uri) == b"%d" % won.index(True) * 1000
    store.write_bytes(str(tmp_path / "new" / "claim-0"), b"replaced")
    assert store.create_bytes(str(tmp_path / "new" / ("n" * 255)), b"1") is True
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []
    assert len(list((tmp_path / "new").iterdir())) == 6


def test_a_lock_that_a_killed_process_left_is_waited_for_once_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "link", "rename")
    monkeypatch.setattr(exclusive, "ABANDONED", 0.05)
    path = tmp_path / "claim"
    for number in (0, 1):
        exclusive._lock_file(Path(f"x{local.TEMPORARY}"), path, number).touch()
    assert store.create_bytes(str(path), b"whole") is True
    assert store.create_bytes(str(path), b"second") is False
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"claim": b"whole"}


def test_a_writer_killed_before_its_file_has_a_name_claims_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pipeline.io import exclusive, store\n"
        "def refuse(*_): raise OSError(1, 'no links')\n"
        "os.link = exclusive._rename_exclusively = refuse\n"
        "os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.create_bytes(sys.argv[1], b'half')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "claim")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "claim").exists()
    store.sweep(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_right_to_write_is_named_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "link", "rename")

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StoreError, match="the rights or credentials we have do not allow it"):
        store.create_bytes(str(tmp_path / "claim"), b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "what"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the quota is used up")]
)
@pytest.mark.parametrize("write", [store.write_bytes, store.create_bytes], ids=["write", "create"])
def test_a_full_disk_is_an_error_of_its_own_that_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[str, bytes], object],
    number: int,
    what: str,
) -> None:
    (tmp_path / "old").write_bytes(b"old")

    def refuse(_: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreFull, match=f"{what}; free space and start the same command again") as caught:
        write(str(tmp_path / "old"), b"new")
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"old": b"old"}


def test_a_folder_that_can_not_be_looked_into_ends_a_listing_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "lost+found/b.jpg", "c/d.jpg"):
        store.write_bytes(str(tmp_path / name), b"1")
    closed_to_us(monkeypatch, tmp_path / "lost+found")
    with pytest.raises(StoreError, match=r"lost\+found: the rights or credentials we have do not allow it"):
        store.list_files(str(tmp_path))
    refused: list[StoreError] = []
    listed = store.list_files(str(tmp_path), refused=refused.append)
    assert [entry.path for entry in listed] == ["a.jpg", "c/d.jpg"]
    assert [str(tmp_path / "lost+found") in str(error) for error in refused] == [True]
    refused.clear()
    assert store.list_files(str(tmp_path), lambda path: path == "lost+found/", refused.append) == listed
    assert refused == []


def test_an_input_that_can_not_be_looked_into_at_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_to_us(monkeypatch, tmp_path)
    with pytest.raises(StoreError, match="do not allow it"):
        store.list_files(str(tmp_path), refused=lambda _: None)


def closed_to_us(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """As chmod 000 does, which does not stop root."""
    scandir = os.scandir

    def scan(path: str) -> object:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


@pytest.fixture
def as_somebody() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A folder that anybody may look into, and a block in which we have the rights of one who is not root."""

    @contextmanager
    def block() -> Iterator[None]:
        if os.geteuid():
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name), block
        for path in Path(name).iterdir():
            path.chmod(0o755)


def test_without_rights_a_folder_is_named_and_a_file_is_listed_and_fails_when_it_is_read(
    as_somebody: tuple[Path, Callable[[], AbstractContextManager[None]]],
) -> None:
    folder, block = as_somebody
    for name in ("a.jpg", "closed.jpg", "lost+found/b.jpg", "names only/c.jpg", "names only/d.jpg"):
        store.write_bytes(str(folder / name), b"1")
    for name, mode in (("closed.jpg", 0), ("lost+found", 0), ("names only", 0o444)):
        (folder / name).chmod(mode)
    refused: list[StoreError] = []
    with block():
        listed = store.list_files(str(folder), refused=refused.append)
        assert [entry.path for entry in listed] == ["a.jpg", "closed.jpg"]
        with pytest.raises(StoreError, match=r"could not read .*closed.jpg: the rights"):
            store.read_bytes(listed[1].uri)
    assert sorted(str(error).split(":")[0] for error in refused) == [
        f"could not list {folder}/lost+found",
        f"could not look into {folder}/names only",
    ]


def test_what_goes_while_it_is_listed_is_not_listed(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "b/3.jpg", "c/4.jpg"):
        store.write_bytes(str(tmp_path / name), b"1")
    unlooked = set[str]()

    def excluded(path: str) -> bool:
        # called for a folder before it is looked into, and for a file before it is looked at
        unlooked.add(path)
        if path == "c/":
            shutil.rmtree(tmp_path / "c")
        if path == "b/2.jpg":
            (tmp_path / path).unlink()
        return False

    assert [entry.path for entry in store.list_files(str(tmp_path), excluded)] == ["a/1.jpg", "b/3.jpg"]
    assert unlooked == {"a/", "b/", "c/", "a/1.jpg", "b/2.jpg", "b/3.jpg"}


def test_the_longest_name_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    name = "n" * 255
    store.write_bytes(str(tmp_path / name), b"1")
    assert store.create_bytes(str(tmp_path / name), b"2") is False


def test_links_to_nowhere_and_pipes_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(tmp_path / "socket"))
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
from pipeline.io import store
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
        "import os, signal, sys; from pipeline.io import store; "
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
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)  # S3 takes no smaller ones
    monkeypatch.setattr(objects, "PARTS_AT_ONCE", 1)
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
