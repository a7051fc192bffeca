"""Shards are found and cut by their content alone."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.io import store
from pipeline.io.shards import (
    InputError,
    cut_units,
    fitting_unit,
    list_input,
    make_shards,
    sample_key,
    shard_name,
)


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def units_of(folder, unit_images=2, kind="auto", column="image"):
    found, entries = list_input(str(folder), kind)
    return [u for s in make_shards(found, entries, 1024) for u in cut_units(s, unit_images, column)]


def test_a_folder_is_cut_by_sorted_path(tmp_path):
    for name in ("b.jpg", "a.png", "sub/c.jpeg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    units = units_of(tmp_path)
    assert [[a.member for a in u.images] for u in units] == [["a.png", "b.jpg"], ["sub/c.jpeg"]]
    assert [(u.name, u.last) for u in units] == [("images-00000-0000", False), ("images-00000-0001", True)]


def test_images_that_come_later_form_further_shards_and_move_nothing(tmp_path):
    for name in "bd":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    kind, entries = list_input(str(tmp_path), "auto")
    before = make_shards(kind, entries, 1024)
    for name in "ac":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    after = make_shards(kind, list_input(str(tmp_path), "auto")[1], 1024, before)
    assert after[0] == before[0]
    assert [f.path for f in after[1].files] == ["a.png", "c.png"]


def test_a_tar_unit_keeps_samples_whole_and_its_span_holds_them(tmp_path):
    members = [
        (f"{k}.{suffix}", f"{k}{suffix}".encode()) for k in ("s1", "s2", "s3") for suffix in ("json", "jpg")
    ]
    write_tar(tmp_path / "shard.tar", members)
    units = units_of(tmp_path, unit_images=2)
    assert [[a.member for a in u.images] for u in units] == [["s1.jpg", "s2.jpg"], ["s3.jpg"]]
    data = (tmp_path / "shard.tar").read_bytes()
    for unit in units:
        for image in unit.images:
            assert data[image.offset : image.offset + image.length] == image.member.replace(".", "").encode()
    assert units[0].span[1] == units[1].span[0]
    with tarfile.open(fileobj=io.BytesIO(data[slice(*units[1].span)])) as second:
        assert second.getnames() == ["s3.json", "s3.jpg"]


def test_names_longer_than_a_header_are_inside_the_span(tmp_path):
    long = "n" * 180
    write_tar(tmp_path / "long.tar", [("a.jpg", b"1"), (f"{long}.jpg", b"2"), (f"{long}x.jpg", b"3")])
    units = units_of(tmp_path, unit_images=1)
    data = (tmp_path / "long.tar").read_bytes()
    names = []
    for unit in units:
        with tarfile.open(fileobj=io.BytesIO(data[slice(*unit.span)])) as part:
            names += part.getnames()
    assert names == ["a.jpg", f"{long}.jpg", f"{long}x.jpg"]


def test_parquet_rows_are_cut_and_a_missing_column_is_named(tmp_path):
    pq.write_table(pa.table({"image": [b"1", b"2", b"3"], "id": [1, 2, 3]}), tmp_path / "p.parquet")
    units = units_of(tmp_path)
    assert [[a.offset for a in u.images] for u in units] == [[0, 1], [2]]
    with pytest.raises(
        InputError, match=r"no column 'jpg' \(it has \['image', 'id'\]\); name it with --image-column"
    ):
        units_of(tmp_path, column="jpg")


def test_an_input_without_images_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(InputError, match=r"holds 1 files and none of them is one"):
        list_input(str(tmp_path), "auto")


def test_an_input_of_several_kinds_asks_for_a_choice(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    write_tar(tmp_path / "b.tar", [("c.jpg", b"x")])
    with pytest.raises(InputError, match="choose one with --kind"):
        list_input(str(tmp_path), "auto")
    assert list_input(str(tmp_path), "tar")[0] == "tar"


def test_a_file_that_is_no_tar_is_refused_with_its_name(tmp_path):
    (tmp_path / "broken.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(InputError, match=r"broken\.tar is no readable tar file"):
        units_of(tmp_path)


def test_shard_names_are_safe_and_unique():
    paths = (
        "a/b.tar",
        "a--b.tar",
        "a b.tar",
        "a_b.tar",
        "ä.tar",
        "b.tar",
        "b.TAR",
        "x/y/z.tar",
        "x--y/z.tar",
    )
    names = [shard_name(p) for p in (*paths, f"{'n' * 250}.tar", f"{'n' * 249}m.tar", f"{'d/' * 200}a.tar")]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 120
    assert names[0] == "a--b" and names[5] == "b"
    assert all(c.isascii() and (c.isalnum() or c in "-_.") for n in names for c in n)


def test_the_key_of_a_sample_ends_at_the_first_dot_of_the_file_name():
    assert sample_key("v1.2/img.seg.png") == "v1.2/img"


@pytest.mark.parametrize(
    ("kind", "sizes", "most"),
    [
        ("folder", [9] * 1, 1),
        ("folder", [9] * 20, 1),
        ("folder", [9] * 100, 6),
        ("folder", [9] * 5000, 64),
        ("tar", [700], 1),
        ("tar", [16 << 20, 16 << 20], 8),
        ("parquet", [1 << 40], 64),
    ],
)
def test_a_run_is_cut_into_enough_units_to_keep_cores_busy(kind, sizes, most):
    assert fitting_unit(kind, [store.Entry(f"{i}", f"{i}", size, "") for i, size in enumerate(sizes)]) == most
