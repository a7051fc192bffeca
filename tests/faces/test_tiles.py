"""Finding the small faces of large pictures, in tiles."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.faces.detect import SEARCH_SIDE, CenterFace, Face, Selection, select_faces
from pipeline.faces.tiles import TILE_SIDE, find_faces, tile_scales, tile_spans, without_parts
from tests.photographs import portrait

LANDMARKS = np.array([(3, 4), (7, 4), (5, 6), (3.5, 8), (6.5, 8)], np.float32)
# how wide the box of `portrait` is as a share of the picture's width
FACE_SHARE = 0.48


@pytest.fixture(scope="module")
def centerface():
    return CenterFace()


def wall(height, width, face_width, places):
    """A grey wall with portraits whose faces are so wide, at left upper corners; and the portraits' size."""
    picture = np.full((height, width, 3), 128, np.uint8)
    small = np.array(portrait(round(face_width / FACE_SHARE), round(face_width / FACE_SHARE * 1.1)))
    for x, y in places:
        picture[y : y + small.shape[0], x : x + small.shape[1]] = small
    return picture, small.shape


class Scripted:
    """A detector of given boxes in the pictures of each size."""

    def __init__(self, **answers):
        self.answers, self.seen = answers, []

    def __call__(self, picture):
        height, width = picture.shape[:2]
        self.seen.append((height, width))
        return [
            Face(box, LANDMARKS + np.float32(box[:2]), score)
            for box, score in self.answers.get(f"w{width}", [])
        ]


def test_every_small_face_of_a_wide_picture_is_found_once_wherever_the_tiles_end(centerface):
    places = [(20 + 71 * i, 30 + 7 * (i % 9)) for i in range(50)]
    picture, (height, width, _) = wall(160, 3600, 22, places)
    assert len(select_faces(centerface(picture), Selection())) < 10
    found = select_faces(find_faces(centerface, picture, Selection()), Selection())
    assert len(found) == len(places)
    noses = sorted(tuple(f.landmarks[2]) for f in found)
    for nose, (x, y) in zip(noses, places, strict=True):
        assert x + width * 0.3 < nose[0] < x + width * 0.7 and y + height * 0.3 < nose[1] < y + height * 0.8


def test_a_picture_up_to_the_search_side_has_the_detectors_own_faces(centerface):
    picture, _ = wall(200, SEARCH_SIDE, 40, [(50, 20), (700, 30)])
    whole, tiled = centerface(picture), find_faces(centerface, picture, Selection())
    assert [f.box for f in whole] == [f.box for f in tiled] and len(whole) == 2
    assert all((a.landmarks == b.landmarks).all() for a, b in zip(whole, tiled, strict=True))


@pytest.mark.parametrize(("height", "width"), [(20, 5000), (5000, 20), (1, 1), (3, 2)])
def test_pictures_of_any_shape_are_searched(centerface, height, width):
    ramp = np.tile(np.arange(width) % 256, (height, 1)).astype(np.uint8)
    assert find_faces(centerface, np.repeat(ramp[..., None], 3, axis=2), Selection()) == []


def test_a_thin_picture_is_not_stretched(centerface):
    """Its height is no multiple of 32."""
    picture, _ = wall(75, 3000, 28, [(1500, 5)])
    (found,) = select_faces(find_faces(centerface, picture, Selection()), Selection())
    assert found.box[3] <= 75 and 1500 < found.landmarks[2, 0] < 1500 + 58


@pytest.mark.parametrize(
    ("height", "width", "min_face", "scales"),
    [
        (1536, 1536, 16, []),
        (4000, 3000, 16, [1.0]),
        (4000, 3000, 32, [0.5]),
        (4000, 3000, 64, []),
        (4000, 3000, 4, [1.0]),
        (4000, 3000, 0, [1.0]),
    ],
)
def test_tiles_go_as_fine_as_the_smallest_wanted_face(height, width, min_face, scales):
    assert tile_scales(height, width, min_face) == scales


def test_a_very_long_picture_has_levels_between():
    """So that the faces that the whole misses are never larger than the tiles' overlap."""
    scales = [SEARCH_SIDE / 60000, *tile_scales(100, 60000, 16)]
    assert scales[-1] == 1 and max(b / a for a, b in pairwise(scales)) <= 6.001


@pytest.mark.parametrize("overlap", [32, 80, 192])
@pytest.mark.parametrize("length", [1, 700, 1024, 1025, 1700, 4000, 8191, 20000])
def test_tiles_of_one_length_cover_a_side_and_overlap(length, overlap):
    spans = tile_spans(length, overlap)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert len({end - begin for begin, end in spans}) == 1 and spans[0][1] <= TILE_SIDE
    assert all(a[1] - b[0] >= overlap for a, b in pairwise(spans))


def textured(height, width):
    return np.tile(np.arange(width) % 251, (height, 1)).astype(np.uint8)[..., None].repeat(3, axis=2)


def tile_width(width):
    return tile_spans(width, int(np.ceil(32 * width / SEARCH_SIDE)))[0][1]


def test_tiles_are_filled_up_to_what_the_detector_would_stretch_them_to():
    detector = Scripted()
    find_faces(detector, textured(75, 2000), Selection())
    assert detector.seen[0] == (75, 2000) and len(detector.seen) > 2
    assert all(height % 32 == width % 32 == 0 for height, width in detector.seen[1:])


def test_a_face_at_the_border_of_a_tile_is_left_to_the_neighbour():
    width = tile_width(2000)
    cut = ((width - 21.0, 40.0, float(width), 62.0), 0.9)
    detector = Scripted(**{f"w{width}": [cut]})
    found = find_faces(detector, textured(96, 2000), Selection())
    # the last tile ends where the picture does, and there such a box is whole
    assert [f.box for f in found] == [(1979.0, 40.0, 2000.0, 62.0)]
    np.testing.assert_allclose(found[0].landmarks, LANDMARKS + np.array([1979, 40]), atol=0.01)


def face(box, score):
    return Face(box, LANDMARKS, score)


def test_a_part_of_a_face_gives_way_to_the_face():
    whole, part = face((100.0, 10.0, 180.0, 110.0), 0.9), face((155.0, 40.0, 185.0, 70.0), 0.6)
    assert without_parts([whole], [part]) == [whole]


def test_what_looks_like_one_large_face_gives_way_to_the_faces_in_it():
    crowd = face((100.0, 10.0, 180.0, 110.0), 0.6)
    people = [face((105.0, 20.0, 130.0, 50.0), 0.9), face((150.0, 20.0, 175.0, 50.0), 0.55)]
    assert without_parts([crowd], people) == people


def test_of_the_same_face_at_two_scales_the_surer_stays_and_neighbours_stay():
    coarse, fine = face((100.0, 10.0, 120.0, 34.0), 0.55), face((101.0, 9.0, 121.0, 35.0), 0.8)
    beside = face((115.0, 10.0, 135.0, 34.0), 0.7)
    assert without_parts([coarse], [fine, beside]) == [fine, beside]
    assert without_parts([fine, beside], [coarse]) == [fine, beside]


def test_a_flat_tile_is_not_looked_at():
    picture = np.full((96, 4000, 3), 200, np.uint8)
    detector = Scripted()
    find_faces(detector, picture, Selection())
    assert detector.seen == [(96, 4000)]
    detector.seen.clear()
    picture[:, :200] = textured(96, 200)
    find_faces(detector, picture, Selection())
    assert len(detector.seen) == 2


def test_a_face_larger_than_the_overlap_is_the_whole_pictures():
    width = tile_width(2000)
    detector = Scripted(**{f"w{width}": [((300.0, 4.0, 380.0, 90.0), 0.99)]})
    assert find_faces(detector, textured(96, 2000), Selection()) == []


def test_a_portrait_is_as_wide_as_these_tests_take_it(centerface):
    whole = np.array(portrait(200, 220))
    (face,) = select_faces(centerface(whole), Selection())
    assert (face.box[2] - face.box[0]) / 200 == pytest.approx(FACE_SHARE, abs=0.08)
