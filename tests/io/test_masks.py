"""Holes are given by the alpha channel, a colour, or a picture beside."""

import numpy as np
import pytest
from photographs import ORIENTATION, TURNED, encoded, portrait, write_folder
from PIL import Image

from pipeline.io import images
from pipeline.io.masks import NoMask, find_hole, is_mask, parse_colour
from pipeline.io.units import Address, Unit

HOLE = (slice(10, 30), slice(5, 25))


def holed(value=0) -> Image.Image:
    pixels = np.array(portrait()).clip(1)
    pixels[HOLE] = value
    return Image.fromarray(pixels)


def white_in_hole(size=(100, 110)) -> bytes:
    mask = np.zeros(size[::-1], np.uint8)
    mask[HOLE] = 255
    return encoded(Image.fromarray(mask), "PNG")


def found(choice, data, folder=None, member="a/p.png", kind="folder"):
    address = Address(member, str(folder / "in" / member) if folder else "", 0, len(data))
    unit = Unit("s", kind, 0, True, (address,))
    return find_hole(choice, images.decode(data), address, unit, images.MAX_PIXELS)


def wanted() -> np.ndarray:
    hole = np.zeros((110, 100), bool)
    hole[HOLE] = True
    return hole


@pytest.mark.parametrize(("choice", "value"), [("black", 0), ("#ff0180", (255, 1, 128))])
def test_a_colour_tells_the_hole_exactly(choice, value):
    assert np.array_equal(found(choice, encoded(holed(value), "PNG")), wanted())


def test_whatever_is_not_opaque_is_a_hole():
    picture = portrait().convert("RGBA")
    alpha = np.full((110, 100), 255, np.uint8)
    alpha[HOLE] = 254
    picture.putalpha(Image.fromarray(alpha))
    assert np.array_equal(found("alpha", encoded(picture, "PNG")), wanted())


@pytest.mark.parametrize("choice", ["sibling:_mask", "FOLDER"])
def test_a_mask_of_its_own_lies_beside_or_in_a_folder(tmp_path, choice):
    place = "in/a/p_mask.png" if choice.startswith("sibling") else "masks/a/p.png"
    write_folder(tmp_path, {place: white_in_hole()})
    choice = choice.replace("FOLDER", str(tmp_path / "masks"))
    assert np.array_equal(found(choice, encoded(portrait(), "PNG"), tmp_path), wanted())
    # of a picture that is turned the mask is upright, as people see both
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    turned = encoded(portrait().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    assert np.array_equal(found(choice, turned, tmp_path, "a/p.jpg"), wanted())


@pytest.mark.parametrize(
    ("choice", "kind", "sentence"),
    [
        ("alpha", "folder", "an alpha channel was wanted for its holes, it has none"),
        ("sibling:_mask", "folder", r"a mask was wanted at .*in/a/p_mask"),
        (
            "sibling:_mask",
            "tar",
            "masks beside pictures are for folders; in a tar shard use alpha, a colour or scratches",
        ),
    ],
)
def test_a_picture_without_a_mask_says_what_was_wanted(tmp_path, choice, kind, sentence):
    with pytest.raises(NoMask, match=sentence):
        found(choice, encoded(portrait(), "PNG"), tmp_path, kind=kind)


def test_a_mask_of_another_size_is_refused_with_both(tmp_path):
    write_folder(tmp_path, {"in/a/p_mask.png": white_in_hole((50, 50))})
    with pytest.raises(NoMask, match=r"100x110 was wanted for a/p\.png, .* has 50x50"):
        found("sibling:_mask", encoded(portrait(), "PNG"), tmp_path)


def test_masks_among_the_pictures_are_known_by_their_names():
    assert is_mask("sibling:_mask", "a/p_mask.png")
    assert not is_mask("sibling:_mask", "a/p.png")
    assert not is_mask("black", "a/p_mask.png") and not is_mask(None, "a/p_mask.png")


def test_colours_are_six_digits_after_a_hash():
    assert parse_colour("#0a0B0c") == (10, 11, 12)
    assert [parse_colour(text) for text in ("0a0b0c", "#0a0b0", "#0a0b0g", "black")] == [None] * 4
