"""A caught error is recorded in the same words by every run, and reveals nothing of the machine or its secrets."""

import hashlib
import tarfile

import numpy as np
import pytest

from pipeline.faces.geometry import CropFrame
from pipeline.io import images
from pipeline.io.errors import MOST_CHAINED, MOST_FRAMES, message, outline
from pipeline.io.units import Address, Unit
from pipeline.records.rows import FaceRecord, ImageRecord
from pipeline.stages.publish import Publish


def caught(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def fail(text):
    raise ValueError(text)


def nest(depth):
    if not depth:
        raise KeyError("bottom")
    try:
        nest(depth - 1)
    except KeyError as error:
        raise KeyError(depth) from error


def sink(depth):
    return sink(depth - 1) if depth else fail("deep")


def test_files_are_named_below_their_package():
    lines = outline(caught(images.decode, b"no picture")).splitlines()
    assert lines[0].startswith("test_errors.py:") or lines[0].startswith("tests/io/test_errors.py:")
    assert lines[1].startswith("pipeline/io/decoding.py:") and lines[1].endswith(" in decode")
    assert lines[4] == "ImageError: the bytes are of no picture format that is known here"
    assert lines[5] == "caused by" and any(line.startswith("PIL/Image.py:") for line in lines)


def test_the_standard_library_is_named_without_its_folder():
    text = outline(caught(tarfile.open, "nowhere.tar"))
    assert "\ntarfile.py:" in text and "in TarFile.open" in text and "/" not in text.replace("tests/io/", "")


def test_two_errors_of_the_same_kind_are_described_in_the_same_words():
    first, second = (
        caught(fail, f"cannot identify <_io.BytesIO object at {place}>")
        for place in ("0x7f1a61108b30", "0xbeef")
    )
    assert message(first) == message(second) == "cannot identify <_io.BytesIO object at 0x…>"
    assert outline(first) == outline(second)


def test_credentials_are_not_shown():
    error = caught(fail, "GET https://me:hidden@host/a?X-Amz-Signature=hidden&b=1 failed")
    for text in (message(error), outline(error)):
        assert "hidden" not in text and "https://***@host/a?X-Amz-Signature=***&b=1 failed" in text


def test_a_message_is_one_line_and_may_be_empty():
    assert message(ValueError("first\nsecond")) == "first second"
    assert outline(ValueError()) == "ValueError"


def test_a_suppressed_cause_stays_suppressed():
    def hide():
        try:
            fail("the signed request")
        except ValueError:
            raise KeyError("refused") from None

    assert "signed request" not in outline(caught(hide))


@pytest.mark.parametrize("depth", [20, 200])
def test_long_chains_and_deep_stacks_are_cut(depth):
    chained = outline(caught(nest, depth))
    assert chained.count("\ncaused by\n") == MOST_CHAINED - 1
    lines = outline(caught(sink, depth)).splitlines()
    assert len(lines) == MOST_FRAMES + 1 and lines[-1] == "ValueError: deep"


def test_a_failed_face_gives_its_picture_error_and_traceback(tmp_path):
    (tmp_path / "a.png").write_bytes(b"bytes")
    unit = Unit("s", "folder", 0, True, (Address("a.png", str(tmp_path / "a.png"), 0, 5),))
    image = ImageRecord("a.png")
    face = FaceRecord(0, 0, [], [], [], 1.0, 1.0, error="ValueError: bad", traceback="engine.py:1 in step")
    crops = np.zeros((1, 4, 4, 3), np.uint8)
    publish = Publish("out", CropFrame(4), "image", False, None, 100, False, {})
    assert [one.data for one in publish.pasted(unit, [image], [face], crops, crops)] == [b"bytes"]
    assert (image.outcome, image.stage, image.reason) == ("failed", "restore", "face failed")
    assert (image.error, image.traceback) == (face.error, face.traceback)


def test_a_picture_that_can_not_be_pasted_says_where_that_was(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    unit = Unit("s", "folder", 0, True, (Address("a.png", str(tmp_path / "a.png"), 0, 10),))
    image = ImageRecord("a.png", sha256=hashlib.sha256(b"no picture").hexdigest())
    crops = np.zeros((0, 4, 4, 3), np.uint8)
    publish = Publish("out", CropFrame(4), "image", False, None, 100, False, {})
    list(publish.pasted(unit, [image], [], crops, crops))
    assert (image.outcome, image.stage, image.reason) == ("failed", "paste", "ImageError")
    assert image.error == "a.png: the bytes are of no picture format that is known here"
    assert "pipeline/stages/paste.py:" in image.traceback and str(tmp_path) not in image.traceback
