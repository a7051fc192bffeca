"""Holes filled, grey faces coloured, small ones enlarged by the whole job; what was known comes back."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from photographs import encoded, pixels, portrait, read_folder, write_folder
from PIL import Image
from skimage import data
from spandrel.architectures.ESRGAN import ESRGAN

from jobs import verify

pytestmark = pytest.mark.usefixtures("without_ray")

HOLE = (slice(30, 60), slice(35, 65))


def outcomes(output) -> dict[str, tuple[str, str]]:
    rows = [r for f in (output / "records").iterdir() for r in pq.read_table(f).to_pylist()]
    return {r["member"]: (r["outcome"], r["reason"]) for r in rows if r["kind"] == "image"}


def test_holes_that_reach_into_faces_are_filled_and_known_pixels_returned(tmp_path, restore):
    whole = np.array(portrait())
    mask = np.zeros(whole.shape[:2], np.uint8)
    mask[HOLE] = 255
    holed = np.where(mask[..., None] > 0, 0, whole).astype(np.uint8)
    away = np.zeros_like(mask)
    away[:2, :2] = 255
    files = {
        "scratched.png": encoded(Image.fromarray(holed), "PNG"),
        "scratched_mask.png": encoded(Image.fromarray(mask), "PNG"),
        "away.png": encoded(portrait(), "PNG"),
        "away_mask.png": encoded(Image.fromarray(away), "PNG"),
        "without.png": encoded(portrait(104, 114), "PNG"),
    }
    source, output = write_folder(tmp_path / "in", files), tmp_path / "out"
    options = ("--task", "inpaint", "--mask", "sibling:_mask", "--max-error-rate", "0.5")
    assert restore(source, output, *options) == 0
    assert outcomes(output) == {
        "scratched.png": ("restored", ""),
        "scratched_mask.png": ("skipped", "a mask"),
        "away.png": ("skipped", "nothing to gain"),
        "away_mask.png": ("skipped", "a mask"),
        "without.png": ("failed", "no mask"),
    }
    done = read_folder(output / "images")
    assert {n: c for n, c in done.items() if n != "scratched.png"} == {
        n: c for n, c in files.items() if n != "scratched.png"
    }
    result = pixels(done["scratched.png"])
    known = mask == 0
    assert np.array_equal(result[known], whole[known])
    assert (result[~known] > 0).any(axis=1).mean() > 0.99
    # nearer to the truth than a hole, and than no guess at all
    error = np.abs(result[~known].astype(int) - whole[~known]).mean()
    assert error < np.abs(whole[~known].mean(axis=0) - whole[~known]).mean()
    # what was asked belongs to the run
    assert restore(source, output, *options, "--gradient-steps", "1") == 2
    assert json.loads((output / "_ledger/run.json").read_text())["fingerprint"]["task"] == "inpaint"


def test_grey_faces_get_colours(tmp_path, restore):
    grey = portrait(64, 64).convert("L")
    source = write_folder(tmp_path / "in", {"a.png": encoded(grey, "PNG")})
    assert restore(source, tmp_path / "out", "--task", "colourise", "--aligned", "--start-step", "300") == 0
    result = Image.open(io.BytesIO((tmp_path / "out/images/a.png").read_bytes()))
    assert result.mode == "RGB"
    there = np.asarray(result).astype(float)
    assert np.abs(there - there.mean(axis=2, keepdims=True)).mean() > 1
    assert np.abs(there @ (0.299, 0.587, 0.114) - np.asarray(grey)).mean() < 2


def test_small_aligned_faces_are_enlarged_to_the_presets_side(tmp_path, restore):
    source = write_folder(tmp_path / "in", {"a.png": encoded(portrait(64, 64).resize((16, 16)), "PNG")})
    assert restore(source, tmp_path / "out", "--task", "upscale", "--aligned") == 0
    result = pixels((tmp_path / "out/images/a.png").read_bytes()).astype(float)
    assert result.shape == (64, 64, 3)
    assert verify.main(["--output", str(tmp_path / "out")]) == 0
    small = pixels((source / "a.png").read_bytes())
    shrunk = result.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 12


@pytest.fixture
def upscaler(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "tiny.pth"
    torch.save(ESRGAN(num_filters=4, num_blocks=1, scale=2).state_dict(), path)
    return str(path)


def test_pictures_are_enhanced_enlarged_recorded_and_verified(tmp_path, restore, upscaler, capsys):
    cat = Image.fromarray(data.chelsea()).resize((150, 100))
    files = {"a.jpg": encoded(portrait(), "JPEG"), "cat.png": encoded(cat, "PNG"), "broken.png": b"none"}
    source, output = write_folder(tmp_path / "in", files), tmp_path / "out"
    options = ("--background", upscaler, "--upscale", "2", "--max-error-rate", "0.5")
    assert restore(source, output, *options, "--dry-run") == 0
    assert "tiny.pth enhances all pictures, which become 2 times larger" in capsys.readouterr().out
    assert restore(source, output, *options) == 0
    run = json.loads((output / "_ledger/run.json").read_text())["fingerprint"]
    assert run["background"]["network"] == "tiny.pth" and run["background"]["upscale"] == 2
    assert len(run["weights"]["background"]) == 64
    assert pixels((output / "images/a.jpg").read_bytes()).shape == (220, 200, 3)
    enhanced = pixels((output / "images/cat.png").read_bytes())
    assert enhanced.shape == (200, 300, 3)
    assert np.abs(enhanced[::2, ::2].astype(int) - np.asarray(cat)).mean() > 3
    assert (output / "images/broken.png").read_bytes() == b"none"
    # sizes, pictures without faces, and the same bits once more
    assert verify.main(["--output", str(output), "--sample", "1"]) == 0
    assert "1 of 1 asked; 1 equal bit for bit" in " ".join(capsys.readouterr().out.split())
    assert restore(source, output, *options[:2], "--max-error-rate", "0.5") == 2
    assert "upscale" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--task", "inpaint"), "--task inpaint and --mask go together"),
        (("--mask", "black"), "--task inpaint and --mask go together"),
        (("--task", "upscale"), "--task upscale takes aligned faces"),
        (("--factor", "3"), "--factor must be 0 or a power of two, got 3"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(tmp_path, restore, capsys, options, sentence):
    with pytest.raises(SystemExit, match="2"):
        restore(tmp_path, tmp_path / "out", *options)
    assert sentence in capsys.readouterr().err
