"""Damage as real photographs have it, and the sets of photographs that are made with it."""

import io
import tarfile
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pipeline.datasets.faces import PHOTOGRAPHS, SampleError, find_faces
from pipeline.evaluation.photographs import (
    damaged,
    head_box,
    place_photographs,
    write_photographs,
)
from pipeline.evaluation.realworld import (
    LEVELS,
    RANGES,
    Damage,
    blur_kernel,
    damage,
    draw_damage,
    generator,
)
from pipeline.faces.geometry import FFHQ_TEMPLATE_512, UnusableLandmarks

# wider than high, one face left of the middle
PORTRAIT = np.ascontiguousarray(data.astronaut()[:260, 90:400])
CAT = np.ascontiguousarray(data.chelsea()[:, :300])
NOTHING = Damage(0, 0, 0, 1, "area", "cubic", 0, False, 0, 98, False)


def encoded(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A set at two levels of two portraits of different sizes, a cat and a broken file, and where it lies."""
    folder = tmp_path_factory.mktemp("photographs")
    members = {
        "a/first.png": encoded(PORTRAIT),
        "a/cat.png": encoded(CAT),
        "a/second.png": encoded(PORTRAIT[4:, 8:]),
        "broken.jpg": b"no picture",
    }
    write_tar(folder / "some.tar", members)
    return make(folder / "some.tar", folder / "sets")


def make(source, around, seed=0, levels=("clean", "medium")):
    faces = find_faces(str(source), PHOTOGRAPHS).faces
    made = place_photographs(faces, seed, levels, str(around))
    write_photographs(made, faces)
    return made


def test_every_number_of_a_damage_stays_within_its_range_and_near_its_level():
    for number in range(200):
        for name, level in LEVELS.items():
            if level is None:
                continue
            how = asdict(draw_damage(level, generator(0, number, name)))
            for column, (least, most) in RANGES.items():
                assert least <= how[column] <= most
                assert 0.79 <= how[column] / getattr(level, column) <= 1.21
            assert 0.3 * how["blur"] <= how["blur_across"] <= how["blur"]


def test_the_drawn_choices_come_as_often_as_they_should():
    drawn = [draw_damage(LEVELS["mild"], generator(0, number, "mild")) for number in range(1000)]
    assert {how.down for how in drawn} == {"linear", "cubic", "area"}
    assert {how.up for how in drawn} == {"linear", "cubic"}
    assert np.mean([how.grain > 0 for how in drawn]) == pytest.approx(0.25, abs=0.05)
    assert np.mean([how.blur_across == how.blur for how in drawn]) == pytest.approx(0.5, abs=0.05)
    assert {how.shared_chroma for how in drawn} == {how.grey_noise for how in drawn} == {True, False}


def test_the_same_seed_number_and_level_give_the_same_picture_and_others_another():
    first, how = damaged(PORTRAIT, 0, 3, "heavy")
    again, _ = damaged(PORTRAIT, 0, 3, "heavy")
    assert (first == again).all() and how["shrink"] > 4
    others = [damaged(PORTRAIT, *other)[0] for other in ((1, 3, "heavy"), (0, 4, "heavy"), (0, 3, "mild"))]
    assert all((first != other).any() for other in others)


def test_damage_grows_with_its_level_and_clean_is_nothing():
    errors = [
        np.square(damaged(PORTRAIT, 0, 0, level)[0].astype(float) - PORTRAIT).mean() for level in LEVELS
    ]
    assert errors[0] == 0 and errors == sorted(errors) and len(set(errors)) == 5


def test_a_damage_keeps_size_and_place_of_a_picture_that_is_not_square():
    grey = np.full((50, 83, 3), 128, np.uint8)
    assert np.abs(damage(grey, NOTHING, np.random.default_rng(0)).astype(int) - 128).max() <= 1
    plain, _ = damaged(PORTRAIT, 0, 0, "heavy")
    shifted = [np.square(np.roll(plain, k, 1).astype(float) - PORTRAIT).mean() for k in (-2, 0, 2)]
    assert plain.shape == PORTRAIT.shape and min(shifted) == shifted[1]


def test_a_blur_is_as_wide_as_it_says_along_and_across():
    kernel = blur_kernel(Damage(2.0, 0.8, 0.0, 1, "area", "cubic", 0, False, 0, 98, False)).astype(float)
    x = np.arange(len(kernel)) - len(kernel) // 2
    along, across = kernel.sum(axis=0) @ x**2, kernel.sum(axis=1) @ x**2
    assert along**0.5 == pytest.approx(2.0, rel=0.03) and across**0.5 == pytest.approx(0.8, rel=0.03)


def test_the_box_of_a_face_holds_head_and_chin_and_ends_with_the_picture():
    # at 512 px the frame is 512 / 1.45 wide around (0.5, 0.57)
    assert head_box(FFHQ_TEMPLATE_512, 512, 512) == (79, 115, 433, 469)
    assert head_box(FFHQ_TEMPLATE_512, 300, 400) == (79, 115, 400, 300)
    with pytest.raises(UnusableLandmarks):
        head_box(np.zeros((5, 2)), 512, 512)


def test_a_set_holds_every_photograph_with_a_face_at_every_level(found):
    rows = found.sheet.to_pylist()
    assert [row["name"] for row in rows] == [
        "000000-clean", "000000-medium", "000002-clean", "000002-medium",
    ]  # fmt: skip
    for row in rows:
        truth, picture = found.read(found.truth, row["truth"]), found.read(found.degraded, row["name"])
        assert picture.shape == truth.shape and (row["level"] != "clean" or (picture == truth).all())
        assert len(row["landmarks"]) == 10 and row["box"][0] < row["landmarks"][0] < row["box"][2]
    assert (found.read(found.truth, "000000") == PORTRAIT).all()
    assert rows[0]["blur"] is None and rows[1]["blur"] == pytest.approx(1.5, rel=0.21)
    assert [row["member"] for row in rows[::2]] == ["a/first.png", "a/second.png"]


def test_photographs_without_a_face_and_broken_ones_are_left_out_and_told(found):
    assert found.left_out == {"no_face": 1, "unreadable": 1}
    assert found.contents == (
        "2 photographs at 2 levels (1 without a face to measure and 1 unreadable left out)"
    )


def test_a_finished_set_is_reused_and_its_folder_named_after_all_that_decides_it(found, tmp_path):
    source = tmp_path / "one.png"
    source.write_bytes(encoded(PORTRAIT))
    made = make(source, tmp_path / "sets", levels=("mild",))
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.p*")}
    assert make(source, tmp_path / "sets", levels=("mild",)).uri == made.uri
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.p*")} == written
    others = [make(source, tmp_path / "sets", **o) for o in ({"seed": 1}, {"levels": ("mild", "heavy")})]
    assert len({made.uri, *(o.uri for o in others)}) == 3
    # a level does not depend on the others
    assert (
        others[1].read(others[1].degraded, "000000-mild") == made.read(made.degraded, "000000-mild")
    ).all()


def test_photographs_that_show_no_face_at_all_are_refused(tmp_path):
    (tmp_path / "cat.png").write_bytes(encoded(CAT))
    with pytest.raises(SampleError, match="of 1, 1 have none and 0 cannot be read"):
        make(tmp_path / "cat.png", tmp_path / "sets")
    with pytest.raises(SampleError, match="there is nothing of that name; correct the address"):
        find_faces(str(tmp_path / "sets" / "*.tar"), PHOTOGRAPHS)
    with pytest.raises(SampleError, match="give tars of photographs, or a folder of them"):
        find_faces(str(tmp_path / "*.tar"), PHOTOGRAPHS)
