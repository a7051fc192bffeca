"""Names of the pictures in tars: one WebDataset sample for each."""

import os
import re

import pytest

from pipeline.io.images import is_image_name
from pipeline.io.webdataset import suffix_of, webdataset_names

# as the library webdataset parts a name (tariterators.base_plus_ext)
PARTS = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def keys_of(names):
    """The keys that a WebDataset reader finds, and the extensions."""
    found = [PARTS.match(name) for name in names]
    assert all(found), names
    return [m.group(1) for m in found], [m.group(2) for m in found]


def test_names_that_are_one_sample_each_stay_as_they_are():
    names = ["a.jpg", "s.tar/a/b.PNG", "v1.0/a.jpg", "ü/scan 10.tif", "-x.webp"]
    assert webdataset_names(names, [".jpg"] * 5) == names


def test_dots_in_file_names_and_suffixes_make_no_shared_samples():
    names = ["IMG.1.jpg", "IMG.2.jpg", "x.jpg", "x.png", "v1.0/a.jpg"]
    named = webdataset_names(names, [".jpg"] * 5)
    keys, extensions = keys_of(named)
    assert len(set(keys)) == 5 and extensions == ["jpg", "jpg", "jpg", "png", "jpg"]
    assert named[:2] == ["IMG_1.jpg", "IMG_2.jpg"] and named[4] == "v1.0/a.jpg"
    assert re.fullmatch(r"x-[0-9a-f]{8}\.jpg", named[2]) and re.fullmatch(r"x-[0-9a-f]{8}\.png", named[3])


def test_a_name_depends_on_no_order():
    names = ["x.jpg", "x.png", "x.gif", "y.jpg"]
    there = dict(zip(names, webdataset_names(names, [""] * 4), strict=True))
    back = dict(zip(names[::-1], webdataset_names(names[::-1], [""] * 4), strict=True))
    assert there == back


def test_a_row_of_a_table_gets_the_suffix_of_its_format():
    names = webdataset_names(["p.parquet/0", "p.parquet/1", "s.tar/a.png@1024"], [".jpg", ".tif", ".png"])
    assert names == ["p.parquet/0.jpg", "p.parquet/1.tif", "s.tar/a_png@1024.png"]
    assert [suffix_of(f) for f in ("JPEG", "TIFF", "PNG", "WEBP")] == [".jpg", ".tif", ".png", ".webp"]


def test_pictures_that_are_written_in_another_format_have_its_suffix():
    assert webdataset_names(["a.jpg", "b/c.d.tiff", "0"], default=".png") == ["a.png", "b/c_d.png", "0.png"]


@pytest.mark.parametrize(
    "names",
    [
        ["a\nb.jpg", "a_b.jpg", "dir\nx.1/c.jpg"],
        [os.fsdecode(b"caf\xe9.jpg"), "caf\u00e9.jpg"],
        ["s.tar/../../a.jpg", "s.tar//a.jpg", "s.tar/./a.jpg", "/a.jpg", "../a.jpg"],
        ["n" * 251 + ".jpg", "n" * 251 + ".png", "é" * 125 + "1.jpg", "é" * 125 + "1.2.jpg"],
        ["a.jpg", "a.jpg", "a.jpg"],
        ["..jpg", "._.jpg", "....png", "a..jpg"],
        ["\u202egpj.jpg", "%s.jpg", "<b>.jpg", 'a"b,c.jpg'],
    ],
)
def test_whatever_the_names_each_picture_is_a_sample_that_unpacks_in_its_folder(names):
    named = webdataset_names(names, [".jpg"] * len(names))
    assert len(set(keys_of(named)[0])) == len(names)
    for name in named:
        assert is_image_name(name) and name.isprintable()
        assert not {"", ".", ".."} & set(name.split("/"))
        assert all(len(part.encode()) <= 255 for part in name.split("/"))


def test_a_picture_whose_name_ends_as_another_s_added_digits_keeps_a_sample_of_its_own():
    added = webdataset_names(["x.jpg", "x.png"], ["", ""])[0]
    names = ["x.jpg", "x.png", added]
    assert len(set(keys_of(webdataset_names(names, [""] * 3))[0])) == 3
