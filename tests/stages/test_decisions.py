"""A face that has nothing to gain is left as it was, byte for byte, and what was decided of each is told everywhere."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import encoded, pixels, portrait

from pipeline.faces.geometry import CropFrame, warp_crop
from pipeline.io import images, store
from pipeline.io.units import Address, Unit
from pipeline.records.marker import Marker
from pipeline.records.rows import KEPT, FaceRecord, ImageRecord, dump_records, pack, with_crops
from pipeline.stages.align import leave
from pipeline.stages.publish import Publish
from pipeline.stages.record import decided
from pipeline.stages.sample import STRIP_FACES, choose_samples, cut_sample, decision, read_strip

SIDE = 32
SETTINGS = {"eta": 0.5, "seed": 0, "model_sha256": "a+b"}
LEFT = {"treatment": "left", "estimated_change": 0.25, "kept": "the face has nothing to gain"}
ESTIMATED = {"treatment": "estimator", "estimated_change": 0.8}
WALKED = {"treatment": "chain", "estimated_change": 3.5, "start_step": 152, "calls": 3, "hold": 1.5}
UNSEEN = {"treatment": "left", "kept": "the face is sharp already", "has_crop": False}
FAILED = {"error": "NonFiniteFace: no numbers"}
PICTURE = encoded(portrait(160, 176), "PNG")
# x and y of the middles of faces, far enough from each other not to overlap
PLACES = ((30, 30), (80, 30), (30, 100), (80, 100))


def face(what, place=(30, 30), scale=1.0, image=0, number=0) -> FaceRecord:
    """A crop around a point of the picture, `scale` of its pixels to one of the crop."""
    shift = [(SIDE - 1) / 2 - at / scale for at in place]
    affine = [1 / scale, 0.0, shift[0], 0.0, 1 / scale, shift[1]]
    return FaceRecord(image, number, [0.0] * 4, [0.0] * 10, affine, 0.9, scale, **what)


class Delivered:
    """What a folder unit of pictures leaves behind; every restored face is brighter by 40."""

    def __init__(self, place, pictures, faces, pastes_change=True, background=None):
        self.place = place
        (place / "in").mkdir()
        for name, data in pictures.items():
            (place / "in" / name).write_bytes(data)
        sizes = [pixels(data).shape[1::-1] for data in pictures.values()]
        unit = Unit("s", "folder", 0, True, tuple(
            Address(name, str(place / "in" / name), 0, len(data)) for name, data in pictures.items()
        ))  # fmt: skip
        records = [
            ImageRecord(name, hashlib.sha256(data).hexdigest(), *size)
            for (name, data), size in zip(pictures.items(), sizes, strict=True)
        ]
        for i, record in enumerate(records):
            mine = [f for f in faces if f.image == i]
            if mine and not with_crops(mine):
                record.settle("skipped", KEPT, "align", mine[0].kept)
        decoded = [images.decode_rgb(data) for data in pictures.values()]
        crops = [
            warp_crop(decoded[f.image], np.array(f.affine).reshape(2, 3), SIDE) for f in with_crops(faces)
        ]
        restored = [
            crop if f.treatment == "left" else np.clip(crop.astype(int) + 40, 0, 255).astype(np.uint8)
            for crop, f in zip(crops, with_crops(faces), strict=True)
        ]
        publish = Publish(
            str(place / "out"), CropFrame(SIDE), "image", False, None, images.MAX_PIXELS, False, SETTINGS,
            pastes_change=pastes_change, background=background,
        )  # fmt: skip
        row = {"unit": unit.name, "work": unit.to_json(), "images": dump_records(records), "sums": "{}"}
        row |= {"faces": dump_records(faces), "crops": pack(crops), "restored": pack(restored)}
        told = publish(row | {"estimated": pack(crops)})
        self.marker = json.loads(told["marker"])
        self.unit = unit

    def picture(self, name="a.png") -> bytes:
        return (self.place / "out/images" / name).read_bytes()

    def rows(self, kind) -> list[dict]:
        rows = pq.read_table(self.place / "out" / self.unit.records_path).to_pylist()
        return [r for r in rows if r["kind"] == kind]

    def strip(self) -> list:
        return read_strip(store.read_bytes(str(self.place / "out" / self.unit.sample_path)))


@pytest.mark.parametrize("pastes_change", [True, False])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_whose_faces_are_all_left_is_delivered_as_it_came(tmp_path, pastes_change, kind):
    """No file of its is written anew, not even with the same pixels."""
    data = encoded(portrait(160, 176), kind, optimize=True) + b"something behind the picture"
    done = Delivered(tmp_path, {"a.png": data}, [face(LEFT), face(LEFT, PLACES[1], number=1)], pastes_change)
    assert done.picture() == data
    [image] = done.rows("image")
    assert (image["outcome"], image["reason"], image["stage"]) == ("skipped", "nothing to gain", "restore")
    assert image["error"] == "the face has nothing to gain"
    assert done.marker["outcomes"] == {"restored": 0, "no_face": 0, "skipped": 1, "failed": 0}
    assert done.marker["reasons"]["skipped"] == {"restore: nothing to gain": 1}


def around(place, reach=6):
    x, y = place
    return slice(y - reach, y + reach), slice(x - reach, x + reach)


@pytest.mark.parametrize("pastes_change", [True, False])
@pytest.mark.parametrize("unrestored", [LEFT, UNSEEN])
def test_of_faces_of_which_some_are_left_the_others_are_restored(tmp_path, pastes_change, unrestored):
    faces = [
        face(what, place, number=i)
        for i, (what, place) in enumerate(zip((WALKED, unrestored, ESTIMATED, LEFT), PLACES, strict=True))
    ]
    done = Delivered(tmp_path, {"a.png": PICTURE}, faces, pastes_change)
    before, after = pixels(PICTURE).astype(int), pixels(done.picture()).astype(int)
    for place, what in zip(PLACES, (WALKED, unrestored, ESTIMATED, LEFT), strict=True):
        changed = (after - before)[around(place)]
        if what in (WALKED, ESTIMATED):
            # brighter where it could be
            assert 30 < changed[before[around(place)] < 200].mean() <= 41
        else:
            assert not changed.any()
    assert done.rows("image")[0]["outcome"] == "restored"


def test_a_left_face_in_front_of_a_restored_one_stays_as_it_was(tmp_path):
    """The larger face is pasted first, and the smaller is not touched by its change."""
    faces = [face(WALKED, (60, 60), 3.0), face(LEFT, (70, 64), number=1)]
    done = Delivered(tmp_path, {"a.png": PICTURE}, faces)
    before, after = pixels(PICTURE).astype(int), pixels(done.picture()).astype(int)
    assert not (after - before)[around((70, 64), 10)].any()
    assert (after - before)[around((45, 64))].mean() > 20


def test_a_failed_face_fails_its_picture_whatever_becomes_of_the_others(tmp_path):
    done = Delivered(
        tmp_path, {"a.png": PICTURE}, [face(LEFT), face(FAILED, PLACES[1], number=1), face(WALKED, PLACES[2])]
    )
    assert done.picture() == PICTURE
    assert done.marker["reasons"]["failed"] == {"restore: face failed": 1}
    assert (done.marker["faces"], done.marker["sums"]["crops"]) == (3, 3)


class Paint:
    """In place of a network: everything red."""

    upscale = 1

    def __call__(self, picture):
        return np.full_like(picture, (200, 10, 20))


@pytest.mark.parametrize("what", [LEFT, UNSEEN])
@pytest.mark.parametrize("pastes_change", [True, False])
def test_around_a_face_that_is_left_the_background_is_enhanced_all_the_same(tmp_path, what, pastes_change):
    done = Delivered(tmp_path, {"a.png": PICTURE}, [face(what, (60, 60), 2.0)], pastes_change, Paint())
    before, after = pixels(PICTURE), pixels(done.picture())
    assert np.array_equal(after[around((60, 60), 20)], before[around((60, 60), 20)])
    assert (after[:20, :] == (200, 10, 20)).all()
    assert done.marker["outcomes"]["skipped"] == 1


def mixed(tmp_path) -> Delivered:
    """A picture with every decision, one whose only face is left, and one whose face nothing looked at."""
    faces = [
        face(what, place, number=i)
        for i, (what, place) in enumerate(zip((WALKED, LEFT, ESTIMATED, UNSEEN), PLACES, strict=True))
    ]
    faces += [face(LEFT, image=1), face(UNSEEN, image=2), face(FAILED, image=3)]
    return Delivered(tmp_path, {f"{n}.png": PICTURE for n in "abcd"}, faces)


def test_a_marker_counts_faces_by_what_was_decided_of_them(tmp_path):
    done = mixed(tmp_path)
    sums = done.marker["sums"]
    assert done.marker["faces"] == 7
    assert (sums["faces_left"], sums["faces_estimator"], sums["faces_chain"]) == (4, 1, 1)
    assert sums["crops"] == 5 and "faces_kept" not in sums
    assert done.marker["outcomes"] == {"restored": 1, "no_face": 0, "skipped": 2, "failed": 1}
    metrics = Marker.from_json(json.dumps(done.marker).encode()).metrics
    assert metrics.decisions == {"left": 4, "estimator": 1, "chain": 1} and metrics.counts.faces == 7


def test_a_failed_face_counts_as_none_of_them_whatever_was_decided():
    assert decided([face(WALKED | FAILED), face(ESTIMATED), face(UNSEEN)]) == {
        "faces_left": 1, "faces_estimator": 1, "faces_chain": 0, "crops": 2
    }  # fmt: skip


def test_records_tell_of_every_face_what_was_decided_and_how_it_was_restored(tmp_path):
    columns = ("member", "treatment", "estimated_change", "start_step", "calls", "hold", "kept")
    rows = [tuple(r[c] for c in columns) for r in mixed(tmp_path).rows("face")]
    left, unseen = LEFT["kept"], UNSEEN["kept"]
    assert rows == [
        ("a.png", "chain", 3.5, 152, 3, 1.5, ""),
        ("a.png", "left", 0.25, None, None, None, left),
        ("a.png", "estimator", 0.8, None, None, None, ""),
        ("a.png", "left", None, None, None, None, unseen),
        ("b.png", "left", 0.25, None, None, None, left),
        ("c.png", "left", None, None, None, None, unseen),
        ("d.png", "", None, None, None, None, ""),
    ]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (LEFT, "damage 0.2: left as it was"),
        (UNSEEN, "left as it was"),
        (ESTIMATED, "damage 0.8: the estimator alone"),
        (WALKED, "damage 3.5: diffusion from step 152, 3 calls, held below 1.5 px"),
        (WALKED | {"hold": 0.0, "calls": 1}, "damage 3.5: diffusion from step 152, 1 calls"),
        (
            WALKED | {"samples": 4, "spread": 2.345, "invented": False},
            "damage 3.5: diffusion from step 152, 3 calls, held below 1.5 px, one of 4, which differ by 2.3",
        ),
        (
            WALKED | {"hold": 0.0, "samples": 2, "spread": 5.0, "invented": True},
            "damage 3.5: diffusion from step 152, 3 calls, one of 2, which differ by 5.0: invented here",
        ),
        (FAILED, "failed: NonFiniteFace: no numbers"),
        ({}, "not treated"),
    ],
)
def test_what_was_decided_is_told_in_a_line(what, sentence):
    assert decision(face(what)) == sentence


def test_a_strip_shows_faces_as_they_came_and_as_they_were_delivered(tmp_path):
    """Of the faces that an engine looked at."""
    strip = mixed(tmp_path).strip()
    assert [told.rsplit("\n", 1)[-1] for _, told in strip] == [
        decision(face(what)) for what in (WALKED, LEFT, ESTIMATED, LEFT, FAILED)
    ]
    changes = []
    for tiles, _ in strip:
        before, after = np.split(tiles.astype(int), 2, axis=1)
        assert len(before) == 128 and before.std() > 10
        changes.append((after - before)[32:96, 32:96].mean())
    assert changes[0] > 20 and changes[2] > 20
    # a JPEG's own differences
    assert max(abs(changes[i]) for i in (1, 3, 4)) < 1


def test_a_unit_of_many_faces_shows_twelve_chosen_by_what_they_show():
    crops = [np.full((SIDE, SIDE, 3), i, np.uint8) for i in range(40)]
    chosen = choose_samples(crops)
    assert len(chosen) == STRIP_FACES == 12 and chosen == sorted(chosen)
    # the same faces whatever their order
    assert {crops[i][0, 0, 0] for i in chosen} == {39 - i for i in choose_samples(crops[::-1])}
    assert choose_samples(crops[:3]) == [0, 1, 2] and choose_samples([]) == []


@pytest.mark.parametrize(("scale", "tile"), [(0.5, 128), (1.0, 128), (5.0, 192), (9.0, 256)])
def test_a_sample_shows_a_little_more_than_the_crop_at_about_the_pictures_scale(scale, tile):
    """A square of the picture, as wide as the crop, keeps a margin in the tile."""
    picture = np.full((400, 400, 3), 60, np.uint8)
    reach = round(SIDE * scale / 2)
    picture[200 - reach : 200 + reach, 200 - reach : 200 + reach] = 220
    sample = cut_sample(picture, picture // 2, face(WALKED, (199.5, 199.5), scale), CropFrame(SIDE))
    assert sample.before.shape == sample.delivered.shape == (tile, tile, 3)
    bright = (sample.before > 140).all(axis=2)
    assert np.sqrt(bright.mean()) == pytest.approx(1 / 1.2, abs=0.05)
    assert np.abs(sample.delivered.astype(int) * 2 - sample.before).max() <= 2


def test_a_sample_of_an_enlarged_picture_shows_the_same_place():
    picture = np.array(portrait(160, 176))
    large = images.enlarged(images.decode(PICTURE), 2).rgb
    sample = cut_sample(picture, large, face(WALKED, (80, 80), 2.0), CropFrame(SIDE))
    assert np.abs(sample.before.astype(int) - sample.delivered).mean() < 2


def test_a_sample_of_a_face_that_was_enlarged_by_itself_shows_it_whole():
    small, whole = np.full((20, 30, 3), 9, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    assert (cut_sample(small, whole, face(WALKED), CropFrame(SIDE)).delivered == 200).all()


def test_a_sample_names_its_picture():
    picture = np.array(portrait(160, 176))
    assert cut_sample(picture, picture, face(LEFT), CropFrame(SIDE), "a.png").decision == (
        "a.png\ndamage 0.2: left as it was"
    )
    assert cut_sample(picture, picture, face(LEFT), CropFrame(SIDE)).decision == "damage 0.2: left as it was"


def test_a_picture_that_can_not_be_decoded_again_is_no_sample(tmp_path):
    """It changed while its faces were restored."""
    whole = face(WALKED)
    done = Delivered(tmp_path, {"a.png": PICTURE}, [whole])
    (tmp_path / "in/a.png").write_bytes(b"no picture".ljust(len(PICTURE)))
    unit = replace(done.unit, attempts=2)
    row = {"unit": unit.name, "work": unit.to_json(), "sums": "{}", "faces": dump_records([whole])}
    row |= {"images": dump_records([ImageRecord("a.png", "0" * 64, 160, 176)])}
    crop = np.zeros((SIDE, SIDE, 3), np.uint8)
    row |= {name: pack([crop]) for name in ("crops", "estimated", "restored")}
    publish = Publish(
        str(tmp_path / "out"), CropFrame(SIDE), "image", False, None, images.MAX_PIXELS, False, SETTINGS
    )
    marker = json.loads(publish(row)["marker"])
    assert marker["reasons"]["failed"] == {"paste: changed": 1}
    assert unit.sample_path not in [o["path"] for o in marker["outputs"]]
    assert not (tmp_path / "out" / unit.sample_path).exists()


def test_a_long_error_is_shortened_where_a_comment_carries_it():
    face = FaceRecord(0, 0, [0.0] * 4, [0.0] * 10, [0.0] * 6, 0.9, 1.0, error="ü" * 100_000)
    assert decision(face) == "failed: " + "ü" * 200


def test_a_face_left_before_it_had_a_crop_has_no_part_in_means_over_crops():
    face = FaceRecord(0, 0, [0.0] * 4, [0.0] * 10, [0.0] * 6, 0.9, 1.0, sharpness_before=2000.0)
    leave(face, "sharp already")
    assert (face.kept, face.has_crop, face.treatment) == ("sharp already", False, "left")
    assert face.sharpness_before == 0.0
