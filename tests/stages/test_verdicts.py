"""Verdicts on a unit: their history, what decides pixels, and the records that are carried over."""

import dataclasses
import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.io.units import Address, Unit
from pipeline.records.marker import Marker
from pipeline.records.rows import Counts, FaceRecord, ImageRecord
from pipeline.records.verdicts import (
    BadVerdicts,
    Verdict,
    deciding,
    digest,
    digest_by_place,
    merged,
    read_verdicts,
    verdicts_to_json,
)
from pipeline.stages.record import by_image, record_table, records_of
from pipeline.stages.verdicts import Carried, UnitVerdicts


def said(verdict: str, hour: int, place: int = 0, face: int = 0, **values: Any) -> Verdict:
    settings = {"settings": values.pop("settings", {})}
    return Verdict(
        f"{place}.jpg", face, verdict, at=f"2026-11-27T{hour:02d}:00:00Z", place=place, **settings, **values
    )


def test_the_last_verdict_that_is_no_acceptance_decides_the_pixels():
    history = merged([said("redo", 2, settings={"seed": 1})], [said("accept", 3), said("reject", 1)])
    assert [v.verdict for v in history] == ["reject", "redo", "accept"]
    assert deciding(history)[0, 0].verdict == "redo"
    face = FaceRecord(0, 0, [], [], [], 1.0, 1.0)
    UnitVerdicts(tuple(history)).note([face])
    assert (face.verdict, face.verdict_at, face.verdict_settings) == (
        "accept",
        "2026-11-27T03:00:00Z",
        {"seed": 1},
    )


def test_files_given_in_any_order_and_twice_come_to_one_history():
    first, second = [said("reject", 1), said("accept", 2, place=1)], [said("redo", 3, settings={"eta": 0.1})]
    one = merged(merged([], first), second)
    assert one == merged(merged(merged([], second), first), second) and digest(one) == digest(tuple(one))
    # times are compared as times, whatever zone they are written in
    zone = Verdict("0.jpg", 0, "reject", at="2026-11-27T06:00:00+02:00", place=0)
    assert merged([], [said("redo", 5), zone])[0] == zone


def test_an_acceptance_changes_no_digest_of_a_picture():
    before = [said("reject", 1), said("accept", 1, place=2)]
    assert set(digest_by_place(before)) == {"0"}
    assert digest_by_place(merged(before, [said("accept", 2)])) == digest_by_place(before)
    assert digest_by_place(merged(before, [said("redo", 2)])) != digest_by_place(before)
    assert digest(before) != digest(merged(before, [said("accept", 2)])) and digest([]) == ""


def test_a_file_reads_as_it_was_written():
    given = [said("redo", 1, settings={"start_step": 3, "hold": 2.5, "method": "difface"}, who="Ada")]
    assert read_verdicts(verdicts_to_json(given, run="r")) == given


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"face": -1}, "face must be the face's number, 0 or more, got -1"),
        ({"face": True}, "face must be"),
        ({"picture": ""}, "picture must be the picture's name"),
        ({"verdict": "reject"}, "settings must be an object, and for redo alone"),
        ({"settings": {"sigma": 2}}, "settings may be method, start_step"),
        ({"settings": {"seed": 1.5}}, "seed must be a number from 0"),
        ({"settings": {"hold": float("nan")}}, "hold must be a number from 0 to 1000"),
        ({"settings": {"method": "gan"}}, "method must be estimator or difface, got 'gan'"),
        ({"who": "a\nb"}, "who must be a text of at most 200 characters"),
        ({"at": ""}, "at must be a time as"),
        ({"place": "0"}, "place must be the image's place in its unit"),
    ],
)
def test_what_is_no_verdict_is_refused_in_a_sentence(change, sentence):
    values = said("redo", 1, settings={"seed": 1}).to_values() | change
    with pytest.raises(BadVerdicts, match="verdict 1: ") as refused:
        Verdict.from_values(values)
    assert sentence in str(refused.value)


FACE = FaceRecord(
    0, 0, [1.0, 2.0, 3.0, 4.0], [0.5] * 10, [1.0, 0.0, 2.0, 0.0, 1.0, 3.0], 0.9, 1.5, crispness=0.25,
    treatment="chain", estimated_change=3.25, rung="held", tried=[{"rung": "asked", "failed": "identity"}],
    start_step=60, calls=3, hold=2.0, eta=0.25, sharpness_before=1.0, sharpness_after=2.0, distance=0.5,
    measured={"ids": 0.5}, samples=3, spread=1.5, spread_identity=2.5, invented=True,
)  # fmt: skip
LEFT = FaceRecord(
    0, 1, [1.0] * 4, [0.5] * 10, [1.0] * 6, 0.9, 1.5, kept="too small", left_for="small", has_crop=False,
    treatment="left", verdict="accept", verdict_by="Ada", verdict_at="2026-11-27T01:00:00Z",
)  # fmt: skip
REDONE = dataclasses.replace(FACE, face=2, seed=7, verdict="redo", verdict_settings={"seed": 7})
FAILED = FaceRecord(0, 3, [1.0] * 4, [0.5] * 10, [1.0] * 6, 0.9, 1.5, error="E: no", traceback="here")


def test_records_that_are_carried_over_make_the_same_rows_again():
    unit = Unit("s", "folder", 0, True, (Address("caf\udce9.jpg", "u", 0, 1),), run="r")
    image = ImageRecord("caf\udce9.jpg", "ab", 10, 20, "restored", recoded="for a reason")
    faces = [FACE, LEFT, REDONE, FAILED]
    vectors = {"features": np.ones((3, 2048), np.float16)}
    settings = {"eta": 0.5, "seed": 0, "model_sha256": "m"}
    table = record_table(unit, [image], faces, settings, ("ids",), vectors)
    [rows] = by_image(pq.read_table(io.BytesIO(table)).to_pylist())
    found = records_of(rows, 0, "caf\udce9.jpg", ("ids",))
    assert (
        found.image == image
        and set(found.features) == {0, 1, 2, 3}
        and len(found.features[2]["features"]) == 2048
    )
    assert record_table(unit, [found.image], found.faces, settings, ("ids",), vectors) == table
    assert [f.has_crop for f in found.faces] == [True, False, True, True]
    assert found.faces[1].verdict_by == "Ada" and found.faces[2].verdict_settings == {"seed": 7}


def test_vectors_of_carried_faces_stay_beside_those_measured_anew():
    def kept(number: int) -> FaceRecord:
        return dataclasses.replace(FACE, image=number, face=0)

    vectors = {(0, 0): {"features": [1.0] * 2048}, (2, 0): {"features": [2.0] * 2048}}
    marker = Marker("u", "s", 0, True, Counts(), {}, 0.0)
    carried = Carried(marker, {}, {0: [kept(0)], 2: [kept(2)]}, vectors, [])
    fresh = {"features": np.full((1, 2048), 7, np.float16)}
    joined = carried.with_features([kept(1)], fresh)
    assert joined["features"][:, 0].tolist() == [1, 7, 2]
    # no face was restored again
    assert carried.with_features([], {})["features"][:, 0].tolist() == [1, 2]
    assert Carried(marker, {}, {0: [kept(0)]}, {}, []).with_features([], {}) == {}
