"""Labels of people, from JSON files beside pictures and from tables."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.console.options import UsageError
from pipeline.datasets.faces import FaceAddress, find_faces
from pipeline.evaluation.labels import MOST_LABELS, read_labels

FACES = [FaceAddress("s.tar", i, 1, name) for i, name in enumerate(["a/1.jpg", "b/1.jpg", "b/2.png"])]


@pytest.fixture
def folder(tmp_path):
    """Pictures of which each has another kind of JSON file, and the last one none."""
    sidecars = [{"group": 7, "sex": "F"}, {"sex": "", "landmarks": [1, 2]}, [1], None]
    for name, contents in zip("abcd", sidecars, strict=True):
        (tmp_path / f"{name}.png").write_bytes(b"")
        if contents is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(contents))
    (tmp_path / "c.json").write_text("{broken")
    return tmp_path


def test_labels_are_taken_from_the_json_beside_a_picture(folder):
    faces = find_faces(str(folder)).faces
    assert read_labels(faces, None, None) == {"group": ["7", None, None, None]}
    assert read_labels(faces, ("sex",), None) == {"sex": ["F", None, None, None]}


def test_labels_are_taken_from_the_json_members_of_a_tar(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in (("x/1.jpg", b"-"), ("x/1.json", b'{"age": "20-29"}'), ("x/2.jpg", b"-")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    faces = find_faces(str(tmp_path / "s.tar")).faces
    assert read_labels(faces, ("age",), None) == {"age": ["20-29", None]}


def test_without_a_group_nothing_is_split_and_a_column_that_nobody_has_is_refused(folder):
    (folder / "a.json").unlink()
    faces = find_faces(str(folder)).faces
    assert read_labels(faces, None, None) == {}
    (folder / "b.json").write_text('{"sex": "M"}')
    with pytest.raises(UsageError, match=r"--by age: .* they have sex"):
        read_labels(faces, ("age",), None)


def test_a_table_names_pictures_by_the_end_of_their_path_with_or_without_suffix(tmp_path):
    (tmp_path / "t.csv").write_text("file,sex\na/1.jpg,F\n1,M\n2.jpg,X\n")
    assert read_labels(FACES, ("sex",), str(tmp_path / "t.csv")) == {"sex": ["F", "M", "X"]}
    pq.write_table(pa.table({"key": ["b/1"], "n": [3]}), tmp_path / "t.parquet")
    assert read_labels(FACES, ("n",), str(tmp_path / "t.parquet")) == {"n": [None, "3", None]}


def test_a_table_of_other_pictures_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("name,sex\nother.jpg,F\n")
    with pytest.raises(UsageError, match="its first column names none of 3 pictures; give names such as "):
        read_labels(FACES, ("sex",), str(tmp_path / "t.csv"))


def test_a_broken_table_and_a_column_of_too_many_labels_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(UsageError, match="expected a CSV or Parquet table"):
        read_labels(FACES, ("sex",), str(tmp_path / "t.parquet"))
    many = [FaceAddress("s.tar", i, 1, f"{i}.jpg") for i in range(MOST_LABELS + 1)]
    (tmp_path / "t.csv").write_text("name,id\n" + "".join(f"{i},{i}\n" for i in range(MOST_LABELS + 1)))
    with pytest.raises(UsageError, match="give a column of ranges"):
        read_labels(many, ("id",), str(tmp_path / "t.csv"))
    assert len(read_labels(many[1:], ("id",), str(tmp_path / "t.csv"))["id"]) == MOST_LABELS
