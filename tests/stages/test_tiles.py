"""Pictures of faces for the review page: at the picture's own size, before and after, and what was tried."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.faces.geometry import CropFrame
from pipeline.io.units import Address, Unit
from pipeline.records.rows import FaceRecord, ImageRecord, pack
from pipeline.restoration.review import _heat
from pipeline.stages.shown import Shown, tried_crops
from pipeline.stages.tiles import cut_pair, review_tile, tile_matrix, tile_side

FRAME = CropFrame(128)
SHIFTED = [1.0, 0.0, -40.0, 0.0, 1.0, -50.0]


def face(number: int = 0, **values) -> FaceRecord:
    given = {"scale": 1.0, "treatment": "chain"} | values
    return FaceRecord(0, number, [60.0, 70.0, 120.0, 150.0], [0.0] * 10, SHIFTED, 0.9, **given)


def picture(seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:300, :260]
    return np.stack([(3 * x + seed) % 700 // 3, 2 * y % 600 // 3, (2 * x + 2 * y) // 5], axis=2).astype(
        np.uint8
    )


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_tile_has_the_pictures_own_pixels_with_what_is_around_the_crop():
    before, after = picture(0), picture(9)
    side = tile_side(1.0, FRAME)
    assert side == 192  # half as much again as the crop
    tiles = cut_pair(before, after, tile_matrix(SHIFTED, FRAME, side), side)
    # the crop begins at (40, 50), and the tile 32 pixels before
    for tile, whole in zip(tiles, (before, after), strict=True):
        assert np.abs(tile.astype(int) - whole[18:210, 8:200]).mean() < 1


def test_small_faces_get_larger_tiles_and_large_ones_smaller():
    assert tile_side(0.1, FRAME) == 96 and tile_side(20.0, FRAME) == 640


def test_a_tile_shows_both_side_by_side():
    flat = [np.full((300, 260, 3), level, np.uint8) for level in (50, 200)]
    sprite = opened(review_tile(*flat, face(), FRAME))
    assert sprite.shape == (192, 384, 3)
    assert abs(int(sprite[90, 90, 0]) - 50) < 3 and abs(int(sprite[90, 290, 0]) - 200) < 3


def test_the_map_of_the_spread_lies_over_the_crop_in_the_tile():
    a, b, c, d, e, f = _heat(face(), FRAME, 192)
    assert (a, b, c, d) == pytest.approx((1, 0, 0, 1)) and (e, f) == pytest.approx((32, 32))
    # of a face of a quarter of the size the tile is twice the crop's frame
    small = face(scale=0.25)
    small.affine = [4.0, 0.0, 0.0, 0.0, 4.0, 0.0]
    side = tile_side(0.25, FRAME)
    a, *_, f = _heat(small, FRAME, side)
    assert side == 96 and a == pytest.approx(0.5) and f == pytest.approx((96 - 64) / 2)


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shown(faces: list[FaceRecord], review: bool) -> Shown:
    collected = Shown(FRAME, [ImageRecord("a.png")], faces, [0], 1 << 20, review)
    collected.take(0, encoded(picture()), encoded(picture(9)))
    return collected


def test_every_face_with_a_crop_gets_a_tile_and_those_with_several_results_their_panels():
    tried = [
        {"rung": "asked", "failed": "identity"},
        {"rung": "held", "failed": "non_finite"},
        {"rung": "estimator"},
    ]
    faces = [face(0), face(1, tried=tried), face(2, has_crop=False), face(3, error="E: no"), face(4)]
    unit = Unit("s", "folder", 0, True, (Address("a.png", "u", 0, 1),))
    crops = np.zeros((4, 128, 128, 3), np.uint8)
    results = tried_crops(faces, pack([np.full((128, 128, 3), v, np.uint8) for v in (80, 160)]), 128)
    assert list(results) == [1] and len(results[1]) == 2  # a chain that is not finite has no picture
    spread = np.full((128, 128), 240, np.uint8)
    files = dict(shown(faces, True).files(unit, faces, crops, crops + 40, results, {3: spread}))
    names = {path.rpartition("/")[2] for path in files}
    assert names == {"0000-00.jpg", "0000-01.jpg", "0000-01-more.jpg", "0000-04.jpg", "0000-04-more.jpg"}
    panels = opened(files["review/tiles/s-0000/0000-01-more.jpg"])
    assert [round(int(panels[64, x, 0]), -1) for x in (64, 192, 320)] == [0, 80, 160]
    panels = opened(files["review/tiles/s-0000/0000-04-more.jpg"])
    assert [round(int(panels[64, x, 0]), -1) for x in (64, 192, 320)] == [0, 40, 240]


def test_without_a_review_only_the_sheets_faces_are_cut():
    faces = [face(0), face(1)]
    unit = Unit("s", "folder", 0, True, (Address("a.png", "u", 0, 1),))
    collected = shown(faces, False)
    crops = np.zeros((2, 128, 128, 3), np.uint8)
    assert len(collected.samples) == 1 and not list(collected.files(unit, faces, crops, crops, {}, {}))
