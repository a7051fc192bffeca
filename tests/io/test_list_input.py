"""An input is listed but for what is excluded or closed, and what is planned stays planned."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import S3Server

from pipeline.io import store
from pipeline.io.shards import MOST_WARNINGS, InputError, list_input, path_below
from pipeline.ledger.ledger import Ledger

PICTURES = ("a.jpg", "b_small.jpg", "lost+found/c.jpg", "lost+found/deep/d.jpg", "x/e.jpg", "x/f_small.jpg")


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The pictures, once in a local folder and once in the bucket."""
    place = str(tmp_path / "in")
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        place = store.join(server.uri, tmp_path.name)
    for name in PICTURES:
        store.write_bytes(store.join(place, name), b"x")
    return place


def paths(root: str, *exclude: str) -> list[str]:
    return [entry.path for entry in list_input(root, "auto", exclude)[1]]


def test_what_is_excluded_is_not_listed(root: str) -> None:
    assert paths(root) == sorted(PICTURES)
    assert paths(root, "lost+found", "*_small.jpg") == ["a.jpg", "x/e.jpg"]
    assert paths(root, "lost+found/*") == ["a.jpg", "b_small.jpg", "x/e.jpg", "x/f_small.jpg"]
    assert paths(root, "**/deep/**", "x/*") == ["a.jpg", "b_small.jpg", "lost+found/c.jpg"]


def test_an_input_all_of_which_is_excluded_is_refused_with_the_patterns(root: str) -> None:
    with pytest.raises(
        InputError, match=r"holds 0 files beside what --exclude \*.jpg --exclude x leaves out"
    ):
        paths(root, "*.jpg", "x")


def test_what_is_excluded_does_not_decide_about_the_kind(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "old.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="choose one with --kind"):
        list_input(str(tmp_path), "auto")
    assert list_input(str(tmp_path), "auto", ["*.tar"])[0] == "folder"


def close(monkeypatch: pytest.MonkeyPatch, *closed: Path) -> None:
    """As chmod 000 does, which does not stop root."""
    scandir = os.scandir

    def scan(path: str) -> object:
        if Path(path) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_a_folder_without_rights_is_named_once_and_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PICTURES:
        store.write_bytes(str(tmp_path / name), b"x")
    close(monkeypatch, tmp_path / "lost+found")
    assert paths(str(tmp_path)) == ["a.jpg", "b_small.jpg", "x/e.jpg", "x/f_small.jpg"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: could not list {tmp_path}/lost+found: ") and "--exclude" in line
    assert paths(str(tmp_path), "lost+found") == ["a.jpg", "b_small.jpg", "x/e.jpg", "x/f_small.jpg"]
    assert capsys.readouterr().err == ""


def test_of_many_folders_without_rights_the_first_are_named_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / f"{i:02d}" for i in range(MOST_WARNINGS + 7)]
    for folder in folders:
        folder.mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    close(monkeypatch, *folders)
    said: list[str] = []
    _, entries = list_input(str(tmp_path), "auto", say=said.append)
    assert [entry.path for entry in entries] == ["a.jpg"]
    assert len(said) == MOST_WARNINGS + 1
    assert said[-1] == "warning: 7 more folders or files could not be listed and are left out"


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """A start of a run over `in` with these patterns; the paths of each shard that is planned then."""

    def start(*exclude: str) -> list[list[str]]:
        ledger = Ledger(str(tmp_path / "out"), {})
        ledger.claim(str(tmp_path / "in"))
        listed = list_input(str(tmp_path / "in"), "auto", exclude)
        ledger.plan(str(tmp_path / "in"), "auto", 100, 2, "image", listed=listed)
        return [[file.path for file in planned.shard.files] for planned in ledger.shards]

    return start


def test_later_starts_with_other_patterns_lose_nothing_that_is_planned(
    tmp_path: Path, plan: Callable[..., list[list[str]]]
) -> None:
    for name in ("a.jpg", "b.jpg", "x/c.jpg"):
        store.write_bytes(str(tmp_path / "in" / name), b"x")
    assert plan("x") == [["a.jpg", "b.jpg"]]
    assert plan("b.jpg", "x") == [["a.jpg", "b.jpg"]]
    assert plan() == [["a.jpg", "b.jpg"], ["x/c.jpg"]]
    assert plan("a.jpg", "x") == [["a.jpg", "b.jpg"], ["x/c.jpg"]]


def test_only_what_is_no_path_gets_another_one() -> None:
    for path in ("a.jpg", "x/y/a b.jpg", "..a/b.jpg", "...", "_/a.jpg"):
        assert path_below(path) == path
    odd = ["/a.jpg", "//a.jpg", "x//a.jpg", "./a.jpg", "../a.jpg", "x/../a.jpg", "x/./a.jpg"]
    others = [path_below(path) for path in odd]
    assert len({*others, "a.jpg", "x/a.jpg"}) == len(odd) + 2
    assert all(other.endswith("/a.jpg") and not {"", ".", ".."} & set(other.split("/")) for other in others)
    # neighbours stay neighbours
    assert path_below("x//a.mask.png").rsplit("/", 1)[0] == path_below("x//a.jpg").rsplit("/", 1)[0]
