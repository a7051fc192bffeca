"""Lists of faces that people name: what a spreadsheet may hold, and what is refused."""

import os

import pytest

from pipeline.io.face_list import BadList, read_face_list


def listed(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "faces.csv"
    path.write_text(text, encoding)
    return read_face_list(str(path))


BOX = (10.0, 20.0, 30.0, 40.0)


def test_a_picture_alone_a_number_and_a_region_name_faces(tmp_path):
    found = listed(
        tmp_path, 'picture,face,x0,y0,x1,y1\nall.jpg,,,,,\n"a, b.jpg",1,,,,\nbox.jpg,,15,25,90,90\n'
    )
    assert found.names("all.jpg", 7, BOX) and not found.names("other.jpg", 0, BOX)
    assert found.names("a, b.jpg", 1, BOX) and not found.names("a, b.jpg", 0, BOX)
    # the middle of the box is (20, 30)
    assert found.names("box.jpg", 0, BOX) and not found.names("box.jpg", 0, (0.0, 0.0, 20.0, 40.0))
    assert found.regions("box.jpg") == [(15.0, 25.0, 90.0, 90.0)] and found.regions("all.jpg") == []


def test_what_spreadsheets_write_reads_the_same(tmp_path):
    plain = listed(tmp_path, "picture,face\nä.jpg,1\nb.jpg,\n")
    assert listed(tmp_path, "\ufeffpicture , face\r\nb.jpg,\r\nä.jpg, 1 \r\n,\r\n").digest == plain.digest
    assert listed(tmp_path, "picture,face\nä.jpg,2\nb.jpg,\n").digest != plain.digest
    assert listed(tmp_path, "picture\ncaf\\udce9.jpg\n").names(os.fsdecode(b"caf\xe9.jpg"), 0, BOX)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "",
            "a first line with the columns picture and face, or picture, x0, y0, x1, y1 was wanted, got nothing",
        ),
        ("a.jpg,1\n", "was wanted, got a.jpg, 1"),
        ("picture,face\n", "at least one picture was wanted, the list is empty"),
        ("picture,face\n,1\n", "line 2: the picture's name is missing"),
        (
            "picture,face\na.jpg,first\n",
            "line 2: face must be its number as in the records, from 0, got 'first'",
        ),
        (
            "picture,face\na,b.jpg,1\n",
            "line 2: more cells than the first line has; put names with commas in quotes",
        ),
        ("picture,x0,y0,x1,y1\na.jpg,5,5,5,9\n", "line 2: a face's number or a region with x0 < x1"),
        ("picture,x0,y0,x1,y1\na.jpg,1,2,3,\n", "got x0 1, y0 2, x1 3, y1 empty"),
        ("picture,x0,y0,x1,y1\na.jpg,1,2,nan,3\n", "a region with x0 < x1 and y0 < y1 was wanted"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(text, sentence, tmp_path):
    with pytest.raises(BadList, match=r"faces\.csv") as refused:
        listed(tmp_path, text)
    assert sentence in str(refused.value)


def test_a_list_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(BadList, match="can not be read"):
        read_face_list(str(tmp_path / "none.csv"))
    with pytest.raises(BadList, match="can not be read"):
        listed(tmp_path, "picture,face\nä.jpg,1\n", "latin-1")
