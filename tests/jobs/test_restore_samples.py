"""--samples: each face by several chains, one of them delivered, and how far they differ."""

import io
import json
from collections import Counter
from shutil import copytree

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import HEAD, encoded, portraits, read_folder, write_folder
from PIL import Image
from skimage import data

from jobs import restore as job
from jobs import status, verify
from pipeline.faces.geometry import CropFrame
from pipeline.faces.spread import STEPS, face_region
from pipeline.networks.presets import find_preset

pytestmark = pytest.mark.usefixtures("without_ray")

OPTIONS = ("--samples", "3", "--unit-images", "2")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"), portraits(4))


@pytest.fixture(scope="module")
def finished(source, restore, tmp_path_factory):
    output = tmp_path_factory.mktemp("samples") / "out"
    assert restore(source, output, *OPTIONS) == 0
    return output


def places(restore, source, output):
    return ["--input", str(source), "--output", str(output), "--mlflow-uri", restore.mlflow_uri]


def rows(output, kind="face"):
    tables = (pq.read_table(table).to_pylist() for table in sorted((output / "records").glob("*.parquet")))
    return [row for table in tables for row in table if row["kind"] == kind]


def markers(output):
    return [json.loads(path.read_bytes()) for path in sorted((output / "_ledger/done").rglob("*.json"))]


def delivered(output):
    """Pictures, records and maps of an output, by path."""
    return {
        f"{name}/{path}": content
        for name in ("images", "records", "faces")
        for path, content in read_folder(output / name).items()
    }


def test_records_and_maps_say_how_far_the_samples_differ(finished):
    faces = rows(finished)
    assert {face["samples"] for face in faces} == {3} and len(faces) == 4
    assert {(face["spread_identity"], face["invented"]) for face in faces} == {(None, None)}  # --gate off
    maps = read_folder(finished / "faces")
    assert len(maps) == 4 and all(name.endswith("-spread.png") for name in maps)
    pictures = [Image.open(io.BytesIO(content)) for content in maps.values()]
    assert {(p.mode, p.size) for p in pictures} == {("L", (64, 64))}
    region = face_region(CropFrame(64))
    means = sorted(np.asarray(p)[region].mean() / STEPS for p in pictures)
    assert means == pytest.approx(sorted(face["spread"] for face in faces), abs=0.05) and means[0] > 0
    listed = {out["path"] for marker in markers(finished) for out in marker["outputs"]}
    assert {f"faces/{name}" for name in maps} <= listed


def test_the_sums_say_what_was_drawn(finished):
    sums = [marker["sums"] for marker in markers(finished)]
    assert sum(s["chains_drawn"] for s in sums) == 12 and sum(s["faces_sampled"] for s in sums) == 4
    assert not any("faces_invented" in s for s in sums)


def test_one_of_the_samples_is_delivered_and_the_first_is_that_of_a_run_without(
    finished, source, restore, tmp_path
):
    seeds = []
    for seed in range(3):
        assert restore(source, tmp_path / str(seed), "--unit-images", "2", "--seed", str(seed)) == 0
        seeds.append(read_folder(tmp_path / str(seed) / "images"))
    chosen = {face["member"]: json.loads(face["tried"])[-1]["sample"] for face in rows(finished)}
    for name, content in read_folder(finished / "images").items():
        assert content == seeds[chosen[name]][name]
    assert restore(source, tmp_path / "first", *OPTIONS, "--deliver", "first") == 0
    assert read_folder(tmp_path / "first/images") == seeds[0]
    assert {row["samples"] for row in rows(tmp_path / "0")} == {1} and not (tmp_path / "0/faces").exists()


def test_other_batches_give_the_same_bytes(finished, source, restore, tmp_path):
    assert restore(source, tmp_path / "out", *OPTIONS, "--slots", "7", "--engines", "1") == 0
    assert delivered(tmp_path / "out") == delivered(finished)


def test_an_interrupted_run_ends_with_the_same_bytes(finished, source, restore, tmp_path):
    """A unit whose marker and outputs are gone is done again, beside one that is there."""
    output = copytree(finished, tmp_path / "out")
    marker = sorted((output / "_ledger/done").rglob("*.json"))[0]
    for out in json.loads(marker.read_bytes())["outputs"]:
        (output / out["path"]).unlink()
    marker.unlink()
    assert restore(source, output, *OPTIONS) == 0
    assert delivered(output) == delivered(finished)
    # more samples are another run
    assert restore(source, output, *OPTIONS, "--samples", "4") == 2


def test_a_verification_knows_the_maps_and_repeats_the_samples(finished, capsys):
    assert verify.main(["--output", str(finished), "--sample", "4"]) == 0
    assert "4 of 4 asked; 4 equal bit for bit" in " ".join(capsys.readouterr().out.split())


def test_a_changed_map_is_found(finished, tmp_path, capsys):
    output = copytree(finished, tmp_path / "out")
    path = next((output / "faces").rglob("*-spread.png"))
    path.write_bytes(path.read_bytes() + b"0")
    assert verify.main(["--output", str(output)]) == 1
    assert "-spread.png" in capsys.readouterr().out


def test_a_damaged_face_is_judged_by_how_far_the_identities_of_its_samples_differ(restore, tmp_path):
    head = Image.fromarray(data.astronaut()).crop(HEAD)
    worn = head.resize((head.width // 4, head.height // 4)).resize(head.size)
    files = {"sharp.png": encoded(head, "PNG"), "worn.png": encoded(worn, "PNG")}
    source, output = write_folder(tmp_path / "photos", files), tmp_path / "out"
    assert job.main([*places(restore, source, output), "--samples", "2"]) == 0
    sharp, face = rows(output)
    assert (sharp["samples"], sharp["spread"], sharp["invented"]) == (None, None, None)
    assert face["samples"] == 2 and 0 < face["spread"] < 10
    assert face["invented"] == (face["spread_identity"] > find_preset("portrait").spread["invented"])
    [name] = read_folder(output / "faces")
    assert name.endswith("-00-spread.png")
    sums = sum((Counter(marker["sums"]) for marker in markers(output)), Counter())
    assert (sums["faces_sampled"], sums["chains_drawn"]) == (1, 2) and sums["faces_invented"] == face[
        "invented"
    ]
    assert verify.main(["--output", str(output), "--sample", "1"]) == 0


def test_the_cost_is_said_before_and_after(source, restore, tmp_path, capsys):
    assert restore(source, tmp_path / "dry", *OPTIONS, "--dry-run") == 0
    assert "samples  3 chains a face that has one, 3 times the calls" in capsys.readouterr().out
    assert restore(source, tmp_path / "out", *OPTIONS) == 0
    said = "12 chains drawn; 4 faces are one of several, 0 marked as invented here"
    assert said in capsys.readouterr().out
    assert status.main(["--output", str(tmp_path / "out")]) == 0
    assert said in capsys.readouterr().out
    page = (tmp_path / "out/report/index.html").read_text()
    assert "chains drawn" in page and "faces sampled" in page
