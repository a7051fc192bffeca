"""Aligned crops of 512 px from crops and photographs, others' restorations of them, and their measurements."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pipeline.console.options import UsageError
from pipeline.datasets.degradation import degrade, grid_degradation
from pipeline.datasets.faces import PHOTOGRAPHS, SampleError, find_faces
from pipeline.evaluation.benchmark import PAPER, damaged_crop, place_benchmark, write_benchmark
from pipeline.evaluation.crops import (
    SIDE,
    RestoredFaces,
    cut_faces,
    left_out_words,
    place_real,
    write_real,
)
from pipeline.evaluation.rows import BLOCK, Measurements, Pictures, column, vectors
from pipeline.evaluation.testset import Recipe, make_pictures
from pipeline.faces.detect import CenterFace

# one face left of the middle
PORTRAIT = np.ascontiguousarray(data.astronaut()[:260, 90:400])
ALIGNED = np.ascontiguousarray(data.astronaut())
CAT = np.ascontiguousarray(data.chelsea()[:, :300])


def encoded(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def enlarged(picture, times):
    height, width = picture.shape[:2]
    return np.asarray(
        Image.fromarray(picture).resize((width * times, height * times), Image.Resampling.BICUBIC)
    )


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def faces_of(uri):
    return find_faces(str(uri), PHOTOGRAPHS).faces


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A set of a photograph, an aligned crop, a cat and a broken file, and where it lies."""
    base = tmp_path_factory.mktemp("real")
    members = {
        "LFW-Test/one.png": encoded(PORTRAIT),
        "LFW-Test/two.png": encoded(ALIGNED),
        "LFW-Test/cat.png": encoded(CAT),
        "LFW-Test/broken.jpg": b"no picture",
    }
    write_tar(base / "faces.tar", members)
    faces = faces_of(base / "faces.tar")
    found = place_real(faces, str(base / "sets"))
    return base, found, write_real(found, faces)


def test_a_photograph_gives_a_crop_of_its_face_and_a_crop_is_one_already(real):
    base, found, left_out = real
    assert found.names == ["000000-0", "000001-0"]
    assert [s.removeprefix(str(base)) for s in found.sources] == [
        "/faces/LFW-Test/one",
        "/faces/LFW-Test/two",
    ]
    assert np.array_equal(found.read(found.degraded, "000001-0"), ALIGNED)
    (cut,) = cut_faces(encoded(PORTRAIT), CenterFace())
    assert cut.crop.shape == (SIDE, SIDE, 3)
    assert np.array_equal(found.read(found.degraded, "000000-0"), cut.crop)
    assert found.contents == "2 faces (1 aligned crops, 1 cut out of photographs)"
    assert left_out_words(left_out) == "1 without a face, 1 unreadable"


def test_a_set_is_the_same_for_the_same_files_only(real, tmp_path):
    base, found, _ = real
    faces = faces_of(base / "faces.tar")
    assert place_real(faces, str(base / "sets")) == found != place_real(faces[:1], str(base / "sets"))


def test_pictures_without_a_face_are_refused(tmp_path):
    Image.fromarray(CAT).save(tmp_path / "cat.png")
    faces = faces_of(tmp_path)
    with pytest.raises(SampleError, match="expected pictures with faces; of 1 are 1 without a face"):
        write_real(place_real(faces, str(tmp_path / "sets")), faces)


def test_restorations_are_found_by_name_and_cut_where_the_input_was_at_any_size(real, tmp_path):
    _, found, _ = real
    (tmp_path / "LFW-Test").mkdir()
    Image.fromarray(enlarged(PORTRAIT, 2)).save(tmp_path / "LFW-Test" / "one.jpg", quality=98)
    Image.fromarray(enlarged(ALIGNED, 2)).save(tmp_path / "LFW-Test" / "two.png")
    others = RestoredFaces("theirs", faces_of(tmp_path), found)
    for number, name in enumerate(found.names):
        ours, theirs = found.read(found.degraded, name), others.read(number)
        assert theirs.shape == (SIDE, SIDE, 3)
        assert np.abs(ours.astype(int) - theirs).mean() < 3


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["one.png"], "expected one picture for every input, no picture for"),
        (["a/one.png", "b/one.png", "two.png"], "2 pictures for"),
    ],
)
def test_restorations_that_are_missing_or_ambiguous_are_refused(real, tmp_path, names, wanted):
    _, found, _ = real
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(CAT).save(tmp_path / name)
    with pytest.raises(UsageError, match=wanted):
        RestoredFaces("theirs", faces_of(tmp_path), found)


def test_one_restoration_is_not_taken_for_two_inputs(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.fromarray(ALIGNED).save(tmp_path / "in" / folder / "one.png")
    (tmp_path / "out").mkdir()
    Image.fromarray(ALIGNED).save(tmp_path / "out" / "one.png")
    faces = faces_of(tmp_path / "in")
    found = place_real(faces, str(tmp_path / "sets"))
    write_real(found, faces)
    with pytest.raises(UsageError, match="a picture fits several inputs"):
        RestoredFaces("theirs", faces_of(tmp_path / "out"), found)


def test_a_restoration_of_another_shape_is_refused(real, tmp_path):
    _, found, _ = real
    Image.fromarray(PORTRAIT[:200]).save(tmp_path / "one.png")
    Image.fromarray(ALIGNED).save(tmp_path / "two.png")
    with pytest.raises(
        SampleError, match="expected the shape of the input, 310x260 or a multiple of it, got 310x200"
    ):
        RestoredFaces("theirs", faces_of(tmp_path), found).read(0)


def test_the_benchmark_damages_the_crop_as_both_grids_do(tmp_path):
    Image.fromarray(ALIGNED).save(tmp_path / "face.png")
    faces = faces_of(tmp_path)
    found = place_benchmark(faces, 3, ("clean", "heavy"), str(tmp_path / "sets"))
    assert left_out_words(write_benchmark(found, faces)) == ""
    assert found.names == ["000000-paper", "000000-clean", "000000-heavy"]
    paper, clean, heavy = (found.read(found.degraded, name) for name in found.names)
    expected, _ = make_pictures(ALIGNED, 0, Recipe("restore", SIDE, 3))
    assert np.array_equal(paper, expected["degraded"])
    assert np.array_equal(
        paper, degrade(ALIGNED, grid_degradation(0, 3), np.random.default_rng([3, 4, 0]))[0]
    )
    assert np.array_equal(clean, ALIGNED) and np.array_equal(found.true(2), ALIGNED)
    assert np.array_equal(heavy, damaged_crop(ALIGNED, 3, 0, "heavy")[0]) and not np.array_equal(heavy, clean)
    assert found.rows_of[PAPER].tolist() == [True, False, False]
    assert found.contents == "1 faces of 512 px at 3 levels"


def test_the_benchmark_leaves_out_faces_that_would_have_to_be_enlarged(tmp_path):
    Image.fromarray(PORTRAIT).save(tmp_path / "small.png")
    Image.fromarray(ALIGNED).save(tmp_path / "crop.png")
    faces = faces_of(tmp_path)
    found = place_benchmark(faces, 0, ("clean",), str(tmp_path / "sets"))
    assert left_out_words(write_benchmark(found, faces)) == "1 with a face too small"


def test_measurements_are_kept_in_blocks_and_a_stopped_one_resumes(real, tmp_path, monkeypatch):
    _, found, _ = real
    count = 2 * BLOCK + 1
    monkeypatch.setattr(type(found), "names", [str(n) for n in range(count)])
    seen = []

    def measure(number, picture):
        if number == stop:
            raise KeyboardInterrupt
        seen.append(number)
        return {"value": float(picture[0, 0, 0]), "vector": [1.0, number]} if number else {"value": 5.0}

    pictures = Pictures("row", "v1", lambda n: np.full((1, 1, 3), n % 256, np.uint8), {})
    measurements = Measurements(found, str(tmp_path), ["value"], measure)
    stop = BLOCK + 3
    with pytest.raises(KeyboardInterrupt):
        measurements.of(pictures)
    stop = None
    table = measurements.of(pictures)
    assert seen == [*range(BLOCK), *range(BLOCK, BLOCK + 3), *range(BLOCK, count)]
    assert column(table, "value").tolist() == [5.0, *range(1, count)]
    found_vectors = vectors(table, "vector")
    assert np.isnan(found_vectors[0]).all() and found_vectors[7].tolist() == [1, 7]
    before = len(seen)
    measurements.of(pictures)
    assert len(seen) == before
    measurements.of(Pictures("row", "v2", pictures.read, {}))
    assert len(seen) == before + count
