"""Verdicts of people, carried out by a second start: originals back, faces redone, and every other byte as it was."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, portraits, read_folder, write_folder, write_tar
from PIL import Image

from jobs import verify
from pipeline.ledger.status import Observer
from pipeline.records.rows import ImageRecord
from pipeline.records.verdicts import FORMAT
from pipeline.stages.restore import RestoreFaces

pytestmark = pytest.mark.usefixtures("without_ray")

OPTIONS = ("--unit-images", "3")
REDO = {"start_step": 120, "seed": 3}


def pair() -> bytes:
    """Two faces side by side."""
    beside = Image.new("RGB", (210, 110))
    for place in (0, 110):
        beside.paste(portrait(), (place, 0))
    return encoded(beside, "PNG")


PICTURES = portraits(5) | {"pair.png": pair()}
# its label lies beside it
WITH_SIDECAR = {"old.bmp": encoded(portrait(90, 100), "BMP")}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def write_verdicts(path: Path, verdicts: Sequence[dict[str, Any]], **values: str) -> Path:
    given = [
        {"face": 0, "who": "Ada", "at": f"2026-11-27T17:00:{i:02d}Z"} | v for i, v in enumerate(verdicts)
    ]
    path.write_text(json.dumps({"format": FORMAT, "verdicts": given, **values}))
    return path


def records(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    files = sorted((output / "records").glob("*.parquet"))
    return {(r["member"], r["face"]): r for f in files for r in pq.read_table(f).to_pylist()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, restore) -> tuple[Path, Path]:
    """Photographs, and an output without verdicts."""
    photos = write_folder(tmp_path_factory.mktemp("finished") / "photos", portraits(2))
    assert restore(photos, photos.parent / "out", *OPTIONS) == 0
    return photos, photos.parent / "out"


class Reviewed(NamedTuple):
    """An output whose review is carried out."""

    photos: Path
    output: Path
    file: Path
    # what was delivered before
    before: dict[str, bytes]


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory, restore) -> Reviewed:
    folder = tmp_path_factory.mktemp("reviewed")
    photos, output = write_folder(folder / "photos", PICTURES | WITH_SIDECAR), folder / "out"
    assert restore(photos, output, *OPTIONS) == 0
    before = read_folder(output)
    given = [
        {"picture": "p00.png", "verdict": "accept"},
        {"picture": "p01.png", "verdict": "reject"},
        {"picture": "p03.png", "verdict": "redo", "settings": REDO},
        {"picture": "pair.png", "face": 1, "verdict": "reject"},
    ]
    file = write_verdicts(folder / "verdicts.json", given)
    assert restore(photos, output, *OPTIONS, "--verdicts", str(file)) == 0
    return Reviewed(photos, output, file, before)


def test_verdicts_are_carried_out_and_everything_else_keeps_its_bytes(reviewed, tmp_path, restore, capsys):
    before, after = reviewed.before, read_folder(reviewed.output)
    changed = {path for path in before if path.startswith("images/") and before[path] != after[path]}
    assert changed == {"images/p01.png", "images/p03.png", "images/pair.png"}
    assert after["images/p01.png"] == PICTURES["p01.png"] and "images/old.bmp.xmp" in after
    asked = ("--start-step", "120", "--seed", "3")
    assert restore(reviewed.photos, tmp_path / "asked", *OPTIONS, *asked) == 0
    assert after["images/p03.png"] == (tmp_path / "asked/images/p03.png").read_bytes()
    # the same again does nothing
    assert restore(reviewed.photos, reviewed.output, *OPTIONS, "--verdicts", str(reviewed.file)) == 0
    said = capsys.readouterr().err
    assert "going on with 0 units" in said and "0 units are written again" in said
    pictures = read_folder(reviewed.output / "images")
    assert all(data == after[f"images/{path}"] for path, data in pictures.items())


def test_the_records_say_who_said_what_and_when(reviewed):
    found = records(reviewed.output)
    rejected, redone = found["p01.png", 0], found["p03.png", 0]
    assert (rejected["verdict"], rejected["verdict_by"]) == ("reject", "Ada")
    assert rejected["left_for"] == "rejected"
    assert rejected["kept"] == "rejected by Ada on 2026-11-27T17:00:01Z"
    assert (redone["seed"], redone["start_step"]) == (3, 120)
    assert json.loads(redone["verdict_settings"]) == REDO
    assert (found["p00.png", 0]["verdict"], found["p02.png", 0]["verdict"]) == ("accept", "")
    assert {r["attempts"] for r in found.values() if r["face"] == -1} == {2}
    picture = found["p01.png", -1]
    assert (picture["outcome"], picture["reason"]) == ("skipped", "rejected in review")


def test_one_face_of_a_picture_is_rejected_and_its_neighbour_stays_restored(reviewed):
    was, name = pixels(reviewed.before["images/pair.png"]), "pair.png"
    original, now = pixels(PICTURES[name]), pixels((reviewed.output / "images" / name).read_bytes())
    found = records(reviewed.output)
    for face, wanted in ((1, original), (0, was)):
        x0, y0, x1, y1 = (round(v) for v in found[name, face]["box"])
        here = np.s_[y0:y1, x0:x1]
        assert (now[here] == wanted[here]).all() and (was[here] != original[here]).any()


def test_status_and_verification_know_the_verdicts(reviewed, capsys):
    state = Observer(str(reviewed.output)).look()
    assert state.verdicts == {"accept": 1, "reject": 2, "redo": 1}
    assert verify.main(["--output", str(reviewed.output), "--sample", "7"]) == 0
    assert "6  of 7 asked; 6 equal bit for bit" in capsys.readouterr().out
    kept = reviewed.output / "_ledger/verdicts/images-00000-0000.json"
    data = kept.read_bytes()
    kept.unlink()
    assert verify.main(["--output", str(reviewed.output)]) == 1
    assert "verdicts are not carried out; put them back from a copy" in capsys.readouterr().out
    kept.write_bytes(data)


def test_a_start_that_was_killed_just_before_its_markers_is_gone_on_with(reviewed, restore):
    after = read_folder(reviewed.output)
    for path, data in reviewed.before.items():
        if path.startswith("_ledger/done/"):
            (reviewed.output / path).write_bytes(data)
    assert restore(reviewed.photos, reviewed.output, *OPTIONS) == 0
    again = read_folder(reviewed.output)
    for folder in ("images", "records", "review/tiles"):
        assert [p for p in after if p.startswith(folder) and after[p] != again[p]] == []


def test_a_unit_whose_marker_is_lost_is_done_with_its_verdicts(reviewed, restore):
    before = read_folder(reviewed.output)
    for marker in (reviewed.output / "_ledger/done").rglob("*.json"):
        marker.unlink()
    assert restore(reviewed.photos, reviewed.output, *OPTIONS) == 0
    after = read_folder(reviewed.output)
    for folder in ("images", "records", "review/tiles"):
        assert [p for p in before if p.startswith(folder) and before[p] != after[p]] == []


@pytest.mark.parametrize("kind", ["tar", pytest.param("parquet", marks=pytest.mark.slow)])
def test_pictures_of_a_shard_without_a_verdict_are_carried_over(kind, tmp_path, restore, monkeypatch, capsys):
    source = tmp_path / "in"
    source.mkdir()
    if kind == "tar":
        write_tar(source / "a.tar", PICTURES.items())
        names = list(PICTURES)
    else:
        pq.write_table(
            pa.table({"image": list(PICTURES.values()), "n": list(range(6))}), source / "a.parquet"
        )
        names = [str(i) for i in range(6)]
    output = tmp_path / "out"
    assert restore(source, output, *OPTIONS) == 0
    [first, second] = sorted((output / "shards").iterdir())
    before = first.read_bytes(), second.read_bytes()
    taken = []
    job = RestoreFaces._job

    def noted(self: RestoreFaces, image: ImageRecord, *rest: Any) -> Any:
        taken.append(image.member)
        return job(self, image, *rest)

    monkeypatch.setattr(RestoreFaces, "_job", noted)
    file = write_verdicts(tmp_path / "v.json", [{"picture": names[1], "verdict": "redo", "settings": {}}])
    assert restore(source, output, *OPTIONS, "--verdicts", str(file)) == 0
    assert "verdicts on 1 faces (1 redone): 1 units are written again" in capsys.readouterr().err
    assert taken == [names[1]]
    # as the run's settings have it: the same picture, so that the shards are the same
    assert (first.read_bytes(), second.read_bytes()) == before
    later = {"picture": names[1], "verdict": "reject", "at": "2026-11-28T00:00:00Z"}
    file = write_verdicts(tmp_path / "v2.json", [later])
    assert restore(source, output, *OPTIONS, "--verdicts", str(file)) == 0
    assert taken == [names[1]] and first.read_bytes() != before[0] and second.read_bytes() == before[1]
    assert verify.main(["--output", str(output), "--sample", "3"]) == 0


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ({"picture": "nobody.png", "verdict": "reject"}, "nobody.png, which is no picture of the run"),
        ({"picture": "p01.png", "face": 4, "verdict": "reject"}, "the picture has 1 faces; count from 0"),
        ({"picture": "p01.png", "verdict": "burn"}, "verdict must be one of accept, reject, redo, got 'burn'"),
        ({"picture": "p01.png", "verdict": "redo", "settings": {"eta": 2}}, "eta must be a number from 0 to 1, got 2"),
        ({"picture": "p01.png", "verdict": "redo", "settings": {"start_step": 999}}, "verdict 1: --steps ddim50"),
        ({"picture": "p01.png", "verdict": "reject", "sha256": "a" * 64}, "another version of the picture"),
        ({"picture": "p01.png", "verdict": "reject", "at": "yesterday"}, "at must be a time as"),
    ],
)  # fmt: skip
def test_verdicts_that_can_not_be_carried_out_are_refused_as_a_whole(
    verdict, sentence, finished, tmp_path, restore, capsys
):
    photos, output = finished
    before = read_folder(output / "images")
    good = {"picture": "p00.png", "verdict": "reject"}
    file = write_verdicts(tmp_path / "v.json", [verdict, good])
    assert restore(photos, output, *OPTIONS, "--verdicts", str(file)) == 2
    assert sentence in capsys.readouterr().err
    assert read_folder(output / "images") == before and not (output / "_ledger/verdicts").exists()


def test_verdicts_of_another_run_and_other_orders_beside_them_are_refused(
    finished, tmp_path, restore, capsys
):
    photos, output = finished
    file = write_verdicts(tmp_path / "v.json", [{"picture": "p00.png", "verdict": "reject"}], run="f" * 32)
    assert restore(photos, output, *OPTIONS, "--verdicts", str(file)) == 2
    assert "was given for another run" in capsys.readouterr().err
    file.write_text("no verdicts")
    assert restore(photos, output, *OPTIONS, "--verdicts", str(file)) == 2
    assert "JSON was wanted" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        restore(photos, output, *OPTIONS, "--verdicts", str(file), "--retry", "failed")
    assert "--verdicts is an order of its own" in capsys.readouterr().err
