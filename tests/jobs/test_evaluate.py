"""Alignment and evaluation on a handful of faces."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skimage import data

from jobs import align, evaluate
from pipeline.networks.zoo import find_preset
from pipeline.stages.plan import cut_units, list_input, make_shards

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A folder with one shard: the astronaut aligned from differently cropped pictures, and one without a face."""
    base = tmp_path_factory.mktemp("align")
    portrait = data.astronaut()
    with tarfile.open(base / "people.tar", "w") as tar:
        pictures = {f"p{i}": portrait[: 240 + 4 * i, 100 + 2 * i : 340 + 6 * i] for i in range(4)}
        for name, picture in (pictures | {"cat": data.chelsea()[:, :300]}).items():
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG")
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    assert align.main(["--input", str(base / "people.tar"), "--output", str(base / "aligned")]) == 0
    return base


def test_alignment_gives_one_crop_per_picture_with_a_central_face(aligned):
    with tarfile.open(aligned / "aligned" / "people.tar") as tar:
        names = tar.getnames()
        first = Image.open(tar.extractfile(names[0]))
        assert first.size == (64, 64)
    assert names == ["p0.png", "p1.png", "p2.png", "p3.png"]
    assert json.loads((aligned / "aligned" / "_done" / "people.json").read_text()) == {
        "pictures": 5,
        "no_face": 1,
        "broken": 0,
        "unread": 0,
        "faces": 4,
    }


def test_alignment_passes_over_what_is_done(aligned, capsys):
    assert align.main(["--input", str(aligned / "people.tar"), "--output", str(aligned / "aligned")]) == 0
    assert "1 shards, 1 of them done before" in capsys.readouterr().out


def test_an_evaluation_scores_every_row_and_names_what_it_leaves_out(aligned, tmp_path, capsys):
    output = tmp_path / "scores"
    code = evaluate.main(
        ["--shards", str(aligned / "aligned" / "*.tar"), "--output", str(output), "--presets", "small-srcnn",
         "--start-steps", "40", "--steps", "ddim50", "--mlflow-uri", "none"]
    )  # fmt: skip
    assert code == 0
    rows = json.loads((output / "scores.json").read_text())
    assert list(rows) == ["degraded input", "srcnn", "DifFace(srcnn), N = 40"]
    assert all(10 < row["PSNR"] < 40 and 0 < row["SSIM"] < 1 and row["FID"] > 0 for row in rows.values())
    assert "LPIPS" in rows["srcnn"] or "LPIPS is left out" in capsys.readouterr().err
    assert Image.open(output / "grid.png").size == (4 * 64, 4 * 64)
    assert (output / "scores.md").read_text().startswith("| 4 faces | PSNR↑")


def test_no_shards_are_refused(tmp_path, capsys):
    code = evaluate.main(["--shards", str(tmp_path / "*.tar"), "--output", str(tmp_path / "o")])
    assert code == 2 and capsys.readouterr().err.startswith("error: ")


def test_crops_of_another_side_are_not_mixed_into_an_output(aligned, capsys):
    places = ["--input", str(aligned / "people.tar"), "--output", str(aligned / "aligned")]
    assert align.main([*places, "--side", "32"]) == 2
    assert "side 64 instead of 32" in capsys.readouterr().err


def test_broken_and_unread_pictures_are_counted_and_unread_ones_tried_again(tmp_path, capsys):
    source, away, output = tmp_path / "in", tmp_path / "away.png", tmp_path / "out"
    source.mkdir()
    (source / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(data.astronaut()[:256, 90:346]).save(source / "face.png")
    config = align.AlignConfig(input=str(source), output=str(output))
    (shard,) = make_shards(*list_input(config.input, "auto"), config.shard_images)
    (unit,) = cut_units(shard, 100, "image")
    (source / "face.png").rename(away)
    told = align.AlignShard(config)({"work": unit.to_json()})
    assert {k: told[k] for k in ("pictures", "faces", "no_face", "broken", "unread")} == {
        "pictures": 2, "faces": 0, "no_face": 0, "broken": 1, "unread": 1,
    }  # fmt: skip
    away.rename(source / "face.png")
    assert align.main(["--input", config.input, "--output", config.output]) == 0
    assert "1 faces of 2 pictures; 0 without a face to take, 1 broken, 0 unread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--eta", "2"], "--eta must lie in"),
        (["--start-steps", "600"], "must not exceed 499"),
        (["--start-steps", "161"], "nearest are"),
        (["--start-steps", "many"], "--start-steps"),
        (["--presets", "none"], "is not known"),
    ],
)
def test_a_method_that_cannot_be_is_refused_in_one_sentence(aligned, tmp_path, capsys, options, wanted):
    places = ["--shards", str(aligned / "aligned" / "*.tar"), "--output", str(tmp_path / "o")]
    try:
        code = evaluate.main([*places, *options])
    except SystemExit as exit:  # argparse's own refusal
        code = exit.code
    assert code == 2 and wanted in capsys.readouterr().err.splitlines()[-1]


def test_presets_with_the_same_estimator_keep_rows_of_their_own():
    swinir, srcnn = find_preset("small-swinir"), find_preset("small-srcnn")
    assert evaluate.row_names([swinir, srcnn]) == ["swinir", "srcnn"]
    assert evaluate.row_names([swinir, replace(swinir, name="mine")]) == ["small-swinir", "mine"]
