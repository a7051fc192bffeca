"""Delivered photographs measured against the true ones, and who was harmed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from pipeline.datasets.faces import find_faces
from pipeline.evaluation import delivered
from pipeline.evaluation.delivered import Delivered, psnr
from pipeline.evaluation.groups import Groups
from pipeline.evaluation.harm import ANY, VariantResult, cut, gain, worse
from pipeline.evaluation.photographs import place_photographs, write_photographs
from pipeline.evaluation.realreport import RealReport, draw_faces
from pipeline.io import images
from pipeline.io.store import StoreError

PORTRAIT = np.ascontiguousarray(data.astronaut()[:260, 90:340])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with weights for LPIPS of the published shape, and a set of one photograph at two levels."""
    folder = tmp_path_factory.mktemp("delivered")
    (folder / "weights").mkdir()
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    torch.manual_seed(0)
    layers = [nn.Conv2d(i, o, k) for o, i, k in shapes]
    state = {f"features.{n}.{k}": v for n, m in enumerate(layers) for k, v in m.state_dict().items()}
    torch.save(state, folder / "weights" / "alexnet_features.pth")
    (folder / "in").mkdir()
    Image.fromarray(PORTRAIT).save(folder / "in" / "one.png")
    return folder


@pytest.fixture(scope="module")
def found(place):
    faces = find_faces(str(place / "in")).faces
    made = place_photographs(faces, 0, ("clean", "medium"), str(place / "sets"))
    write_photographs(made, faces)
    return made


@pytest.fixture(scope="module")
def measuring(place, found):
    """What measures, and remembers between the tests."""
    return Delivered(found, str(place / "measured"), str(place / "weights"))


def deliver(folder, found, change, digest="d"):
    """A run's output, whose pictures are the set's with a change."""
    (folder / "_ledger").mkdir(parents=True)
    (folder / "_ledger" / "run.json").write_text(json.dumps({"digest": digest, "fingerprint": {}}))
    (folder / "images").mkdir()
    for name in found.names:
        picture = change(found.read(found.degraded, name), found.read(found.truth, name.partition("-")[0]))
        (folder / "images" / f"{name}.png").write_bytes(images.encode_png(picture))
    return str(folder)


def test_equal_pictures_have_a_number_of_decibels():
    flat = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(flat, flat) == pytest.approx(68.13, abs=0.01)
    assert psnr(flat + np.uint8(1), flat) == pytest.approx(48.13, abs=0.01)
    # no difference of uint8 wraps around
    assert psnr(np.zeros_like(flat), np.full_like(flat, 255)) == pytest.approx(0)


def test_what_was_not_touched_measures_as_the_truth_or_as_it_came(measuring, found, tmp_path):
    assert measuring.left_out == {}
    came = measuring.came
    assert set(came) == {"psnr", "angle", "lpips", "ssim"}
    assert came["psnr"][0] == pytest.approx(68.13, abs=0.01) and came["ssim"][0] == pytest.approx(1)
    assert came["lpips"][0] == 0 and came["angle"][0] == pytest.approx(0, abs=1e-3)
    assert 15 < came["psnr"][1] < 40 and came["lpips"][1] > 0 and came["angle"][1] > 2
    out = measuring.of_run(deliver(tmp_path / "same", found, lambda picture, _: picture))
    assert all((out[name] == came[name]).all() for name in came)
    assert VariantResult("same", came, out, {}).untouched.all()


def test_only_the_head_is_measured_by_its_pixels(measuring, found, tmp_path):
    def damaged_corner(picture, _):
        return np.where(np.indices(picture.shape).sum(axis=0) < 40, np.uint8(0), picture)

    out = measuring.of_run(deliver(tmp_path / "corner", found, damaged_corner))
    assert (out["psnr"] == measuring.came["psnr"]).all()


def test_nothing_is_measured_twice_and_another_run_is(place, measuring, found, tmp_path, monkeypatch):
    better = deliver(tmp_path / "better", found, lambda picture, truth: picture // 2 + truth // 2)
    before = (measuring.came, measuring.of_run(better))
    assert before[1]["psnr"][1] > before[0]["psnr"][1] + 3

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(delivered.Scorer, "__call__", never)
    monkeypatch.setattr(delivered.Scorer, "embedding", never)
    again = Delivered(found, str(place / "measured"), str(place / "weights"))
    for was, now in zip(before, (again.came, again.of_run(better)), strict=True):
        assert all((was[name] == now[name]).all() for name in was)
    (tmp_path / "better" / "_ledger" / "run.json").write_text(
        json.dumps({"digest": "another", "fingerprint": {}})
    )
    with pytest.raises(AssertionError, match="measured again"):
        again.of_run(better)


def test_a_metric_without_its_weights_is_left_out_and_named(found, tmp_path):
    (tmp_path / "alexnet_features.pth").write_bytes(b"no weights")
    measuring = Delivered(found, str(tmp_path / "m"), str(tmp_path))
    assert set(measuring.left_out) == {"lpips"} and set(measuring.came) == {"psnr", "ssim", "angle"}


def test_a_picture_that_was_not_delivered_is_an_error_that_names_it(measuring, found, tmp_path):
    output = deliver(tmp_path / "gone", found, lambda picture, _: picture)
    (tmp_path / "gone" / "images" / "000000-medium.png").unlink()
    with pytest.raises(StoreError, match=r"000000-medium\.png"):
        measuring.of_run(output)


# In → out of eight faces: each but the first three is worse by one measure alone, and just beyond its limit.
CAME = {
    "psnr": np.array([68.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0]),
    "angle": np.array([0.0, 9.0, 9.0, 9.0, 9.0, 9.0, np.nan, 9.0]),
    "lpips": np.array([0.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
}
OUT = {
    "psnr": np.array([45.5, 31.0, 29.8, 29.6, 30.0, 30.0, 30.0, 30.0]),
    "angle": np.array([1.9, 5.0, 10.9, 9.0, 11.1, 9.0, 20.0, 9.0]),
    "lpips": np.array([0.009, 0.1, 0.209, 0.2, 0.2, 0.211, 0.2, 0.2]),
}


def test_a_face_is_harmed_when_it_is_delivered_clearly_worse_than_it_came():
    found = {name: faces.astype(int).tolist() for name, faces in worse(CAME, OUT).items()}
    assert found == {
        "psnr": [0, 0, 0, 1, 0, 0, 0, 0],
        "angle": [0, 0, 0, 0, 1, 0, 0, 0],
        "lpips": [0, 0, 0, 0, 0, 1, 0, 0],
        ANY: [0, 0, 0, 1, 1, 1, 0, 0],
    }
    only = {"psnr": np.array([68.0, 68.0])}, {"psnr": np.array([44.9, 45.1])}
    assert worse(*only)[ANY].tolist() == [True, False]


def test_shares_and_changes_are_of_the_rows_that_are_asked_for():
    result = VariantResult("variant", CAME, OUT, {})
    first, last = np.arange(8) < 4, np.arange(8) >= 4
    assert result.harm(first) == {"psnr": 0.25, "angle": 0.0, "lpips": 0.0, ANY: 0.25}
    assert result.harm(last)[ANY] == 0.5 and result.untouched.tolist() == [False] * 4 + [
        True,
        False,
        True,
        True,
    ]
    change = result.changes(last)["angle"]
    assert (change.came, change.difference.faces) == (9.0, 3)
    assert change.difference.value == pytest.approx(0.7)
    assert (
        gain("psnr", CAME["psnr"], OUT["psnr"])[1] == 1 and gain("angle", CAME["angle"], OUT["angle"])[1] == 4
    )


def test_a_report_has_harm_by_level_variant_and_group(measuring, found, tmp_path):
    worst = deliver(tmp_path / "worst", found, lambda picture, _: picture // 2)
    results = [
        VariantResult(name, measuring.came, out, {"calls": 3.0})
        for name, out in (("same", measuring.came), ("way", measuring.of_run(worst)))
    ]
    cuts = cut(*(found.sheet[name].to_pylist() for name in ("level", "number")))
    labels = {"group": ["pilots"] * len(found.names)}
    decisions = {"way": ["held more", "not found"]}
    groups = Groups(labels, cuts, results, decisions)
    faces = draw_faces(found, results, [found.degraded, f"{worst}/images"])
    report = RealReport(results, cuts, groups, faces, found.contents)
    assert report.values()[1]["levels"]["clean"]["harm"] == {"PSNR": 1, "angle": 1, "LPIPS": 1, "any": 1}
    assert report.values()[0]["groups"]["group"]["pilots"]["harm"]["any"]["share"] == 0
    metrics = report.metrics()
    assert metrics["way/medium/harm any"] == 1 and metrics["same/clean/untouched"] == 1
    assert metrics["way/medium/PSNR"] < metrics["way/medium/PSNR in"] < 40
    text = report.markdown()
    assert "| clean | n | PSNR in → out |" in text and "| same, by group | n |" in text
    assert "| way, decisions by group | n | held more | not found |" in text
    page = report.html("T")
    assert page.count("<table") == 6 and page.count("data:image/png") == 3
    assert all(data.startswith(b"\x89PNG") for data in report.pictures.values())
