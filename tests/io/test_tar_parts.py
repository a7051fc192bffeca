"""What a unit delivers of a tar: its pictures replaced, all else as it was, and a tar that unpacks alone."""

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.io.delivered import tar_pictures
from pipeline.io.readers import read_unit
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.io.tar_parts import Replacement, tar_part
from pipeline.io.units import Unit

DOUBLE = b"\0\5\x16\7 attributes"


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.LNKTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


def units_of(folder: Path, members, unit_images: int = 1) -> list[Unit]:
    with tarfile.open(folder / "s.tar", "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    kind, entries = list_input(str(folder), "auto")
    (shard,) = make_shards(kind, entries, 1024)
    return cut_units(shard, unit_images, "image")


def parts_of(folder: Path, units: list[Unit], most: int = 1000, restore=bytes.upper) -> list[bytes]:
    """The tars that units deliver whose pictures are changed by `restore`."""
    data = (folder / "s.tar").read_bytes()
    read = [[d for _, d in read_unit(u, "image")] for u in units]
    pictures = [[restore(d) if isinstance(d, bytes) else None for d in some] for some in read]
    given = zip(units, pictures, strict=True)
    return [tar_part(io.BytesIO(data), len(data), u, [Replacement(d) for d in p], most) for u, p in given]


def unpacked(part: bytes, folder: Path) -> dict[str, bytes | str]:
    """The files that a tar alone unpacks to, by path; of a symbolic link where it leads."""
    with tarfile.open(fileobj=io.BytesIO(part)) as tar:
        tar.extractall(folder, filter="tar")
    paths = [p for p in folder.rglob("*") if p.is_symlink() or p.is_file()]
    return {
        str(p.relative_to(folder)): str(p.readlink()) if p.is_symlink() else p.read_bytes() for p in paths
    }


def all_unpacked(folder: Path, parts: list[bytes]) -> dict[str, bytes | str]:
    return {k: v for i, part in enumerate(parts) for k, v in unpacked(part, folder / f"{i}").items()}


def test_a_hard_link_to_a_picture_of_another_unit_is_restored_as_a_picture_of_its_own(tmp_path):
    units = units_of(
        tmp_path, [member("d/0.jpg", b"one"), link("e/0.jpg", "d/0.jpg"), link("f/0.jpg", "./e/0.jpg")]
    )
    assert [[(a.member, a.refused) for a in u.images] for u in units] == [
        [("d/0.jpg", "")], [("e/0.jpg", "")], [("f/0.jpg", "")],
    ]  # fmt: skip
    parts = parts_of(tmp_path, units)
    assert all_unpacked(tmp_path / "out", parts) == {"d/0.jpg": b"ONE", "e/0.jpg": b"ONE", "f/0.jpg": b"ONE"}
    assert [list(tar_pictures(io.BytesIO(p))) for p in parts[1:]] == [
        [("e/0.jpg", b"ONE")],
        [("f/0.jpg", b"ONE")],
    ]


def test_a_hard_link_in_its_target_s_unit_is_restored_too(tmp_path):
    units = units_of(
        tmp_path, [member("a.jpg", b"one"), member("b.jpg"), link("c.jpg", "a.jpg")], unit_images=9
    )
    (part,) = parts_of(tmp_path, units)
    assert unpacked(part, tmp_path / "out") == {"a.jpg": b"ONE", "b.jpg": b"", "c.jpg": b"ONE"}


def test_a_hard_link_behind_an_empty_picture_is_not_taken_for_it(tmp_path):
    units = units_of(
        tmp_path, [member("a.jpg", b"one"), member("b.jpg"), link("c.jpg", "a.jpg")], unit_images=9
    )
    data = (tmp_path / "s.tar").read_bytes()
    part = tar_part(
        io.BytesIO(data), len(data), units[0], [Replacement(d) for d in (b"ONE", b"EMPTY", b"LINK")], 1000
    )
    assert list(tar_pictures(io.BytesIO(part))) == [
        ("a.jpg", b"ONE"),
        ("b.jpg", b"EMPTY"),
        ("c.jpg", b"LINK"),
    ]


def test_sidecars_that_link_into_another_unit_become_files_and_others_stay_links(tmp_path):
    members = [
        member("a.jpg", b"one"), member("a.json", b"{1}"), link("a.txt", "a.json"),
        member("b.jpg", b"two"), link("b.json", "a.json"), link("b.txt", "a.txt"), link("b.raw", "a.jpg"),
        link("b.xmp", "b.jpg"), link("b.lost", "nowhere"),
    ]  # fmt: skip
    units = units_of(tmp_path, members)
    first, second = parts_of(tmp_path, units)
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {m.name: m.islnk() for m in tar} == {"a.jpg": False, "a.json": False, "a.txt": True}
    with tarfile.open(fileobj=io.BytesIO(second)) as tar:
        kinds = {m.name: m.islnk() for m in tar}
        assert kinds == {
            "b.jpg": False,
            "b.json": False,
            "b.txt": False,
            "b.raw": False,
            "b.xmp": True,
            "b.lost": True,
        }
        assert {n: tar.extractfile(n).read() for n in kinds if n != "b.lost"} == {
            "b.jpg": b"TWO", "b.json": b"{1}", "b.txt": b"{1}", "b.raw": b"one", "b.xmp": b"TWO",
        }  # fmt: skip


def test_a_hard_link_to_a_symbolic_link_of_another_unit_leads_where_that_one_does(tmp_path):
    members = [member("a.jpg", b"one"), link("a.txt", "../far", tarfile.SYMTYPE), member("b.jpg", b"two")]
    units = units_of(tmp_path, [*members, link("b.txt", "a.txt"), link("c.jpg", "a.txt")])
    parts = parts_of(tmp_path, units)
    assert units[2].images[0].refused == "not a file"
    with tarfile.open(fileobj=io.BytesIO(parts[1])) as tar:
        assert [(m.name, m.linkname) for m in tar if m.issym()] == [("b.txt", "../far")]
    with tarfile.open(fileobj=io.BytesIO(parts[2])) as tar:
        assert [(m.name, m.linkname) for m in tar if m.issym()] == [("c.jpg", "../far")]


def test_the_links_of_a_picture_that_is_left_out_are_left_out_with_it(tmp_path):
    members = [
        member("a.jpg", b"x" * 2000),
        link("a.raw", "a.jpg"),
        link("a.png", "a.jpg"),
        member("a.txt", b"t"),
    ]
    (part,) = parts_of(tmp_path, units_of(tmp_path, members, unit_images=9))
    assert unpacked(part, tmp_path / "out") == {"a.txt": b"t"}


def test_a_link_whose_picture_could_not_be_read_keeps_the_input_s_bytes(tmp_path):
    units = units_of(tmp_path, [member("a.jpg", b"one"), link("b.jpg", "a.jpg")])
    parts = parts_of(tmp_path, units, restore=lambda _: None)
    assert all_unpacked(tmp_path / "out", parts) == {"a.jpg": b"one", "b.jpg": b"one"}


def test_attributes_of_a_mac_are_no_pictures_and_pass_unchanged_beside_theirs(tmp_path):
    members = [
        member(f"./{name}", data, mtime=1.5, uname="Übel", pax_headers={"LIBARCHIVE.xattr.x": "MDA4MQ"})
        for name, data in (
            ("._a.jpg", DOUBLE), ("a.jpg", b"one"), ("a.json", b"{}"),
            ("._b.jpg", DOUBLE), ("b.jpg", b"two"), ("__MACOSX/._b.jpg", DOUBLE), (".DS_Store", b"x"),
        )
    ]  # fmt: skip
    units = units_of(tmp_path, members)
    assert [[a.member for a in u.images] for u in units] == [["./a.jpg"], ["./b.jpg"]]
    parts = parts_of(tmp_path, units)
    with tarfile.open(fileobj=io.BytesIO(parts[1])) as tar:
        assert tar.getnames() == ["./._b.jpg", "./b.jpg", "./__MACOSX/._b.jpg", "./.DS_Store"]
    assert [n for p in parts for n, _ in tar_pictures(io.BytesIO(p))] == ["./a.jpg", "./b.jpg"]
    given = (tmp_path / "s.tar").read_bytes()
    for part in parts:
        with tarfile.open(fileobj=io.BytesIO(part)) as tar:
            ends = [*[m.offset for m in tar][1:], None]
            for m, end in zip(tar, ends, strict=True):
                whole = part[m.offset : end].rstrip(b"\0")
                assert (whole in given) == (not m.name.endswith(("/a.jpg", "/b.jpg"))), m.name


@pytest.mark.parametrize("unit_images", [1, 2, 9])
def test_records_that_hold_for_all_later_members_are_kept_with_them(tmp_path, unit_images):
    with tarfile.open(tmp_path / "s.tar", "w", pax_headers={"mtime": "77.5"}) as tar:
        for name in ("a.jpg", "a.json", "b.jpg", "b.json"):
            tar.addfile(*member_of(name))
    kind, entries = list_input(str(tmp_path), "auto")
    units = cut_units(make_shards(kind, entries, 1024)[0], unit_images, "image")
    found = []
    for part in parts_of(tmp_path, units):
        with tarfile.open(fileobj=io.BytesIO(part)) as tar:
            found += [(m.name, m.mtime) for m in tar]
    assert [name for name, _ in found] == ["a.jpg", "a.json", "b.jpg", "b.json"]
    assert [time for _, time in found][:2] == [77.5, 77.5]


def member_of(name: str) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info, data = member(name, b"data")
    return info, io.BytesIO(data)
