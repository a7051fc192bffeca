"""Faces that people name before anything is restored: --only and --never."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, portraits, write_folder
from PIL import Image

from jobs import verify

pytestmark = pytest.mark.usefixtures("without_ray")


def crowd() -> bytes:
    """Two faces so near that the crop of each reaches over the other, as a JPEG."""
    beside = Image.new("RGB", (160, 110))
    beside.paste(portrait(), (60, 0))
    beside.paste(portrait().crop((15, 0, 90, 110)), (0, 0))
    return encoded(beside, "JPEG", quality=95, subsampling=0)


PICTURES = portraits(2) | {"crowd.jpg": crowd()}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def rows(output: Path) -> dict[tuple[str, int], dict]:
    files = (output / "records").glob("*.parquet")
    return {(r["member"], r["face"]): r for f in files for r in pq.read_table(f).to_pylist()}


def restored(restore, folder: Path, *options: str) -> Path:
    photos = write_folder(folder / "photos", PICTURES)
    assert restore(photos, folder / "out", *options) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def whole(restore, tmp_path_factory) -> Path:
    return restored(restore, tmp_path_factory.mktemp("whole"))


def test_a_face_that_must_not_be_touched_keeps_its_pixels_though_a_neighbour_is_restored(
    whole, restore, tmp_path, capsys
):
    boxes = {n: rows(whole)["crowd.jpg", n]["box"] for n in (0, 1)}
    before, everything = pixels(PICTURES["crowd.jpg"]), pixels((whole / "images/crowd.jpg").read_bytes())
    never = tmp_path / "never.csv"
    never.write_text("picture,face\ncrowd.jpg,1\np01.png,\nnowhere.jpg,\n")
    output = restored(restore, tmp_path, "--never", str(never))
    assert "1 of 3 pictures of --never are not in the input: nowhere.jpg" in capsys.readouterr().err
    after = pixels((output / "images/crowd.jpg").read_bytes())
    x0, y0, x1, y1 = (round(v) for v in boxes[1])
    assert (everything[y0:y1, x0:x1] != before[y0:y1, x0:x1]).any()
    assert (after[y0:y1, x0:x1] == before[y0:y1, x0:x1]).all()
    # its neighbour reaches into the same box, and is restored
    x0, y0, x1, y1 = (round(v) for v in boxes[0])
    assert (after[y0:y1, x0:x1] != before[y0:y1, x0:x1]).any()
    found = rows(output)
    assert found["crowd.jpg", 1]["left_for"] == "named" and found["crowd.jpg", 0]["left_for"] == ""
    assert found["crowd.jpg", 1]["kept"] == "it is named in --never"
    assert (output / "images/p01.png").read_bytes() == PICTURES["p01.png"]
    assert found["p01.png", -1]["reason"] == "not to be touched, by --never or --only"
    assert verify.main(["--output", str(output), "--sample", "3"]) == 0
    # the list belongs to the run
    never.write_text("picture,face\ncrowd.jpg,0\n")
    assert restore(tmp_path / "photos", output, "--never", str(never)) == 2
    assert "never: " in capsys.readouterr().err


def test_a_region_keeps_its_pixels_where_no_face_is_found(whole, restore, tmp_path):
    never = tmp_path / "never.csv"
    never.write_text("picture,x0,y0,x1,y1\np00.png,30,60,50,80\n")
    output = restored(restore, tmp_path, "--never", str(never))
    before, after = pixels(PICTURES["p00.png"]), pixels((output / "images/p00.png").read_bytes())
    there = pixels((whole / "images/p00.png").read_bytes())
    assert (after[60:80, 30:50] == before[60:80, 30:50]).all() and (
        there[60:80, 30:50] != before[60:80, 30:50]
    ).any()
    assert (after[20:40] == there[20:40]).all() and rows(output)["p00.png", 0]["left_for"] == ""


def test_only_the_faces_that_are_named_are_restored(restore, tmp_path):
    only = tmp_path / "only.csv"
    only.write_text("picture,face\np01.png,0\n")
    output = restored(restore, tmp_path, "--only", str(only))
    for name in ("p00.png", "crowd.jpg"):
        assert (output / "images" / name).read_bytes() == PICTURES[name]
    found = rows(output)
    assert found["p00.png", 0]["kept"] == "it is not named in --only"
    assert found["p01.png", -1]["outcome"] == "restored"
    settings = json.loads((output / "_ledger/run.json").read_text())["fingerprint"]
    assert len(settings["only"]) == 64 and "never" not in settings


def test_a_list_that_is_none_is_refused_before_anything_is_written(restore, tmp_path, capsys):
    photos = write_folder(tmp_path / "photos", portraits(1))
    (tmp_path / "list.csv").write_text("name\na.jpg\n")
    assert restore(photos, tmp_path / "out", "--never", str(tmp_path / "list.csv")) == 2
    assert "a first line with the columns picture and face" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
