"""Blocks of a JPEG without an edited pixel keep their coefficients; where they can not, the reason is given."""

import io
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image
from skimage import data as pictures

from pipeline.io.images import decode
from pipeline.io.jpeg import keep_untouched_blocks
from pipeline.io.save_options import divisor_table

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
EDITED = COLOUR.copy()
EDITED[48:64, 48:64] = 128
TOUCHED = (EDITED != COLOUR).any(axis=2)
# where no block of luma or chroma holds an edited pixel, or takes part in one
FAR = np.ones(TOUCHED.shape, bool)
FAR[28:84, 28:84] = False


def jpeg(pixels=COLOUR, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 80} | options)
    return buffer.getvalue()


def fine(original):
    """Tables in which the original's coefficients stay whole numbers."""
    with Image.open(io.BytesIO(original)) as image:
        return {n: divisor_table(list(t), [2] * 64) for n, t in image.quantization.items()}


@pytest.fixture(scope="module")
def pair():
    """A JPEG, and the same with a square edited and coded again."""
    original = jpeg(comment=b"hello")
    return original, jpeg(EDITED, qtables=fine(original))


def kept(original, merged):
    before, after = decode(original).rgb, decode(merged).rgb
    return (before[FAR] == after[FAR]).all() and np.abs(after[52:60, 52:60].astype(int) - 128).max() <= 8


def test_untouched_blocks_keep_their_coefficients_and_nothing_is_to_be_said_of_it(pair):
    merged, reason = keep_untouched_blocks(*pair, TOUCHED)
    assert reason is None and kept(pair[0], merged) and b"hello" in merged
    assert not kept(*pair)  # so that this test could fail


def test_no_temporary_folder_is_needed(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    merged, reason = keep_untouched_blocks(*pair, TOUCHED)
    assert reason is None and kept(pair[0], merged)


def test_where_files_can_not_lie_in_memory_temporary_ones_serve_and_none_is_left(pair, tmp_path, monkeypatch):
    in_memory = keep_untouched_blocks(*pair, TOUCHED)
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert keep_untouched_blocks(*pair, TOUCHED) == in_memory
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_that_is_missing_is_an_error_and_no_reason_to_code_a_picture_again(
    pair, tmp_path, monkeypatch
):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        keep_untouched_blocks(*pair, TOUCHED)


REFUSED = """
import errno, os, resource, sys
import numpy as np
from pathlib import Path
from pipeline.io.jpeg import keep_untouched_blocks

limit, values = sys.argv[1], [int(v) for v in sys.argv[2:5]]
original, edited = (Path(p).read_bytes() for p in sys.argv[5:7])
touched = np.zeros((120, 160), bool)
touched[48:64, 48:64] = True
merged = keep_untouched_blocks(original, edited, touched)  # what is loaded once is loaded now
assert merged[1] is None
kind = getattr(resource, limit)
for value in range(*values):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        done = keep_untouched_blocks(original, edited, touched)
        said = "merged" if done == merged else f"coded again: {done[1]}"
    except OSError as error:
        said = errno.errorcode[error.errno]
    finally:
        resource.setrlimit(kind, before)
    print(said)
"""


def under_limits(pair, tmp_path, limit, *values):
    """What comes of a merge under each value of a limit of the system, in a process of its own."""
    files = [tmp_path / "original.jpg", tmp_path / "edited.jpg"]
    for file, data in zip(files, pair, strict=True):
        file.write_bytes(data)
    command = [sys.executable, "-c", REFUSED, limit, *map(str, values), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_without_file_descriptors_left_a_picture_is_an_error_and_not_coded_again(pair, tmp_path):
    said = under_limits(pair, tmp_path, "RLIMIT_NOFILE", 3, 40, 1)
    assert set(said) == {"EMFILE", "merged"} and said == sorted(said)
    # refused at each place that opens a file
    assert said.count("EMFILE") >= 4


def test_a_file_that_can_not_be_written_whole_is_an_error_and_the_picture_not_coded_again(pair, tmp_path):
    size = max(map(len, pair))
    said = under_limits(pair, tmp_path, "RLIMIT_FSIZE", 0, 2 * size, size // 8)
    assert set(said) == {"EFBIG", "merged"} and said == sorted(said)


STRAY = jpeg()[:2] + b"\xff\xfe\0\4ok" + b"stray" + jpeg()[2:]
UNSEPARABLE = jpeg()[:2] + b"\xff\xfe\0\1" + jpeg()[2:]
NO_FRAME = b"\xff\xd8" + jpeg()[jpeg().index(b"\xff\xda") :]


@pytest.mark.parametrize(
    ("original", "edited", "reason"),
    [
        (jpeg(keep_rgb=True), jpeg(EDITED), "colour space"),
        (jpeg(subsampling=0), jpeg(EDITED, subsampling=2), "chroma sampling"),
        (jpeg(quality=80), jpeg(EDITED, quality=75), "quantisation steps"),
        (UNSEPARABLE, jpeg(EDITED), "segments can not be separated"),
        (NO_FRAME, jpeg(EDITED), "the JPEG library"),
        (jpeg(), NO_FRAME, "the JPEG library"),
    ],
)
def test_why_blocks_were_coded_again_is_given(original, edited, reason):
    merged, said = keep_untouched_blocks(original, edited, TOUCHED)
    assert reason in said and "/" not in said
    scan = edited[edited.index(b"\xff\xda") :]
    assert merged.endswith(scan)


def test_stray_bytes_between_segments_are_passed_over():
    merged, said = keep_untouched_blocks(STRAY, jpeg(EDITED, qtables=fine(jpeg())), TOUCHED)
    assert said is None and merged[:8] == b"\xff\xd8\xff\xfe\0\4ok" and kept(STRAY, merged)


def test_a_complaint_of_the_library_leaves_no_file_open():
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert keep_untouched_blocks(NO_FRAME, jpeg(EDITED), TOUCHED)[1]
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_metadata_go_along_where_blocks_were_coded_again():
    merged, reason = keep_untouched_blocks(jpeg(comment=b"hello"), jpeg(EDITED, quality=75), TOUCHED)
    assert reason and b"hello" in merged


LITTLE_MEMORY = """
import io, resource
import numpy as np
from PIL import Image
from pipeline.io.jpeg import keep_untouched_blocks

buffer = io.BytesIO()
noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
Image.fromarray(noise).save(buffer, "JPEG", subsampling=0)
data, touched = buffer.getvalue(), np.eye(1200, dtype=bool)
merged = keep_untouched_blocks(data, data, touched)
assert merged[1] is None
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for more in (0, 8, 16, 24, 200):
    resource.setrlimit(resource.RLIMIT_AS, (used + (more << 20), -1))
    try:
        done = keep_untouched_blocks(data, data, touched)
        said = "merged" if done == merged else f"coded again: {done[1]}"
    except MemoryError:
        said = "MemoryError"
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    print(said)
"""


def test_without_memory_a_picture_is_an_error_and_not_coded_again():
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, check=False)
    said = done.stdout.split("\n")[:-1]
    assert done.returncode == 0 and len(said) == 5, done.stderr
    assert set(said) == {"MemoryError", "merged"} and said[-1] == "merged"
