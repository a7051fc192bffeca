"""Which faces are cut, which are left, and what the records, marker and outcomes say of both."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, write_folder
from PIL import Image

from pipeline.faces.detect import Selection
from pipeline.faces.geometry import CropFrame
from pipeline.faces.sides import LargerSide
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.records.rows import crop_sides, load_faces, load_images, unpack, with_crops
from pipeline.restoration.preview import count_faces
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.publish import Publish

SIDE, MAX_PIXELS = 64, 178_956_970
CENTERFACE = DetectorChoice("centerface", None, None)


class Read:
    """What the stage makes of one picture."""

    def __init__(self, folder, picture, larger=(), **selection):
        self.folder = folder
        write_folder(folder / "in", {"a.png": encoded(picture, "PNG")})
        kind, entries = list_input(str(folder / "in"), "auto")
        (self.unit,) = (u for s in make_shards(kind, entries, 64) for u in cut_units(s, 64, "image"))
        self.selection = Selection(**selection)
        stage = ReadAndAlign(
            CropFrame(SIDE), CENTERFACE, self.selection, False, False, None, MAX_PIXELS, "image",
            str(folder / "stop"), larger,
        )  # fmt: skip
        self.row = stage({"unit": self.unit.name, "work": self.unit.to_json()})
        (self.image,) = load_images(self.row)
        self.faces = load_faces(self.row)
        self.crops = unpack(self.row["crops"], crop_sides(self.faces, SIDE))

    def published(self):
        """The unit's marker, and its rows of faces."""
        publish = Publish(
            str(self.folder / "out"),
            CropFrame(SIDE),
            "image",
            False,
            None,
            MAX_PIXELS,
            False,
            {"eta": 0.5, "seed": 0},
        )
        crops = bytes(255 - b for b in self.row["crops"])
        row = publish(self.row | {"estimated": crops, "restored": crops})
        rows = pq.read_table(self.folder / "out" / self.unit.records_path).to_pylist()
        return json.loads(row["marker"]), [r for r in rows if r["kind"] == "face"]


def wall(*widths):
    """Portraits so wide side by side."""
    whole = Image.new("RGB", (sum(widths) + 40 * len(widths), 300), (90, 100, 110))
    x = 20
    for width in widths:
        whole.paste(portrait(width, round(width * 1.1)), (x, 20))
        x += width + 40
    return whole


def test_every_face_has_a_row_and_those_left_have_no_crop_and_a_reason(tmp_path):
    read = Read(tmp_path, wall(240, 200, 160, 60), max_faces=2, min_face=40)
    assert [(f.face, f.left_for, f.has_crop) for f in read.faces] == [
        (0, "", True),
        (1, "", True),
        (2, "surplus", False),
        (3, "small", False),
    ]
    assert len(read.crops) == 2 and read.image.outcome is None
    marker, rows = read.published()
    assert marker["faces"] == 4 and marker["outcomes"]["restored"] == 1
    sums = marker["sums"]
    assert (sums["faces_left"], sums["faces_left_surplus"], sums["faces_left_small"]) == (2, 1, 1)
    assert sums["crops"] == 2 and "faces_left_unfit" not in sums
    assert rows[2]["kept"].startswith("beyond --max-faces 2") and rows[2]["treatment"] == "left"
    assert rows[3]["kept"].startswith("smaller than --min-face: ") and rows[3]["left_for"] == "small"


def test_a_large_face_has_a_larger_crop_and_a_small_one_the_bits_it_always_had(tmp_path):
    larger = (LargerSide(96, 1.4, 0.1),)
    plain, sided = Read(tmp_path / "plain", wall(240, 60)), Read(tmp_path / "sided", wall(240, 60), larger)
    assert [(f.side, c.shape) for f, c in zip(sided.faces, sided.crops, strict=True)] == [
        (96, (96, 96, 3)),
        (64, (64, 64, 3)),
    ]
    assert [f.side for f in plain.faces] == [64, 64]
    assert np.array_equal(sided.crops[1], plain.crops[1]) and vars(sided.faces[1]) == vars(plain.faces[1])
    assert sided.faces[0].scale == pytest.approx(plain.faces[0].scale * 64 / 96)
    _, rows = sided.published()
    assert [row["side"] for row in rows] == [96, 64]


def test_a_picture_of_faces_that_are_too_small_is_skipped_with_that_reason_and_stays(tmp_path):
    read = Read(tmp_path, wall(60), min_face=40)
    assert (read.image.outcome, read.image.reason) == ("skipped", "smaller than --min-face")
    assert read.image.error.startswith("smaller than --min-face: ") and read.image.without_restoration
    marker, _ = read.published()
    assert marker["reasons"]["skipped"] == {"align: smaller than --min-face": 1} and marker["faces"] == 1
    assert (tmp_path / "out/images/a.png").read_bytes() == (tmp_path / "in/a.png").read_bytes()


def test_a_picture_without_a_face_has_none(tmp_path):
    read = Read(tmp_path, Image.linear_gradient("L").convert("RGB"))
    assert (read.image.outcome, read.faces) == ("no_face", [])


@pytest.mark.parametrize("degrees", [60, 90, 180, 270])
def test_a_turned_face_is_cut_upright(tmp_path, degrees):
    upright = Read(tmp_path / "upright", portrait(240, 264)).crops[0]
    picture = portrait(240, 264).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    (crop,) = Read(tmp_path / "turned", picture).crops
    middle = (slice(16, 48), slice(16, 48))
    alike = [np.corrcoef(np.rot90(crop, k)[middle].ravel(), upright[middle].ravel())[0, 1] for k in range(4)]
    assert alike[0] > 0.85 and max(alike[1:]) < 0.6


def test_a_face_that_fits_none_is_left_with_its_reason_and_shifts_no_number(tmp_path, monkeypatch):
    """Upright the detector sees the sideways one too; where nothing shows it upright it is left."""
    from pipeline.stages import align

    find = align.load_detector(CENTERFACE)
    picture = Image.new("RGB", (600, 300), (90, 100, 110))
    picture.paste(portrait(240, 264).rotate(90, expand=True), (10, 10))
    picture.paste(portrait(120, 132), (400, 20))
    whole = find(np.array(picture))
    monkeypatch.setattr(align, "load_detector", lambda _: lambda seen: whole if seen.shape[1] == 600 else [])
    read = Read(tmp_path, picture)
    assert [(f.face, f.left_for, f.has_crop) for f in read.faces] == [(0, "unfit", False), (1, "", True)]
    assert "do not fit a face (residual" in read.faces[0].kept
    marker, _ = read.published()
    assert marker["sums"]["faces_left_unfit"] == 1 and marker["outcomes"]["restored"] == 1


def test_the_dry_run_counts_what_a_run_restores_and_leaves(tmp_path):
    read = Read(tmp_path, wall(240, 200, 160, 60), max_faces=2, min_face=40)
    unit = replace(read.unit, attempts=1)
    census = count_faces([unit], CENTERFACE, read.selection, "image", MAX_PIXELS)
    assert (census.images, census.faces, census.left) == (1, len(with_crops(read.faces)), 2)


def test_small_faces_of_a_large_picture_are_cut(tmp_path):
    """Shrunk as a whole to 1536 pixels they would be 10 pixels wide."""
    picture = Image.new("RGB", (3200, 200), (120, 120, 120))
    for i in range(12):
        picture.paste(portrait(44, 48), (31 + 263 * i, 40 + 9 * i))
    read = Read(tmp_path, picture)
    assert len(read.crops) == 12 and {f.left_for for f in read.faces} == {""}
    assert sorted(round((f.box[0] - 31) / 263) for f in read.faces) == list(range(12))
