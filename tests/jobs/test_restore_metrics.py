"""What --metrics asks for is in records, marker, report and summary, and a resume with other metrics is told so."""

import json

import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, write_tar
from PIL import Image

OPTIONS = ("--aligned", "--truth", "sibling:_truth")


@pytest.fixture
def shard(tmp_path):
    """Three aligned faces that were shrunk, two of them with the truth beside them."""
    members = []
    for number in range(3):
        truth = portrait(64 + number, 64 + number).resize((64, 64), Image.Resampling.LANCZOS)
        low = truth.resize((16, 16)).resize((64, 64), Image.Resampling.BILINEAR)
        members.append((f"{number}.png", encoded(low, "PNG")))
        members += [(f"{number}_truth.png", encoded(truth, "PNG"))] if number else []
    return write_tar(tmp_path / "in" / "faces.tar", members).parent


@pytest.mark.slow
def test_a_run_measures_its_faces_on_the_way(tmp_path, restore, shard, capsys):
    output = tmp_path / "out"
    metrics = ("--metrics", "quality,features,psnr", "--unit-images", "3")
    assert restore(shard, output, *OPTIONS, *metrics) == 0
    rows = [r for f in sorted((output / "records").iterdir()) for r in pq.read_table(f).to_pylist()]
    images = {r["member"]: (r["outcome"], r["reason"]) for r in rows if r["kind"] == "image"}
    assert images == {f"{n}.png": ("restored", "") for n in range(3)} | {
        f"{n}_truth.png": ("skipped", "a truth") for n in (1, 2)
    }
    faces = {r["member"]: r for r in rows if r["kind"] == "face"}
    assert faces["0.png"]["psnr"] is None and faces["0.png"]["features_truth"] is None
    for face in faces.values():
        assert face["quality_after"] < face["quality_before"] and len(face["features"]) == 2048
    told = [faces[n]["psnr"] for n in ("1.png", "2.png")]
    shown = capsys.readouterr().out
    assert f"psnr           {sum(told) / 2:>8.4g}  ± " in shown and "over 2 faces" in shown
    assert "fid_truth " in shown and "no truth              1  faces" in shown
    page = (output / "report" / "index.html").read_text()
    assert "Measured, means over faces" in page and "(2 faces)" in page
    run = json.loads((output / "_ledger" / "run.json").read_text())
    assert "metrics" not in run["fingerprint"] and run["fingerprint"]["truth"] == "sibling:_truth"
    # nothing is left to do, and nothing refused: other metrics change no pixel
    assert restore(shard, output, *OPTIONS, *metrics[2:], "--metrics", "psnr") == 0
    assert "was begun with --metrics quality,features,psnr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--metrics", "beauty"), "got beauty"),
        (("--metrics", "psnr"), "give it with --truth"),
        (("--truth", "sibling:_truth"), "--truth is for --metrics"),
        (("--metrics", "psnr", "--reference", "a.npz"), "--reference is for --metrics features"),
    ],
)
def test_what_can_not_be_measured_is_refused_before_anything_is_done(
    tmp_path, restore, shard, capsys, options, why
):
    try:
        code = restore(shard, tmp_path / "out", *options)
    except SystemExit as end:
        code = end.code
    assert code == 2 and why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
