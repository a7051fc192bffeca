"""Test sets: what lies in them, and that equal settings give the same set."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pipeline.datasets.faces import SampleError, find_shards, list_faces
from pipeline.evaluation.testset import Recipe, make_pictures, naive, place_set, write_set
from pipeline.io import images

FACE = np.ascontiguousarray(data.astronaut()[40:168, 150:278])


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Three faces of 64 px in a shard."""
    folder = tmp_path_factory.mktemp("aligned")
    with tarfile.open(folder / "test-000.tar", "w") as tar:
        for number in range(3):
            buffer = io.BytesIO()
            picture = data.astronaut()[number : 256 + number, 100:356]
            Image.fromarray(images.resize(np.ascontiguousarray(picture), 64)).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{number}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    return list_faces(find_shards(str(folder)))


def make(faces, around, **settings):
    found = place_set(faces, Recipe(**({"task": "restore", "side": 64, "seed": 0} | settings)), str(around))
    write_set(found, faces)
    return found


def test_a_set_has_every_face_degraded_and_clean_with_its_degradation(faces, tmp_path):
    found = make(faces, tmp_path)
    assert found.names == ["000000", "000001", "000002"]
    for name, face, error in zip(found.names, faces, found.sheet["error"].to_pylist(), strict=True):
        truth, low = found.read(found.truth, name), found.read(found.degraded, name)
        assert (truth == images.decode_rgb(face.read())).all() and low.shape == (64, 64, 3)
        assert error == pytest.approx(np.sqrt(np.square(low.astype(float) - truth).mean()))
    assert {"jpeg", "noise", "sigma_x", "sigma_y", "theta", "scale"} <= set(found.sheet.column_names)


def test_equal_settings_share_a_set_and_others_have_their_own(faces, tmp_path):
    found = make(faces, tmp_path)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert make(faces, tmp_path).uri == found.uri
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == written
    others = [make(faces, tmp_path, seed=1), make(faces[:2], tmp_path)]
    assert len({found.uri, *(o.uri for o in others)}) == 3


def test_a_set_that_was_cut_short_is_written_again(faces, tmp_path):
    found = make(faces, tmp_path)
    sheet = tmp_path / found.uri / "set.parquet"
    before = (tmp_path / found.uri / "degraded" / "000001.png").read_bytes()
    sheet.unlink()
    (tmp_path / found.uri / "degraded" / "000001.png").unlink()
    make(faces, tmp_path)
    assert sheet.exists() and (tmp_path / found.uri / "degraded" / "000001.png").read_bytes() == before


def test_the_faces_of_an_inpainting_take_turns_with_the_kinds_of_holes(faces, tmp_path):
    found = make(faces, tmp_path, task="inpaint", holes=("box", "half"))
    assert found.sheet["hole"].to_pylist() == ["box", "half", "box"]
    for name, share in zip(found.names, found.sheet["share"].to_pylist(), strict=True):
        hole = found.hole(name)
        assert hole.mean() == pytest.approx(share)
        low, truth = found.read(found.degraded, name), found.read(found.truth, name)
        assert not low[hole].any() and (low[~hole] == truth[~hole]).all()
        filled = naive(found, name)
        assert (filled[~hole] == truth[~hole]).all() and filled[hole].any()


@pytest.mark.parametrize(("task", "shape"), [("colourise", (128, 128, 3)), ("upscale", (32, 32, 3))])
def test_what_is_known_of_a_face_is_all_that_is_left_of_it(task, shape):
    pictures, _ = make_pictures(FACE, 0, Recipe(task, 128, 0, factor=4))
    low = pictures["degraded"]
    assert low.shape == shape and (pictures["truth"] == FACE).all()
    if task == "colourise":
        assert (low[..., 0] == low[..., 1]).all() and (low[..., 1] == low[..., 2]).all()
    else:
        blocks = FACE.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.abs(low - blocks).max() <= 0.51


def test_faces_of_another_side_are_refused(faces, tmp_path):
    with pytest.raises(SampleError, match="expected faces of 128x128, got 64x64"):
        make(faces, tmp_path, side=128)
