"""The whole job on local files: folders, tars and Parquet in, the same names out, every image accounted for."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from photographs import (
    LATIN_1,
    ORIENTATION,
    OUTCOMES,
    TURNED,
    encoded,
    mixed,
    pixels,
    portrait,
    portraits,
    read_folder,
    write_folder,
    write_tar,
)
from PIL import Image

from jobs import restore as job

pytestmark = pytest.mark.usefixtures("without_ray")

RESTORED = sorted(name for name, (outcome, _) in OUTCOMES.items() if outcome == "restored")


class Finished(NamedTuple):
    """A run that came to its end."""

    source: Path
    output: Path
    code: int
    shown: str

    def delivered(self, name: str) -> bytes:
        return (self.output / "images" / name).read_bytes()


@pytest.fixture(scope="module")
def archive() -> dict[str, bytes]:
    return mixed()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, restore, archive) -> Finished:
    """The mixed archive as a folder, restored."""
    place = tmp_path_factory.mktemp("folder")
    write_folder(place / "photos", archive | {"notes.txt": b"not a picture, and not named as one"})
    # capsys is for single tests; a file takes what the run prints
    with pytest.MonkeyPatch.context() as patch, (place / "shown.txt").open("w") as shown:
        patch.setattr(sys, "stdout", shown)
        code = restore(place / "photos", place / "out", "--max-error-rate", "0.5", "--unit-images", "4")
    return Finished(place / "photos", place / "out", code, (place / "shown.txt").read_text())


def records(output: Path) -> list[dict]:
    """All rows of the run's records."""
    # a task that was killed while writing leaves a hidden file
    files = sorted(f for f in (output / "records").iterdir() if not f.name.startswith("."))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def images_of(output: Path) -> dict[str, dict]:
    """The rows of the images by name; every name once."""
    rows = [row for row in records(output) if row["kind"] == "image"]
    assert len({row["member"] for row in rows}) == len(rows)
    return {row["member"]: row for row in rows}


def markers(output: Path) -> list[dict]:
    return [json.loads(file.read_bytes()) for file in sorted((output / "_ledger" / "done").rglob("*.json"))]


def assert_conserved(output: Path, images: int) -> None:
    """Every image has one record and one outcome, and every delivered object is the one its marker names."""
    marks = markers(output)
    assert sum(m["images"] for m in marks) == images
    assert all(m["images"] == sum(m["outcomes"].values()) for m in marks)
    assert sum(row["kind"] == "image" for row in records(output)) == images
    objects = {o["path"]: o for m in marks for o in m["outputs"]}
    assert len(objects) == sum(len(m["outputs"]) for m in marks)
    for path, written in objects.items():
        content = (output / path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (written["sha256"], written["size"])


def storable(name: str) -> str:
    """A file name as the records spell it."""
    return name.encode(errors="backslashreplace").decode()


def difference(before: bytes, after: bytes) -> np.ndarray:
    """[H, W] bool: stored pixels of which any sample differs."""
    a, b = pixels(before), pixels(after)
    return (a != b).reshape(*a.shape[:2], -1).any(axis=2)


def test_a_mixed_folder_is_done_within_its_error_budget(finished, archive):
    assert finished.code == 0
    assert_conserved(finished.output, len(archive))


def test_outputs_mirror_the_names_of_the_pictures_and_nothing_else(finished, archive):
    assert read_folder(finished.output / "images").keys() == archive.keys()


def test_every_picture_has_its_one_outcome(finished):
    found = {name: (row["outcome"], row["reason"]) for name, row in images_of(finished.output).items()}
    assert found == {storable(name): outcome for name, outcome in OUTCOMES.items()}


def test_a_failure_says_where_and_why_in_one_sentence(finished):
    rows = images_of(finished.output)
    for name in ("broken/empty.jpg", "broken/cut off.jpg", "broken/letter.jpg"):
        assert rows[name]["stage"] == "read"
        assert rows[name]["error"] and "\n" not in rows[name]["error"]


def test_pictures_without_a_restored_face_are_delivered_byte_for_byte(finished, archive):
    for name in archive.keys() - set(RESTORED):
        assert finished.delivered(name) == archive[name], name


@pytest.mark.parametrize("name", RESTORED)
def test_a_restored_picture_keeps_its_kind_and_size_and_changes_in_its_face(finished, archive, name):
    before, after = (Image.open(io.BytesIO(b)) for b in (archive[name], finished.delivered(name)))
    assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
    [face] = [r for r in records(finished.output) if r["kind"] == "face" and r["member"] == storable(name)]
    x0, y0, x1, y1 = map(round, face["box"])
    if name == "turned.jpg":  # the box is told upright, the pixels lie on their left side
        x0, y0, x1, y1 = y0, before.height - x1, y1, before.height - x0
    assert difference(archive[name], finished.delivered(name))[y0:y1, x0:x1].mean() > 0.5


@pytest.mark.parametrize("name", ["my holiday/été 写真.png", "with alpha.png", "grey.png"])
def test_pixels_away_from_the_face_are_untouched(finished, archive, name):
    changed = difference(archive[name], finished.delivered(name))
    assert 0.05 < changed.mean() < 0.9
    assert not changed[:4].any() and not changed[-4:].any()


def test_transparency_is_kept_exactly(finished, archive):
    before, after = pixels(archive["with alpha.png"]), pixels(finished.delivered("with alpha.png"))
    assert (before[..., 3] == after[..., 3]).all()


def test_a_turned_picture_stays_turned_and_its_face_is_found_upright(finished):
    exif = Image.open(io.BytesIO(finished.delivered("turned.jpg"))).getexif()
    assert exif[ORIENTATION] == TURNED and exif[0x010E] == "a portrait that was turned"
    faces = {r["member"]: r for r in records(finished.output) if r["kind"] == "face"}
    assert np.allclose(faces["turned.jpg"]["box"], faces["portrait.jpg"]["box"], atol=3)


def test_records_hold_what_is_needed_to_repeat_a_face(finished):
    faces = [r for r in records(finished.output) if r["kind"] == "face"]
    assert len(faces) == len(RESTORED)
    for face in faces:
        assert (face["start_step"], face["eta"], face["seed"]) == (60, 0.5, 0)
        assert len(face["sha256"]) == 64 and len(face["affine"]) == 6 and len(face["landmarks"]) == 10
        assert "+" in face["model_sha256"] and face["distance"] > 0


def test_the_summary_names_counts_and_the_places_to_look_at(finished):
    assert f"restored {len(RESTORED):>14}" in finished.shown
    assert "exit code" in finished.shown and "every image accounted for" in finished.shown
    for place in ("records", "report/index.html", "report/contact_sheet.png"):
        assert str(finished.output / place) in finished.shown
        assert (finished.output / place).exists()
    assert min(Image.open(finished.output / "report" / "contact_sheet.png").size) > 300
    assert "mlflow ui" in finished.shown


def test_mlflow_has_one_finished_run_with_parameters_shards_and_artifacts(finished, restore):
    client = MlflowClient(restore.mlflow_uri)
    run = client.get_run(json.loads((finished.output / "_ledger" / "tracking.json").read_text())["run_id"])
    assert run.info.status == "FINISHED"
    assert (run.data.params["eta"], run.data.params["start_step"]) == ("0.5", "60")
    assert {"sha256.prior", "sha256.estimator", "fingerprint"} <= run.data.tags.keys()
    images = client.get_metric_history(run.info.run_id, "images")
    assert [(m.step, m.value) for m in images] == [(1, len(OUTCOMES))]
    assert {a.path for a in client.list_artifacts(run.info.run_id, "report")} == {
        f"report/{name}" for name in ("contact_sheet.png", "index.html", "shards.parquet")
    }
    assert len(run.inputs.dataset_inputs) == 1


@pytest.mark.parametrize(
    ("options", "code", "meaning"),
    [
        (["--max-error-rate", "0.1"], 3, "more failures than --max-error-rate allows"),
        (["--max-error-rate", "0.5", "--strict"], 4, "failures within the budget, but --strict"),
        (["--max-error-rate", "0.5"], 0, "every image accounted for"),
    ],
)
def test_the_same_command_again_does_nothing_and_judges_anew(
    finished, restore, capsys, options, code, meaning
):
    before = {p: p.stat().st_mtime_ns for p in (finished.output / "images").rglob("*")}
    assert restore(finished.source, finished.output, "--unit-images", "4", *options) == code
    shown = capsys.readouterr()
    assert meaning in shown.out and "going on with 0 units, the rest is done" in shown.err
    assert {p: p.stat().st_mtime_ns for p in (finished.output / "images").rglob("*")} == before


def test_tar_shards_keep_their_members_order_sidecars_and_rights(tmp_path, restore, archive):
    samples = ["portrait.jpg", "cat.png", "with alpha.png", "broken/cut off.jpg", LATIN_1]
    members = []
    for i, name in enumerate(samples):
        key, suffix = f"s/{i:03d} {Path(name).stem}", Path(name).suffix
        members += [(f"{key}.json", b'{"i": %d}' % i), (f"{key}{suffix}", archive[name]), (f"{key}.cls", b"")]
    write_tar(tmp_path / "in" / "sub" / "shard 0.tar", members)
    write_tar(tmp_path / "in" / "words.tar", [("readme.txt", b"no picture at all")])
    out = tmp_path / "out"
    assert restore(tmp_path / "in", out, "--max-error-rate", "0.5", "--unit-images", "2") == 0
    assert_conserved(out, len(samples))
    parts = sorted((out / "shards").iterdir())
    assert len(parts) == 4
    delivered = []
    for part in parts[:3]:
        with tarfile.open(part) as tar:
            for info in tar:
                assert (info.mtime, info.mode) == (1_234_567_890, 0o640)
                delivered.append((info.name, tar.extractfile(info).read()))
    assert [name for name, _ in delivered] == [name for name, _ in members]
    changed = {name for (name, after), (_, before) in zip(delivered, members, strict=True) if after != before}
    assert changed == {members[i][0] for i in (1, 7, 13)}
    with tarfile.open(parts[3]) as tar:
        assert [(i.name, tar.extractfile(i).read()) for i in tar] == [("readme.txt", b"no picture at all")]


def test_parquet_shards_keep_rows_columns_types_and_metadata(tmp_path, restore, archive):
    names = ["portrait.jpg", "cat.png", "broken/letter.jpg", "turned.jpg"]
    contents: list[bytes | None] = [*(archive[name] for name in names), None]
    plain = pa.table({"id": range(5), "image": contents, "text": [*names, None]})
    # as the `datasets` library writes an image column
    cells = [{"bytes": c, "path": n} for c, n in zip(contents, [*names, None], strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    nested = pa.table({"image": pa.array(cells, kind), "label": [1, 2, 3, 4, 5]})
    nested = nested.replace_schema_metadata({"huggingface": '{"info": {"features": {}}}'})
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pq.write_table(plain, source / "plain.parquet", row_group_size=2)
    pq.write_table(nested, source / "nested.parquet")
    pq.write_table(plain.slice(0, 0), source / "zero rows.parquet")
    assert restore(source, out, "--max-error-rate", "0.5", "--unit-images", "3") == 0
    assert_conserved(out, 10)

    def read_parts(stem: str) -> pa.Table:
        return pa.concat_tables(pq.read_table(p) for p in sorted((out / "shards").glob(f"{stem}*.parquet")))

    after = read_parts("plain")
    assert after.schema == plain.schema
    assert after.drop_columns("image") == plain.drop_columns("image")
    delivered = after["image"].to_pylist()
    assert [a != b for a, b in zip(delivered, contents, strict=True)] == [True, False, False, True, False]
    again = read_parts("nested")
    assert again.schema == nested.schema and again.schema.metadata == nested.schema.metadata
    assert [c["bytes"] for c in again["image"].to_pylist()] == delivered
    assert [c["path"] for c in again["image"].to_pylist()] == [c["path"] for c in cells]
    assert again["label"].to_pylist() == [1, 2, 3, 4, 5]
    empty = read_parts("zero")
    assert (empty.schema, empty.num_rows) == (plain.schema, 0)
    outcomes = [r["outcome"] for r in records(out) if r["kind"] == "image"]
    assert sorted(outcomes) == ["failed"] * 4 + ["no_face"] * 2 + ["restored"] * 4


def test_aligned_pictures_are_restored_whole_and_others_skipped(tmp_path, restore):
    face = portrait(220, 240).crop((40, 20, 200, 180))
    files = {
        "exact.png": encoded(face.resize((64, 64)), "PNG"),
        "large.png": encoded(face.resize((96, 96)), "PNG"),
        "wide.png": encoded(face.resize((96, 64)), "PNG"),
    }
    out = tmp_path / "out"
    assert restore(write_folder(tmp_path / "in", files), out, "--aligned", "--save-faces") == 0
    assert_conserved(out, 3)
    outcomes = {name: (row["outcome"], row["reason"]) for name, row in images_of(out).items()}
    assert outcomes == {
        "exact.png": ("restored", ""),
        "large.png": ("restored", ""),
        "wide.png": ("skipped", "not square"),
    }
    delivered = read_folder(out / "images")
    assert delivered["wide.png"] == files["wide.png"]
    assert pixels(delivered["large.png"]).shape == (96, 96, 3)
    assert difference(files["exact.png"], delivered["exact.png"]).mean() > 0.9
    # nothing is warped or blended where the picture is the crop
    crops = read_folder(out / "faces" / "images-00000-0000")
    assert not difference(crops["0000-00-before.png"], files["exact.png"]).any()
    assert not difference(crops["0000-00-after.png"], delivered["exact.png"]).any()


def test_a_run_that_fails_too_much_stops_with_three_and_can_be_finished(tmp_path, restore):
    broken = {f"b{i:02d}.jpg": b"no picture" for i in range(24)}
    source, out = write_folder(tmp_path / "in", broken | portraits(1)), tmp_path / "out"
    options = ("--unit-images", "1", "--shard-images", "5")
    assert restore(source, out, *options) == 3
    assert 3 <= len(markers(out)) < 25
    assert restore(source, out, *options, "--max-error-rate", "1") == 0
    assert_conserved(out, 25)
    times = {m["unit"]: m["finished_at"] for m in markers(out)}
    assert restore(source, out, *options, "--max-error-rate", "1", "--retry", "failed") == 0
    assert_conserved(out, 25)
    redone = {m["unit"] for m in markers(out) if m["finished_at"] != times[m["unit"]]}
    assert redone == {m["unit"] for m in markers(out) if m["outcomes"]["failed"]} and len(redone) == 24


def test_a_dry_run_counts_estimates_and_writes_nothing(tmp_path, restore, archive, capsys):
    source = write_folder(tmp_path / "in", archive)
    here = set(Path.cwd().iterdir())
    assert restore(source, tmp_path / "out", "--dry-run", "--unit-images", "4") == 0
    shown = capsys.readouterr().out
    assert f"{len(archive)} images" in shown and "1 shards, 3 units" in shown
    assert f"faces    {len(RESTORED)} (counted; 3 of {len(archive)} images unreadable)" in shown
    assert "small-srcnn, 64 px, 3 steps a face" in shown and "s a face" in shown
    assert {p.name for p in tmp_path.iterdir()} == {"in"}
    assert read_folder(source) == archive
    assert set(Path.cwd().iterdir()) == here


def test_a_tracking_server_that_is_away_costs_a_warning_and_the_next_start_delivers(
    tmp_path, restore, archive, capsys
):
    source, out = write_folder(tmp_path / "in", {"cat.png": archive["cat.png"]}), tmp_path / "out"
    assert restore(source, out, "--mlflow-uri", "http://user:hidden-word@127.0.0.1:9") == 0
    shown = capsys.readouterr()
    assert "warning: MLflow at http://***@127.0.0.1:9 did not take everything" in shown.err
    assert "hidden-word" not in shown.err + shown.out
    assert restore(source, out) == 0
    run_id = json.loads((out / "_ledger" / "tracking.json").read_text())["run_id"]
    history = MlflowClient(restore.mlflow_uri).get_metric_history(run_id, "images")
    assert [(m.step, m.value) for m in history] == [(1, 1)]
    assert not any(b"hidden-word" in content for content in read_folder(out).values())


def test_the_module_run_by_its_name_exits_with_the_jobs_code(tmp_path):
    command = [sys.executable, "-m", "jobs.restore", "--input", "nowhere", "--output", "out"]
    path = os.environ | {"PYTHONPATH": str(Path(job.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: could not read nowhere: ")
