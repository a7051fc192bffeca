"""Sample strips, the contact sheet and the page of a run."""

import io
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from servers import S3Server

from pipeline.io import store
from pipeline.restoration.report import contact_sheet, write_report
from pipeline.stages.record import SCHEMA
from pipeline.stages.sample import Sample, read_strip, sample_strip, split_strip

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)
HOSTILE = '<script>alert("x")</script>'


def plain(side: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((side, side, 3), colour, np.uint8)


def face(side: int, decision: str = "the estimator alone") -> Sample:
    return Sample(plain(side, RED), plain(side, GREEN), decision)


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def strip(faces: int, side: int = 128) -> NDArray[np.uint8]:
    """The pixels of a strip, which no JPEG changed."""
    return np.tile(np.concatenate([plain(side, RED), plain(side, GREEN)], axis=1), (faces, 1, 1))


def shown(faces: int, side: int = 128) -> list[tuple[NDArray[np.uint8], str]]:
    """The faces of a strip, as the sheet takes them."""
    return [(tiles, "left as it was") for tiles in split_strip(strip(faces, side))]


def count_tiles(sheet: NDArray[np.uint8], colour: tuple[int, int, int], side: int) -> float:
    return float((np.abs(sheet.astype(int) - colour).max(axis=2) < 12).sum() / side**2)


def records(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in SCHEMA]
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer)
    return buffer.getvalue()


def image_row(member: str, outcome: str, **more: str) -> dict[str, Any]:
    return {"kind": "image", "face": -1, "member": member, "outcome": outcome} | more


def face_row(member: str) -> dict[str, Any]:
    measured = {
        "sharpness_before": 1.5,
        "sharpness_after": 4.0,
        "score": 0.98,
        "box": [10.0, 10.0, 74.0, 90.0],
    }
    return {"kind": "face", "face": 0, "member": member, "outcome": "restored"} | measured


class Page(HTMLParser):
    """The texts, the tags and the pictures' sources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def read_page(output: str) -> Page:
    return Page(store.read_bytes(store.join(output, "report", "index.html")).decode())


@pytest.mark.parametrize("side", [128, 200, 256])
def test_a_strip_has_a_row_of_two_tiles_for_each_face(side):
    picture = decoded(sample_strip([face(side)] * 2))
    assert picture.shape == (2 * side, 2 * side, 3)
    for row in split_strip(picture):
        for part, colour in zip(np.split(row, 2, axis=1), (RED, GREEN), strict=True):
            assert np.abs(part.astype(int) - colour).max() < 12, "colours do not run into the next tile"


def test_faces_of_different_size_share_a_strip_at_that_of_the_largest():
    assert decoded(sample_strip([face(128), face(200), face(150)])).shape == (600, 400, 3)


def test_a_strip_carries_what_was_decided_of_each_face():
    told = ["left as it was", "damage 2.5: the estimator alone", 'failed: "ü" — </script>']
    shown = read_strip(sample_strip([face(128, decision) for decision in told]))
    assert [decision for _, decision in shown] == told
    assert [tiles.shape for tiles, _ in shown] == [(128, 256, 3)] * 3
    assert np.abs(shown[2][0][:, 128:].astype(int) - GREEN).max() < 12


def test_a_strip_without_decisions_is_shown_without():
    """As other programs may have saved it."""
    buffer = io.BytesIO()
    Image.fromarray(strip(2)).save(buffer, "JPEG", quality=92)
    assert [decision for _, decision in read_strip(buffer.getvalue())] == ["", ""]


def test_the_same_faces_give_the_same_bytes():
    again = [Sample(s.before.copy(), s.delivered.copy(), s.decision) for s in [face(128)] * 12]
    assert sample_strip([face(128)] * 12) == sample_strip(again)


def test_a_strip_of_no_faces_is_refused():
    with pytest.raises(ValueError, match="needs a face"):
        sample_strip([])


@pytest.mark.parametrize("shape", [(100, 256), (384, 255), (0, 2)])
def test_a_picture_that_is_no_strip_is_refused(shape):
    with pytest.raises(
        ValueError, match=f"rows of two square tiles, but this picture is {shape[1]} x {shape[0]}"
    ):
        split_strip(np.zeros((*shape, 3), np.uint8))


@pytest.mark.parametrize(("strips", "faces"), [(1, 1), (3, 2), (9, 4)])
def test_the_sheet_shows_every_face_of_a_small_run(strips, faces):
    sheet = contact_sheet(shown(faces) * strips, "a run")
    for colour in (RED, GREEN):
        assert count_tiles(sheet, colour, 128) == pytest.approx(strips * faces, rel=0.01)


def test_the_sheet_takes_its_faces_evenly_from_a_large_run():
    blue = (np.tile(plain(128, BLUE), (1, 2, 1)), "")
    faces = [face for i in range(200) for face in (shown(2) if i % 2 else [blue, blue])]
    sheet = contact_sheet(faces, "a run", limit=60)
    of_red = count_tiles(sheet, RED, 128)
    assert 25 < of_red < 35
    assert count_tiles(sheet, BLUE, 128) == pytest.approx(60 * 2 - 2 * of_red, rel=0.02)


def test_what_was_decided_stands_beside_the_tiles():
    """In dark letters of the third column, more of them the more there is to tell."""

    def ink(decision: str) -> int:
        sheet = contact_sheet([(strip(1), decision)], "a run")
        (row,) = np.unique(np.nonzero((sheet == RED).all(axis=2))[0])[:1]
        right = np.nonzero((sheet == GREEN).all(axis=2))[1].max() + 1
        return int((sheet[row : row + 128, right:].max(axis=2) < 80).sum())

    short, long = ink("left as it was"), ink("damage 12.5: diffusion from step 252, 4 calls, held below 2 px")
    assert 0 == ink("") < short < long
    assert ink("a.jpg\nleft as it was") == short, "a picture's name is lettered lighter"


def test_a_decision_of_many_words_stays_within_its_column():
    one, many = (contact_sheet([(strip(1), "word " * n)], "a run") for n in (1, 500))
    assert one.shape == many.shape


def test_large_tiles_are_shown_large_when_there_are_few():
    sheet = contact_sheet(shown(2, side=256), "a run")
    assert count_tiles(sheet, RED, 256) == pytest.approx(2, rel=0.01)


def test_a_long_name_is_shortened_and_a_sheet_without_faces_is_still_a_sheet():
    named = [(strip(1), "ü" * 500 + "\nleft as it was")]
    assert contact_sheet(named, "t" * 500).shape == contact_sheet(shown(1), "t").shape
    empty = contact_sheet([], "nothing")
    assert empty.dtype == np.uint8
    assert empty.min() < 100, "it says so in dark letters"


def test_a_report_shows_outcomes_failures_shards_and_settings_and_loads_nothing(tmp_path):
    output = str(tmp_path)
    store.write_bytes(store.join(output, "report/samples/shard-0000.jpg"), sample_strip([face(128)] * 3))
    rows = [
        image_row("a.jpg", "restored"),
        face_row("a.jpg"),
        image_row("b.gif", "skipped", reason="animated"),
    ]
    broken = {"stage": "read", "reason": "truncated", "error": f"it ends early {HOSTILE}"}
    store.write_bytes(store.join(output, "records/shard-0000.parquet"), records(rows))
    failed = [image_row(f"{HOSTILE}.jpg", "failed", **broken)]
    store.write_bytes(store.join(output, "records/shard-0001.parquet"), records(failed))
    summary = {
        "title": HOSTILE,
        "exit_code": 0,
        "images": 12345,
        "outcomes": {"restored": 12343, "no_face": 0, "skipped": 1, "failed": 1},
        "settings": {"preset": "small-swinir", "weights": {"prior": "abc"}},
        "means": {"seconds_read": 1.25, "seconds_restore": 20.0},
        "shards": [{"shard": HOSTILE, "images": 3}, {"shard": "other", "images": 0, "distance": 2.5}],
    }
    write_report(output, summary)

    shown = read_page(output)
    assert "script" not in shown.tags
    assert all(source.startswith("data:image/") for source in shown.sources)
    assert len(shown.sources) == 2
    assert shown.texts.count(HOSTILE) == 3  # title, heading, shard
    for text in (
        "12\u202f343",
        "12\u202f345",
        "no face",
        "animated",
        f"{HOSTILE}.jpg",
        f"it ends early {HOSTILE}",
    ):
        assert text in shown.texts
    for text in ("small-swinir", "weights.prior", "abc", "1.25", "2.5", "seconds restore"):
        assert text in shown.texts
    sheet = decoded((tmp_path / "report/contact_sheet.png").read_bytes())
    assert count_tiles(sheet, GREEN, 128) == pytest.approx(3, rel=0.01)
    assert decoded((tmp_path / "report/histograms.png").read_bytes()).shape[2] >= 3
    table = pq.read_table(tmp_path / "report/shards.parquet").to_pylist()
    assert table[1] == {"shard": "other", "images": 0, "distance": 2.5}
    assert table[0]["distance"] is None


def test_a_report_lists_the_first_hundred_failures_and_says_how_many_there_are(tmp_path):
    rows = [
        image_row(f"{i}.jpg", "failed", stage="read", reason="empty", error="no bytes") for i in range(130)
    ]
    store.write_bytes(str(tmp_path / "records/shard-0000.parquet"), records(rows))
    write_report(str(tmp_path), {"outcomes": {"failed": 130}})
    shown = read_page(str(tmp_path))
    assert shown.texts.count("no bytes") == 100
    assert "100 of 130" in shown.texts


def test_a_report_of_nothing_is_a_page_and_a_sheet(tmp_path):
    write_report(str(tmp_path / "empty run"), {})
    shown = read_page(str(tmp_path / "empty run"))
    assert "empty run" in shown.texts
    assert sorted(p.name for p in (tmp_path / "empty run/report").iterdir()) == [
        "contact_sheet.png",
        "index.html",
    ]


def test_a_report_on_s3_lies_there(s3: S3Server):
    output = store.join(s3.uri, "reported run")
    store.write_bytes(store.join(output, "report/samples/shard-0000.jpg"), sample_strip([face(128)]))
    write_report(output, {"shards": [{"shard": "shard", "images": 1}]})
    written = {e.path for e in store.list_files(store.join(output, "report"))}
    assert written == {"contact_sheet.png", "index.html", "samples/shard-0000.jpg", "shards.parquet"}
