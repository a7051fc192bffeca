"""The archive that `make demo` restores."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.datasets.demo_archive import archive, write_archive
from pipeline.faces.detect import CenterFace

BROKEN = {"damaged/cut off.jpg", "damaged/letter.jpg", "damaged/empty.jpg"}
WITHOUT_FACE = {"animals/Chelsea.jpg", "still life/café.png"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return archive()


def upright(data: bytes) -> np.ndarray:
    """[H, W, 3] uint8 RGB of a file, read without the code under test."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    return np.asarray(picture.convert("RGB"))


def test_the_archive_is_the_same_every_time(files):
    assert archive() == files


def test_every_portrait_shows_one_face_that_the_default_preset_enlarges_a_little(files):
    """Its crop shows a face of about a hundred pixels at the picture's own scale."""
    detector = CenterFace()
    for name in files.keys() - BROKEN - WITHOUT_FACE - {"contact print.jpg"}:
        faces = detector(upright(files[name]))
        assert len(faces) == 1, name
        x0, _, x1, _ = faces[0].box
        assert 50 < x1 - x0 < 100, name


def test_the_contact_print_shows_six_faces_and_the_others_none(files):
    detector = CenterFace()
    assert len(detector(upright(files["contact print.jpg"]))) == 6
    assert [detector(upright(files[name])) for name in sorted(WITHOUT_FACE)] == [[], []]


def test_three_files_can_not_be_read_as_pictures(files):
    for name in BROKEN:
        with pytest.raises(OSError):
            upright(files[name])


def test_the_files_are_of_many_kinds(files):
    kinds = {name: Image.open(io.BytesIO(data)) for name, data in files.items() if name not in BROKEN}
    assert {picture.mode for picture in kinds.values()} == {"RGB", "RGBA", "L", "I;16"}
    assert kinds["phone/IMG 0042.jpg"].getexif()[0x0112] == 6
    assert any(not name.isascii() for name in files)
    assert any(" " in name for name in files)


def test_writing_it_leaves_other_files_alone(tmp_path, files):
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    written = write_archive(str(tmp_path))
    assert len(written) == len(files)
    assert other.read_text() == "mine"
    assert (tmp_path / "portraits" / "sépia 1984.jpg").read_bytes() == files["portraits/sépia 1984.jpg"]
