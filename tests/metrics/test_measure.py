"""Truths are found beside pictures of every kind, cut as their faces were, and what is measured reaches the records."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, write_folder, write_tar
from PIL import Image

from pipeline.faces.geometry import CropFrame, warp_crop
from pipeline.io import images
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.io.units import Address, Unit
from pipeline.metrics.measure import MeasureFaces, MeasureSettings
from pipeline.metrics.truth import read_truths, truth_crop
from pipeline.records.rows import FaceRecord, ImageRecord, dump_records, load_faces, pack
from pipeline.records.rows import load_features as features_of
from pipeline.stages.record import make_marker, record_table

FRAME = CropFrame(64)
TRUTH = np.asarray(portrait(64, 64))
PNG = encoded(Image.fromarray(TRUTH), "PNG")


def units(place, unit_images=64):
    kind, entries = list_input(str(place), "auto")
    return [u for s in make_shards(kind, entries, 1024) for u in cut_units(s, unit_images, "image")]


def found(choice, unit):
    wanted = range(len(unit.images))
    return {unit.images[i].member: t for i, t in read_truths(choice, unit, wanted, images.MAX_PIXELS)}


def test_truths_lie_beside_the_pictures_or_in_a_folder_under_their_names(tmp_path):
    write_folder(tmp_path / "in", {"a/p.jpg": PNG, "a/p_truth.png": PNG, "q.png": PNG})
    write_folder(tmp_path / "true", {"a/p.png": PNG, "q.png": b"no picture"})
    [unit] = units(tmp_path / "in")
    for choice, names in (("sibling:_truth", {"a/p.jpg"}), (str(tmp_path / "true"), {"a/p.jpg"})):
        truths = found(choice, unit)
        assert truths.keys() == names
        assert np.array_equal(truths["a/p.jpg"], TRUTH)


def test_in_a_tar_they_are_members_beside_also_where_a_unit_ends_between(tmp_path):
    names = ["a.png", "a_truth.png", "b.png", "b_truth.jpg", "c.png"]
    write_tar(tmp_path / "in" / "s.tar", [(name, PNG) for name in names])
    whole, parts = units(tmp_path / "in"), units(tmp_path / "in", unit_images=3)
    assert found("sibling:_truth", whole[0]).keys() == {"a.png", "b.png"}
    assert [set(found("sibling:_truth", u)) for u in parts] == [{"a.png", "b.png"}, set()]


def test_in_parquet_they_are_a_column(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": [PNG, PNG], "clean": [PNG, None]}), tmp_path / "in" / "s.parquet")
    [unit] = units(tmp_path / "in")
    assert found("column:clean", unit).keys() == {unit.images[0].member}
    assert found("column:other", unit) == {}


def face(affine, image=0, number=0, error=""):
    return FaceRecord(image, number, [], [], list(np.ravel(affine)), 1.0, 1.0, error=error)


def test_a_true_crop_is_cut_by_the_faces_own_affine_also_from_a_larger_picture():
    picture = np.asarray(portrait(200, 220))
    affine = np.array([[0.5, 0.0, -10.0], [0.0, 0.5, -12.0]])
    record = ImageRecord("p", width=200, height=220)
    exact = truth_crop(picture, record, face(affine), FRAME, whole=False)
    assert np.array_equal(exact, warp_crop(picture, affine, 64))
    larger = np.asarray(Image.fromarray(picture).resize((400, 440), Image.Resampling.BICUBIC))
    near = truth_crop(larger, record, face(affine), FRAME, whole=False).astype(int)
    assert np.abs(near - exact).mean() < 2
    assert truth_crop(picture[:100], record, face(affine), FRAME, whole=False) is None


def test_of_aligned_pictures_the_truth_is_the_crop():
    assert truth_crop(TRUTH, ImageRecord("p"), face(np.eye(2, 3)), FRAME, whole=True) is TRUTH
    assert truth_crop(TRUTH, ImageRecord("p"), face(np.eye(2, 3)), CropFrame(32), whole=True).shape == (
        32,
        32,
        3,
    )
    assert truth_crop(TRUTH[:50], ImageRecord("p"), face(np.eye(2, 3)), FRAME, whole=True) is None


@pytest.fixture
def row(tmp_path):
    """A unit of three aligned faces: one with its truth, one without, and one that failed."""
    write_folder(tmp_path / "in", {"a.png": PNG, "b.png": PNG, "c.png": PNG})
    write_folder(tmp_path / "true", {"a.png": PNG, "c.png": PNG})
    unit = Unit("s", "folder", 0, True, tuple(
        Address(f"{n}.png", str(tmp_path / "in" / f"{n}.png"), 0, len(PNG)) for n in "abc"
    ))  # fmt: skip
    faces = [face(np.eye(2, 3), i, error="broken" if i == 2 else "") for i in range(3)]
    crops = [TRUTH] * 3
    return {
        "unit": unit.name, "work": unit.to_json(), "faces": dump_records(faces), "crops": pack(crops),
        "images": dump_records([ImageRecord(a.member, width=64, height=64, outcome="restored") for a in unit.images]),
        "restored": pack([TRUTH // 2 + 50] * 3), "sums": json.dumps({"seconds_read": 1.0}),
    }  # fmt: skip


def test_what_is_measured_reaches_faces_records_and_marker(row, tmp_path):
    metrics = ("features", "psnr")
    settings = MeasureSettings(metrics, str(tmp_path / "true"), FRAME, True, images.MAX_PIXELS, None)
    done = MeasureFaces(settings)(row)
    faces, unit = load_faces(done), Unit.from_json(row["work"])
    assert [set(f.measured) for f in faces] == [{"psnr"}, set(), set()]
    sums = json.loads(done["sums"])
    # the failed face counts as neither measured nor without truth
    assert sums["truths_missing"] == 1 and sums["seconds_read"] == 1 and sums["seconds_measure"] > 0
    records = [ImageRecord(**r) for r in json.loads(done["images"])]
    table = pq.read_table(io.BytesIO(record_table(unit, records, faces, {}, ("psnr",), features_of(done))))
    rows = [r for r in table.to_pylist() if r["kind"] == "face"]
    assert [r["psnr"] for r in rows] == [faces[0].measured["psnr"], None, None]
    lengths = [[r[name] and len(r[name]) for name in ("features", "features_truth")] for r in rows]
    assert lengths == [[2048, 2048], [2048, None], [None, None]]
    marker = make_marker(unit, records, faces, sums, [], ("psnr",))
    assert marker.sums["psnr/count"] == 1 and marker.sums["psnr/total"] == faces[0].measured["psnr"]


def test_without_truth_the_faces_as_they_came_have_features(row):
    settings = MeasureSettings(("features",), None, FRAME, True, images.MAX_PIXELS, None)
    found = features_of(MeasureFaces(settings)(row))
    assert set(found) == {"features", "features_before"}
    assert [np.isfinite(f).all(axis=1).tolist() for f in found.values()] == [[True, True, False]] * 2
    assert (found["features"][0] != found["features_before"][0]).any()


def test_records_of_a_run_that_measures_nothing_are_what_they_were(row):
    unit, records = Unit.from_json(row["work"]), [ImageRecord(**r) for r in json.loads(row["images"])]
    table = pq.read_table(io.BytesIO(record_table(unit, records, load_faces(row), {})))
    assert not {"psnr", "features", "measured"} & set(table.column_names)
    marker = make_marker(unit, records, load_faces(row), {}, [])
    assert not [name for name in marker.sums if "/" in name]


def test_a_unit_that_was_not_begun_passes_by():
    settings = MeasureSettings(("psnr",), None, FRAME, True, images.MAX_PIXELS, None)
    assert MeasureFaces(settings)({"unit": "s-0000"}) == {"unit": "s-0000"}
