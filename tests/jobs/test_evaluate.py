"""Alignment and evaluation on a handful of faces."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from skimage import data

from jobs import align, evaluate

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
