"""The parts that a verification is made of, each by itself."""

import hashlib
import io
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, write_tar

from pipeline.io.delivered import Hashed, parquet_pictures, tar_pictures
from pipeline.io.prefetch import ahead
from pipeline.ledger import findings as module
from pipeline.ledger.delivered import wrong_picture
from pipeline.ledger.findings import Finding, Findings, redoable
from pipeline.verify.repeat import rms

PICTURE = encoded(portrait(30, 40), "PNG")
RECORD = {"outcome": "restored", "width": 30, "height": 40, "sha256": "", "reason": ""}


def unchanged(outcome: str, data: bytes, reason: str = "") -> dict:
    return RECORD | {"outcome": outcome, "reason": reason, "sha256": hashlib.sha256(data).hexdigest()}


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("record", "data", "part"),
    [
        (RECORD, PICTURE, ""),
        (RECORD, PICTURE[:200], "a picture was wanted, it does not open"),
        (RECORD | {"width": 31}, PICTURE, "a picture of 31x40 was wanted, one of 30x40 is there"),
        (unchanged("no_face", PICTURE), PICTURE, ""),
        (unchanged("no_face", b"other"), PICTURE, "recorded as no_face, so that the unchanged original"),
        (unchanged("no_face", b"text"), b"text", "it does not open"),
        (unchanged("failed", b"text"), b"text", ""),
        (unchanged("failed", b"text"), b"words", "recorded as failed"),
        (unchanged("skipped", b"an animation", "animated"), b"an animation", ""),
        (unchanged("skipped", b"text", "nothing to gain"), b"text", "it does not open"),
        # the original changed between the two times it was read: neither digest is known to be the right one
        (unchanged("failed", b"before", "changed"), b"after", ""),
        # never read: there is nothing to compare with
        (RECORD | {"outcome": "failed", "reason": "unreadable"}, b"", ""),
    ],
)
def test_a_delivered_picture_is_judged_by_its_record(record, data, part):
    found = wrong_picture(record, data, max_pixels=10_000)
    assert part in found if part else not found


def test_a_picture_above_the_runs_limit_does_not_open():
    assert "above the limit" in wrong_picture(RECORD, PICTURE, max_pixels=1000)


def test_a_stream_knows_size_and_digest_of_all_that_is_in_it():
    data = bytes(range(256)) * 20_000
    hashed = Hashed(io.BytesIO(data))
    assert hashed.read(10) == data[:10]
    assert hashed.drain() == (len(data), hashlib.sha256(data).hexdigest())


def test_a_tars_pictures_come_in_order_from_a_stream_that_can_not_go_back(tmp_path):
    members = [
        ("a.txt", b"x"),
        ("b.png", b"1"),
        ("b.JPG", b"22"),
        ("n" * 180 + ".tif", b"333"),
        ("c.cls", b""),
    ]
    path = write_tar(tmp_path / "s.tar", members)
    data = path.read_bytes()
    hashed = Hashed(io.BytesIO(data))
    assert list(tar_pictures(hashed)) == [members[i] for i in (1, 2, 3)]
    assert hashed.drain() == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("keep", [0, 100, 700])
def test_a_damaged_tar_raises_what_its_reader_expects(tmp_path, keep):
    data = write_tar(tmp_path / "s.tar", [("a.png", b"1" * 5000)]).read_bytes()
    with pytest.raises(tarfile.TarError):
        list(tar_pictures(Hashed(io.BytesIO(data[:keep]))))


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_shards_cells_come_by_number_and_an_empty_one_as_no_bytes(nested):
    cells = [b"1", None, b"3"] * 20
    kind = pa.struct([("bytes", pa.binary())]) if nested else pa.binary()
    column = pa.array([c and ({"bytes": c} if nested else c) for c in cells], kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"i": range(60), "picture": column}), buffer, row_group_size=7)
    found = list(parquet_pictures(buffer.getvalue(), "picture"))
    assert found == [(str(i), c or b"") for i, c in enumerate(cells)]


def test_the_distance_is_taken_where_restoring_changes_something_and_nowhere_else():
    original = np.zeros((10, 10, 3), np.uint8)
    there, again = original.copy(), original.copy()
    there[:2], again[:2] = 50, 53
    assert rms(again, there, original) == pytest.approx(3.0)
    again[2] = 9  # changed by one of the two only
    assert rms(again, there, original) == pytest.approx(((2 * 9 + 81) / 3) ** 0.5)
    assert rms(original, original, original) == 0.0
    with pytest.raises(ValueError, match="its size is 10x9, not 10x10"):
        rms(again, there[:9], original)


# ---------------------------------------------------------------------------------------------- bookkeeping


def test_findings_are_all_counted_and_the_first_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    found = Findings()
    for number in range(5):
        found.add(redoable("altered", f"images/{number}.png", "other bytes", f"done/{number // 2}.json"))
    found.add(Finding("unfinished", "_ledger/done", "unfinished"))
    assert (found.differences, found.unfinished, len(found.kept)) == (5, True, 3)
    assert list(found.markers) == ["done/0.json", "done/1.json"]
    assert found.kept[0].sentence == (
        "images/0.png: other bytes; delete done/0.json and run the same restore command again"
    )


def test_results_come_in_order_and_no_more_than_asked_are_under_way():
    begun, taken, most = [], [], 0
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number

    with ThreadPoolExecutor(4) as pool:
        for result in ahead(pool, (partial(work, n) for n in range(40)), 6):
            taken.append(result)
            most = max(most, len(begun) - len(taken))
    assert taken == list(range(40))
    assert 1 <= most <= 6


def test_what_was_not_begun_is_dropped_when_nobody_takes_results_any_more():
    begun = []
    with ThreadPoolExecutor(1) as pool:
        results = ahead(
            pool, (partial(lambda n: (begun.append(n), time.sleep(0.05)), n) for n in range(9)), 9
        )
        next(results)
        results.close()
    assert len(begun) <= 3
