"""Scratches are found where they are, in pictures of any size, and none in clean ones."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from photographs import encoded, portrait, write_folder
from PIL import Image

from pipeline.diffusion.task import Task
from pipeline.faces.detect import Selection
from pipeline.faces.geometry import CropFrame
from pipeline.io import images
from pipeline.io.masks import NoMask
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.io.units import Address, Unit
from pipeline.records.rows import load_faces, load_images, unpack
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.holes import LONGEST, _connected, find_scratches, holes_of, load_network
from pipeline.stages.publish import Publish
from pipeline.stages.restore import HOLE_LEVEL

SIDE, MAX_PIXELS = 64, 178_956_970


def clean(height: int = 200, width: int = 240) -> np.ndarray:
    """Something like an old print: a face before a gradient, grey, with grain."""
    y, x = np.mgrid[:height, :width]
    grey = 90 + 50 * x / width + 20 * y / height
    grey += np.random.default_rng(0).normal(0, 2, grey.shape)
    face = cv2.resize(np.array(portrait().convert("L")), (width * 2 // 5, height // 2))
    grey[height // 4 :, width // 4 :][: len(face), : face.shape[1]] = face
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def cracked(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a jagged white line from side to side, and where that is."""
    height, width = picture.shape[:2]
    rng = np.random.default_rng(1)
    x = np.linspace(0, width, 40)
    y = height * (0.3 + 0.3 * x / width) + rng.normal(0, height / 120, 40)
    line = np.zeros((height, width), np.uint8)
    points = np.rint(np.stack([x, y], 1)).astype(np.int32)
    cv2.polylines(line, [points], False, 1, max(round(height / 70), 2))
    return np.where(line[..., None] > 0, np.uint8(228), picture), line > 0


def hole_in(picture: np.ndarray, choice: str = "scratches") -> np.ndarray:
    there = images.decode(encoded(Image.fromarray(picture), "PNG"))
    return holes_of(choice, there, Address("p.png", "", 0, 0), Unit("s", "tar", 0, True, ()), MAX_PIXELS)


@pytest.mark.parametrize("size", [(200, 240), (1300, 2000)])
def test_a_crack_is_found_with_its_edges_and_little_beside_it(size):
    picture, line = cracked(clean(*size))
    hole = hole_in(picture)
    around = cv2.dilate(line.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert hole.shape == size and hole.dtype == bool
    assert hole[line].mean() > 0.9
    assert hole[~around].mean() < 0.01


def test_nothing_is_found_in_a_clean_picture():
    assert hole_in(clean()).mean() < 0.002
    assert not hole_in(np.full((40, 60, 3), 128, np.uint8)).any()


def test_a_large_picture_is_looked_at_in_a_smaller_size_and_its_mask_is_as_large():
    seen = []

    def network(picture: np.ndarray) -> np.ndarray:
        seen.append(picture.shape)
        marked = np.zeros(picture.shape[:2], np.uint8)
        if len(picture) == LONGEST:
            marked[10, 20:40] = 255
        return marked

    hole = find_scratches(np.zeros((2 * LONGEST, LONGEST, 3), np.uint8), network)
    assert seen == [(LONGEST // k, LONGEST // 2 // k, 3) for k in (1, 2, 4)]
    assert hole.shape == (2 * LONGEST, LONGEST)
    rows, columns = np.nonzero(hole)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (18, 23, 38, 81)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (17, 33)])
def test_pictures_of_odd_sizes_have_masks_of_their_size(size):
    assert hole_in(np.full((*size, 3), 90, np.uint8)).shape == size


def test_specks_and_what_is_nowhere_sure_are_dropped():
    likelihood = np.zeros((40, 60), np.uint8)
    likelihood[5, 5:20] = 150
    likelihood[5, 8] = 255
    likelihood[15, 5:20] = 150  # nowhere sure
    likelihood[25:28, 5:8] = 255  # a speck
    expected = np.zeros_like(likelihood)
    expected[5, 5:20] = 255
    assert np.array_equal(_connected(likelihood), expected)


def test_the_mask_depends_on_the_picture_alone():
    picture = cracked(clean())[0]
    once = hole_in(picture)
    load_network.cache_clear()
    assert np.array_equal(once, hole_in(picture))


def test_other_masks_are_found_as_before():
    picture = clean()
    picture[20:30] = 0
    assert np.array_equal(hole_in(picture, "black"), (picture == 0).all(axis=2))
    with pytest.raises(NoMask, match="in a tar shard use alpha, a colour or scratches"):
        hole_in(picture, "scratches/")


def stages(tmp_path, files: dict[str, bytes], mask: str):
    """The stages before and behind the engine for these pictures, and the row that the first makes of them."""
    kind, entries = list_input(str(write_folder(tmp_path / "in", files)), "auto")
    (unit,) = (u for s in make_shards(kind, entries, 64) for u in cut_units(s, 64, "image"))
    read = ReadAndAlign(
        CropFrame(SIDE), DetectorChoice("centerface", None, None), Selection(), False, False, None, MAX_PIXELS,
        "image", str(tmp_path / "stop"), task=Task("inpaint"), mask=mask,
    )  # fmt: skip
    publish = Publish(
        str(tmp_path / "out"), CropFrame(SIDE), "image", False, None, MAX_PIXELS, False, {"eta": 0.5, "seed": 0},
        task=Task("inpaint"), mask=mask,
    )  # fmt: skip
    return read, publish, read({"unit": unit.name, "work": unit.to_json()})


def delivered(tmp_path, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO((tmp_path / "out/images" / name).read_bytes())))


def test_a_face_behind_a_crack_is_filled_and_one_without_stays_as_it_came(tmp_path):
    whole = np.array(portrait(200, 220))
    broken, line = cracked(whole)
    files = {
        "a.png": encoded(Image.fromarray(broken), "PNG"),
        "b.png": encoded(Image.fromarray(whole), "PNG"),
    }
    read, publish, row = stages(tmp_path, files, "scratches")
    face, other = load_faces(row)
    assert face.has_crop and not other.has_crop and other.kept == "no hole reaches into the face"
    assert [image.outcome for image in load_images(row)] == [None, "skipped"]
    (hole,) = unpack(row["holes"], [SIDE])
    assert 0.01 < (hole > 0).mean() < 0.4
    publish(row | {"estimated": row["crops"], "restored": bytes(len(row["crops"]))})
    changed = (delivered(tmp_path, "a.png") != broken).any(axis=2)
    assert changed[line].mean() > 0.5 and not changed[~hole_in(broken)].any()
    assert (tmp_path / "out/images/b.png").read_bytes() == files["b.png"]
    assert replace(read, mask=None) != read


def test_a_hair_across_a_large_face_is_no_hole_of_its_crop_and_is_filled(tmp_path):
    broken = np.array(portrait(600, 660))
    broken[300, 100:500] = 255, 0, 255
    _, publish, row = stages(tmp_path, {"a.png": encoded(Image.fromarray(broken), "PNG")}, "#ff00ff")
    (hole,) = unpack(row["holes"], [SIDE])
    # the share of each pixel that is a hole
    assert 0 < hole.max() < HOLE_LEVEL
    publish(row | {"estimated": row["crops"], "restored": row["crops"]})
    done = delivered(tmp_path, "a.png")
    assert not (done[300, 200:400] == (255, 0, 255)).all(axis=1).any()
    around = broken.copy()
    around[300, 100:500] = done[300, 100:500]
    assert np.array_equal(done, around)
