"""Contact sheets: every picture is where it belongs, whole, whatever its size and its captions."""

import numpy as np
import pytest

from pipeline.reporting.palette import EMPTY, INK, OCHRE
from pipeline.reporting.sheet import Card, Group, Line, Row, draw_sheet, font, shortened, tile_side

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)


def plain(colour, height=64, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


def places(sheet, colour):
    """Left, top, right and bottom of what has this colour."""
    y, x = np.nonzero((sheet == colour).all(axis=2))
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def test_rows_are_below_each_other_and_cards_side_by_side():
    rows = [Row([Card([plain(RED)]), Card([plain(GREEN)])]), Row([Card([plain(BLUE)])])]
    sheet = draw_sheet("T", [[Group(rows)]], 128)
    red, green, blue = (places(sheet, c) for c in (RED, GREEN, BLUE))
    assert [(p[2] - p[0], p[3] - p[1]) for p in (red, green, blue)] == [(128, 128)] * 3
    assert red[1] == green[1] and red[2] < green[0]
    assert red[0] == blue[0] and red[3] < blue[1]


def test_groups_are_side_by_side_and_bands_below_each_other():
    one, two, three = (Group([Row([Card([plain(c)])])]) for c in (RED, GREEN, BLUE))
    sheet = draw_sheet("T", [[one, two], [three]], 128)
    red, green, blue = (places(sheet, c) for c in (RED, GREEN, BLUE))
    assert red[1] == green[1] and red[2] < green[0]
    assert red[0] == blue[0] and red[3] < blue[1]


def test_a_picture_keeps_its_shape_and_is_enlarged_only_where_that_is_wanted():
    group = Group([Row([Card([plain(RED, 20, 40)])])])
    for enlarge, size in ((True, (128, 64)), (False, (40, 20))):
        left, top, right, bottom = places(draw_sheet("T", [[group]], 128, enlarge=enlarge), RED)
        assert (right - left, bottom - top) == size
    left, top, right, bottom = places(
        draw_sheet("T", [[Group([Row([Card([plain(RED, 20, 900)])])])]], 128), RED
    )
    assert (right - left, bottom - top) == (128, 3)


def test_a_missing_picture_leaves_an_empty_field_that_says_so():
    sheet = draw_sheet("T", [[Group([Row([Card([plain(RED), None])])])]], 128)
    left, top, right, bottom = places(sheet, rgb(EMPTY))
    assert (right - left, bottom - top) == (128, 128)
    assert (sheet[top:bottom, left:right] < 160).any()


def test_captions_are_beneath_or_beside_their_card():
    card = Card([plain(RED)], [Line("one"), Line("two")])
    beneath, beside = (draw_sheet("", [[Group([Row([card])], beside=b)]], 128) for b in (False, True))
    left, top, right, bottom = places(beneath, RED)
    assert (beneath[bottom : bottom + 40, left:right] < 80).any()
    left, top, right, bottom = places(beside, RED)
    assert (beside[top:bottom, right + 4 :] < 80).any() and not (beside[bottom:] < 80).any()


def test_names_headings_and_titles_take_a_place_of_their_own():
    bare = draw_sheet("T", [[Group([Row([Card([plain(RED)])])])]], 128)
    columns = [Line("a name of many words that does not fit", OCHRE)]
    full = draw_sheet("T", [[Group([Row([Card([plain(RED)])], "a name")], columns, "title")]], 128)
    there, moved = places(bare, RED), places(full, RED)
    assert moved[0] > there[0] + 30 and moved[1] > there[1] + 60
    left, top, right, _ = moved
    assert (full[top : top + 128, :left] < 80).any()
    heading = full[top - 60 : top - 10]
    assert not (np.abs(heading[:, right + 2 :].astype(int) - rgb(OCHRE)).max(axis=2) < 40).any()


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", "\udce9", "\u202egpj.jpg", "漢字 ü $x_{1$", "\t", "", "é" * 500]
)
def test_any_text_can_be_set_and_changes_no_measure(name):
    def drawn(text):
        card = Card([plain(RED)], [Line(text), Line(text, wrap=True)])
        return draw_sheet(text, [[Group([Row([card])], [Line("column")])]], 128)

    assert drawn(name).shape == drawn("x").shape


def test_a_sheet_without_pictures_still_has_its_title():
    sheet = draw_sheet("nothing", [], 128, "no face was found")
    assert (sheet == rgb(INK)).all(axis=2).any()


def test_the_same_input_gives_the_same_pixels():
    bands = [[Group([Row([Card([plain(RED), None], [Line("a")])], "n")], [Line("c")], "t")]]
    assert np.array_equal(draw_sheet("T", bands, 128, "below"), draw_sheet("T", bands, 128, "below"))


def test_a_long_text_loses_its_middle_and_keeps_its_ends():
    text = shortened("shard-000001-of-001024.tar", font(13), 100)
    assert text.startswith("shard") and text.endswith(".tar") and "…" in text
    assert font(13).getlength(text) <= 100


def test_tiles_are_as_large_as_the_largest_picture_within_bounds():
    assert [tile_side(sides) for sides in ([], [8], [64, 200], [512])] == [128, 128, 200, 256]
