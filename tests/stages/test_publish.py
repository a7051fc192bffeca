"""A unit is finished once, whoever finishes it, and one that can not be written is left to the next start."""

import io
import json
import tarfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.faces.geometry import CropFrame
from pipeline.io import store
from pipeline.io.units import Address, Unit
from pipeline.records.rows import ImageRecord, dump_records, pack
from pipeline.stages.publish import Publish

SETTINGS = {"eta": 0.5, "seed": 0, "model_sha256": "a+b"}


@pytest.fixture
def output(tmp_path):
    return str(tmp_path / "out")


@pytest.fixture
def unit(tmp_path) -> Unit:
    """Two pictures of a folder in which no face was found."""
    (tmp_path / "in").mkdir()
    addresses = []
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(name.encode())
        addresses.append(Address(name, str(tmp_path / "in" / name), 0, 5))
    return Unit("images-00000", "folder", 0, True, tuple(addresses))


def publish(output) -> Publish:
    return Publish(output, CropFrame(64), "image", False, None, 1 << 20, False, SETTINGS, "cpu")


def row(unit: Unit, attempts: int = 1) -> dict:
    records = [ImageRecord(a.member, "0" * 64, outcome="no_face") for a in unit.images]
    nothing = {name: pack([]) for name in ("crops", "estimated", "restored")}
    told = {"images": dump_records(records), "faces": dump_records([]), "sums": json.dumps({})}
    return {"unit": unit.name, "work": replace(unit, attempts=attempts).to_json()} | nothing | told


def files(output) -> dict[str, bytes]:
    return {e.path: store.read_bytes(e.uri) for e in store.list_files(output)}


def test_who_finishes_a_unit_second_changes_nothing_and_passes_the_firsts_marker_on(output, unit):
    first = publish(output)(row(unit))
    before = files(output)
    # outputs that another device gives other bits must not come under the first one's marker
    store.write_bytes(unit.images[0].uri, b"other")
    assert json.loads(publish(output)(row(unit))["marker"]) == json.loads(first["marker"])
    assert files(output) == before


def test_of_two_that_finish_a_unit_at_once_the_first_marker_counts(output, unit, monkeypatch):
    theirs = None

    def written_between(self, unit, where, data, write=Publish._write):
        nonlocal theirs
        if theirs is None and where == unit.records_path:
            theirs = ""  # once
            theirs = json.loads(publish(output)(row(unit))["marker"])
        return write(self, unit, where, data)

    monkeypatch.setattr(Publish, "_write", written_between)
    mine = json.loads(publish(output)(row(unit))["marker"])
    assert mine == theirs == json.loads(files(output)[unit.marker_path])


def test_a_further_attempt_replaces_the_marker_and_what_only_the_earlier_one_delivered(output, unit):
    first = json.loads(publish(output)(row(unit))["marker"])
    left = {"path": unit.sample_path, "sha256": "", "size": 3}
    store.write_bytes(store.join(output, unit.sample_path), b"old")
    store.write_bytes(
        store.join(output, unit.marker_path),
        json.dumps(first | {"outputs": [*first["outputs"], left]}).encode(),
    )
    second = json.loads(publish(output)(row(unit, attempts=2))["marker"])
    assert (first["attempts"], second["attempts"]) == (1, 2)
    assert unit.sample_path not in files(output)
    assert json.loads(files(output)[unit.marker_path]) == second
    # an attempt that was overtaken leaves the later one's
    assert json.loads(publish(output)(row(unit))["marker"]) == second


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"attempts": "1"}'])
def test_a_damaged_marker_is_replaced(output, unit, damage):
    store.write_bytes(store.join(output, unit.marker_path), damage)
    marker = json.loads(publish(output)(row(unit))["marker"])
    assert json.loads(files(output)[unit.marker_path]) == marker


def test_a_unit_that_can_not_be_written_says_why_and_has_no_marker(output, unit):
    store.write_bytes(store.join(output, "records"), b"a file where the folder goes")
    said = publish(output)(row(unit))
    assert said.keys() == {"unit", "undelivered"}
    assert said["undelivered"].startswith("could not write ") and "records" in said["undelivered"]
    assert unit.marker_path not in files(output)
    store.delete(store.join(output, "records"))
    assert publish(output)(row(unit))["marker"]


def a_tar(place) -> Unit:
    with tarfile.open(place / "s.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    uri, size = str(place / "s.tar"), (place / "s.tar").stat().st_size
    return Unit("s", "tar", 0, True, (Address("a.jpg", uri, 512, 0),), uri, (0, size))


def a_parquet(place) -> Unit:
    pq.write_table(pa.table({"image": [b"x"]}), place / "s.parquet")
    uri = str(place / "s.parquet")
    return Unit("s", "parquet", 0, True, (Address("0", uri, 0, 0),), uri)


@pytest.mark.parametrize("make", [a_tar, a_parquet])
def test_a_shard_that_is_gone_when_it_is_pasted_fails_with_its_pictures(output, tmp_path, make):
    unit = make(tmp_path)
    store.delete(unit.source)
    marker = json.loads(publish(output)(row(unit))["marker"])
    assert marker["outcomes"]["failed"] == 1 and marker["reasons"]["failed"] == {"paste: unreadable": 1}
    assert [o["path"] for o in marker["outputs"]] == [unit.records_path]
