"""A picture beside its faces: its record says why it could not stay as it was, and pasting takes little memory."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait
from PIL import Image

from pipeline.faces.geometry import CropFrame
from pipeline.io import images
from pipeline.io.units import Address, Unit
from pipeline.records.rows import FaceRecord, ImageRecord, dump_records, pack
from pipeline.stages.publish import Publish

SIDE = 32
WIDTH, HEIGHT = 100, 110
PICTURE = portrait(WIDTH, HEIGHT)


def delivered(tmp_path, data):
    """What is delivered of a unit of one JPEG with a face, and its row of the records."""
    (tmp_path / "a.jpg").write_bytes(data)
    unit = Unit("s", "folder", 0, True, (Address("a.jpg", str(tmp_path / "a.jpg"), 0, len(data)),))
    record = ImageRecord("a.jpg", hashlib.sha256(data).hexdigest(), WIDTH, HEIGHT)
    face = FaceRecord(0, 0, [0, 0, 1, 1], [0.0] * 10, [1.0, 0.0, -30.0, 0.0, 1.0, -30.0], 1.0, 1.0)
    crop = np.zeros((SIDE, SIDE, 3), np.uint8)
    publish = Publish(
        str(tmp_path / "out"), CropFrame(SIDE), "image", False, None, images.MAX_PIXELS, False,
        {"eta": 0.5, "seed": 0, "model_sha256": "a"},
    )  # fmt: skip
    row = {"unit": unit.name, "work": unit.to_json(), "sums": "{}", "restored": pack([crop + 128])}
    row |= {"crops": pack([crop]), "estimated": pack([crop]), "images": dump_records([record])}
    assert json.loads(publish(row | {"faces": dump_records([face])})["marker"])["images"] == 1
    table = pq.read_table(tmp_path / "out" / unit.records_path)
    return (tmp_path / "out/images/a.jpg").read_bytes(), table.to_pylist()


def other_tables_behind_its_scan():
    tables = b"\xff\xdb\0\x43\0" + b"\x11" * 64
    return encoded(PICTURE, "JPEG").removesuffix(b"\xff\xd9") + tables + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(PICTURE, "JPEG"), None),
        (other_tables_behind_its_scan(), "its quantisation steps can not be written again"),
        (encoded(PICTURE.convert("CMYK"), "JPEG"), None),
    ],
)
def test_the_record_says_why_pixels_outside_of_the_faces_changed(tmp_path, data, reason):
    done, (image, face) = delivered(tmp_path, data)
    assert (image["outcome"], image["recoded"]) == ("restored", reason) and face["recoded"] is None
    before, after = images.decode_rgb(data)[80:], images.decode_rgb(done)[80:]
    assert (before == after).all() == (reason is None)


def test_a_temporary_folder_that_is_missing_leaves_a_failed_picture_and_its_very_bytes(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    data = encoded(PICTURE, "JPEG")
    done, (image, _) = delivered(tmp_path, data)
    assert done == data and image["recoded"] is None
    assert (image["outcome"], image["stage"], image["reason"]) == ("failed", "paste", "FileNotFoundError")


MEMORY = """
import ctypes
import io
import cv2
import numpy as np
import tifffile
from PIL import Image
from pipeline.faces import canvas
from pipeline.records.rows import FaceRecord
from pipeline.stages.paste import paste_faces

def picture(kind, side):
    rgb = np.repeat(np.add.outer(np.arange(side), np.arange(side))[..., None] % 251, 3, axis=2).astype(np.uint8)
    if kind == "TIFF":
        buffer = io.BytesIO()
        # noise, which no compression makes smaller
        noisy = rgb.astype(np.uint16) * 200 + np.random.default_rng(0).integers(0, 9999, rgb.shape, np.uint16)
        tifffile.imwrite(buffer, noisy, photometric="rgb", compression="zlib", rowsperstrip=16)
        return buffer.getvalue()
    if kind == "PNG":
        return cv2.imencode(".png", rgb.astype(np.uint16) * 257, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, subsampling=0)
    return buffer.getvalue()

def paste(data, scale=0.5, shift=-8.0):
    crop = np.zeros((32, 32, 3), np.uint8)
    face = FaceRecord(0, 0, [0, 0, 1, 1], [0.0] * 10, [scale, 0.0, shift, 0.0, scale, shift], 1.0, 1 / scale)
    assert paste_faces(data, [(face, crop, crop + 99)], None, False, 1 << 40).recoded is None

def status(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))

canvas.MOST_HELD = 1 << 18
for kind, place in (("JPEG", ()), ("PNG", ()), ("TIFF", ()), ("TIFF", (32 / 2048, 0.0))):
    paste(picture(kind, 128))
    data = picture(kind, 2048)
    # neither the peak of making the picture nor what the allocator kept of it may hide the peak of pasting
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    paste(data, *place)
    print((status("VmHWM") - before) / 2048**2)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks can not be measured here")
def test_a_picture_takes_few_bytes_a_pixel_beside_its_file():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    jpeg, deep, tiff, filled = map(float, done.stdout.split())
    # the lower bounds are the decoded picture itself: what is measured is no smaller
    assert 3 < jpeg < 32 and 6 < deep < 40
    # its RGB, and the new file of up to 6 bytes a pixel; a face that fills it adds windows of a few rows only
    assert 3 < tiff < 14 and 3 < filled < 18, (tiff, filled)


def test_a_grey_jpeg_keeps_its_other_pixels(tmp_path):
    _, (image, _) = delivered(tmp_path, encoded(Image.new("L", (WIDTH, HEIGHT), 99), "JPEG"))
    assert (image["outcome"], image["recoded"]) == ("restored", None)


def test_a_picture_that_can_not_be_written_back_is_skipped_with_the_reason_and_stays(tmp_path, monkeypatch):
    def refuse(*_):
        raise images.SkippedImage("unsupported AVIF", "it can not be written in another size")

    monkeypatch.setattr("pipeline.stages.publish.paste_faces", refuse)
    data = encoded(PICTURE, "JPEG")
    done, (image, _) = delivered(tmp_path, data)
    assert done == data and (image["outcome"], image["reason"]) == ("skipped", "unsupported AVIF")
    assert "another size" in image["error"]
