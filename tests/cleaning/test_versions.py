"""Versions and what is new since the last one: without a cluster, on tables made for it."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portraits, write_folder, write_tar
from PIL import Image

from pipeline.cleaning.assess import AssessUnit
from pipeline.cleaning.bundle import BundlePictures
from pipeline.cleaning.gates import is_broken, version_gates
from pipeline.cleaning.intake import Intake
from pipeline.cleaning.report import picture_of
from pipeline.cleaning.versions import (
    MANIFEST,
    DamagedVersion,
    Version,
    last_version,
    listing_digest,
    manifest_path,
    read_manifest,
    same_pictures,
    table_bytes,
    tombstones,
    write_version,
)
from pipeline.io import store
from pipeline.io.readers import read_unit
from pipeline.io.shards import list_input
from pipeline.io.units import Address, Unit
from pipeline.stages.align import DetectorChoice

VERSION = Version(
    1, 0, "", "in", "l", "s", "m", {}, "", "", "", 10, {"keep": 6, "drop": 4}, {"sharp": 6, "no_face": 4},
    {"no_face": 4}, 2, {"drop": 2}, {"no_face": 2}, 0,
)  # fmt: skip


def manifest(*names: str, sha256: str = "x", verdict: str = "keep") -> pa.Table:
    rows = [{"name": n, "sha256": sha256, "verdict": verdict, "reason": "sharp"} for n in names]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def save(output: Path, version: Version, table: pa.Table) -> bool:
    import hashlib

    body = table_bytes(table)
    digest = hashlib.sha256(body).hexdigest()
    path = manifest_path(version.number, digest)
    return write_version(str(output), replace(version, manifest=path, manifest_sha256=digest), body)


def test_a_version_is_there_with_its_last_file_and_never_written_again(tmp_path):
    assert last_version(str(tmp_path)) is None
    assert save(tmp_path, VERSION, manifest("a"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*")}
    # the same again is the same; another content of the same number came too late
    assert save(tmp_path, VERSION, manifest("a"))
    assert not save(tmp_path, VERSION, manifest("a", "b"))
    assert {p: p.read_bytes() for p in before} == before
    version = last_version(str(tmp_path))
    assert version is not None
    assert read_manifest(str(tmp_path), version).equals(manifest("a"))


def test_a_manifest_without_its_version_is_none(tmp_path):
    body = table_bytes(manifest("a"))
    store.write_bytes(f"{tmp_path}/{manifest_path(1, 'f' * 64)}", body)
    assert last_version(str(tmp_path)) is None


def test_a_damaged_version_or_manifest_is_named(tmp_path):
    save(tmp_path, VERSION, manifest("a"))
    version = last_version(str(tmp_path))
    assert version is not None
    (tmp_path / version.manifest).write_bytes(b"PAR1 and no more")
    with pytest.raises(DamagedVersion, match="not the manifest that version 1 was made with"):
        read_manifest(str(tmp_path), version)
    (tmp_path / version.path).write_bytes(b"{}")
    with pytest.raises(DamagedVersion, match=r"0001\.json"):
        last_version(str(tmp_path))


def test_what_is_gone_leaves_a_tombstone_once():
    parent = pa.concat_tables([manifest("a", "b"), manifest("long gone", verdict="deleted")])
    gone = tombstones(parent, manifest("b"))
    assert gone.select(["name", "sha256", "verdict"]).to_pylist() == [
        {"name": "a", "sha256": "x", "verdict": "deleted"}
    ]
    assert same_pictures(manifest("a"), manifest("a"))
    assert not same_pictures(manifest("a"), manifest("a", sha256="y"))


@pytest.mark.parametrize(
    ("gate", "broken"),
    [("no_face>0.39", True), ("no_face>0.4", False), ("no_face>=0.4", True), ("keep<0.7", True),
     ("new.no_face>0.9", True), ("new.images>2", False), ("images<11", True), ("deleted>0", False)],
)  # fmt: skip
def test_a_gate_looks_at_shares_of_all_or_of_the_new(gate, broken):
    assert [is_broken(g, VERSION) for g in version_gates(gate)] == [broken]


def test_a_gate_on_new_pictures_is_silent_where_there_are_none():
    (gate,) = version_gates("new.keep<0.5")
    assert not is_broken(gate, replace(VERSION, new_images=0, new_verdicts={}))


class Dataset:
    """An input and its measurements, done here as the cluster's workers do them."""

    def __init__(self, source: Path, output: Path) -> None:
        self.source, self.folder = source, str(output / "measurements")
        # what the stage decoded, and not what it took over
        self.read: list[str] = []
        self.earlier: pa.Table | None = None

    def intake(self) -> Intake:
        kind, entries = list_input(str(self.source), "auto")
        return Intake(self.folder, kind, entries, self.earlier)

    def pending(self) -> list[str]:
        return [row["unit"] for row in self.intake().pending(2, "image")]

    def measure(self, most: int = 1000) -> list[dict]:
        """The units that were measured, in so many steps at most."""
        stage = AssessUnit(
            self.folder, 64, DetectorChoice("centerface", None, None), 1 << 30, "image", f"{self.folder}/stop"
        )
        return [stage(row) for row in self.intake().pending(2, "image")[:most]]

    def settle(self) -> pa.Table:
        """A version of everything."""
        rows = self.intake().table()
        table = pa.Table.from_pylist(
            [row | {"verdict": "keep", "reason": "sharp"} for row in rows.to_pylist()], schema=MANIFEST
        )
        self.intake().take_in()
        self.earlier = table
        return table


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    write_folder(tmp_path / "in", portraits(5))
    return Dataset(tmp_path / "in", tmp_path / "out")


def test_a_killed_measurement_resumes(dataset):
    whole = dataset.pending()
    assert len(whole) == 3
    dataset.measure(most=1)
    assert len(dataset.pending()) == 2
    dataset.measure()
    assert dataset.pending() == []
    table = dataset.settle()
    assert table.column("name").to_pylist() == [f"p{i:02d}.png" for i in range(5)]
    assert set(table.column("faces").to_pylist()) == {1}


def test_after_a_version_only_what_is_new_or_changed_is_measured(dataset, monkeypatch):
    dataset.measure()
    first = dataset.settle()
    assert dataset.pending() == []
    assert list(Path(dataset.folder).glob("*")) == []
    (dataset.source / "p00.png").unlink()
    (dataset.source / "new.png").write_bytes(b"no picture")
    touched = dataset.source / "p01.png"
    touched.write_bytes(touched.read_bytes())
    # the touched one is read and hashed, and not decoded
    monkeypatch.setattr(
        "pipeline.cleaning.assess.measure_picture", lambda data, *_: dataset.read.append(data) or {}
    )
    assert [row["images"] for row in dataset.measure()] == [2]
    assert dataset.read == [b"no picture"]
    second = dataset.intake().table()
    assert second.column("name").to_pylist() == ["new.png", "p01.png", "p02.png", "p03.png", "p04.png"]
    kept = second.slice(1, 1).to_pylist()[0]
    was = first.slice(1, 1).to_pylist()[0]
    assert {n for n in kept if kept[n] != was[n]} == {"object_version"}


def test_a_tar_that_grew_is_read_again_and_decoded_where_it_is_new(tmp_path):
    members = list(portraits(3).items())
    write_tar(tmp_path / "in" / "s.tar", members[:2])
    dataset = Dataset(tmp_path / "in", tmp_path / "out")
    dataset.measure()
    first = dataset.settle()
    assert first.column("name").to_pylist() == ["s.tar/p00.png", "s.tar/p01.png"]
    write_tar(tmp_path / "in" / "s.tar", [*members, ("p00.png", members[0][1])])
    dataset.measure()
    second = dataset.settle()
    names = second.column("name").to_pylist()
    # two members of one name are two pictures
    assert names[:3] == ["s.tar/p00.png", "s.tar/p01.png", "s.tar/p02.png"]
    assert names[3].startswith("s.tar/p00.png@")


def test_rows_of_parquet_are_measured_and_read_again_wherever_they_stand(tmp_path):
    pictures = list(portraits(5).values())
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": pictures}), tmp_path / "in" / "s.parquet", row_group_size=2)
    dataset = Dataset(tmp_path / "in", tmp_path / "out")
    dataset.measure()
    rows = dataset.settle().to_pylist()
    assert [row["name"] for row in rows] == [f"s.parquet/{i}" for i in range(5)]
    # as repairs are: some rows, and a picture that is a file
    (tmp_path / "p.png").write_bytes(b"a file")
    places = [Address(r["name"], r["uri"], r["offset"], r["length"]) for r in (rows[1], rows[4])]
    unit = Unit("u", "folder", 0, True, (*places, Address("p.png", str(tmp_path / "p.png"), 0, 6)))
    assert [data for _, data in read_unit(unit, "image")] == [pictures[1], pictures[4], b"a file"]


def test_bytes_that_did_not_come_are_no_verdict_and_asked_for_again(dataset, monkeypatch):
    path = dataset.source / "p00.png"
    monkeypatch.setattr(
        "pipeline.io.store.read_range",
        lambda uri, *_: Path(uri).read_bytes() if uri != str(path) else lost(),
    )

    def lost() -> bytes:
        raise store.StoreError("the server does not answer")

    told = dataset.measure()
    assert [bool(row["table"]) for row in told] == [True, False, False]
    rows = dataset.intake().table([row["table"] for row in told if row["table"]])
    assert rows.column("problem").to_pylist() == ["unread", "", "", "", ""]
    monkeypatch.undo()
    assert len(dataset.pending()) == 1
    dataset.measure()
    assert dataset.intake().table().column("problem").to_pylist() == [""] * 5


def test_a_listing_changes_with_every_file_and_only_then(tmp_path):
    write_folder(tmp_path, {"a.png": b"1", "b/c.png": b"2"})
    first = listing_digest(list_input(str(tmp_path), "auto")[1])
    assert listing_digest(list_input(str(tmp_path), "auto")[1]) == first
    (tmp_path / "b" / "c.png").write_bytes(b"22")
    assert listing_digest(list_input(str(tmp_path), "auto")[1]) != first


def test_a_name_that_is_no_utf8_is_told_and_stands_in_the_manifest(tmp_path):
    import os

    picture = encoded(Image.new("RGB", (80, 80)), "PNG")
    write_folder(tmp_path / "in", {os.fsdecode(b"caf\xe9.png"): picture})
    dataset = Dataset(tmp_path / "in", tmp_path / "out")
    dataset.measure()
    (row,) = dataset.settle().to_pylist()
    assert (row["name"], row["problem"]) == ("caf\\udce9.png", "name not UTF-8")


def test_a_hard_link_of_a_tar_is_a_picture_as_its_target_is(tmp_path):
    import io
    import tarfile

    write_tar(tmp_path / "in" / "s.tar", portraits(2).items())
    with tarfile.open(tmp_path / "in" / "s.tar", "a") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.LNKTYPE, "p00.png"
        tar.addfile(link, io.BytesIO())
    dataset = Dataset(tmp_path / "in", tmp_path / "out")
    dataset.measure()
    rows = {row["member"]: row for row in dataset.settle().to_pylist()}
    assert rows.keys() == {"p00.png", "p01.png", "a.png"}
    assert rows["a.png"]["sha256"] == rows["p00.png"]["sha256"] != ""
    assert dataset.pending() == []


def test_a_dataset_in_a_folder_that_is_no_utf8_is_measured_and_read_again(tmp_path):
    import os

    source = tmp_path / os.fsdecode(b"caf\xe9")
    write_folder(source, portraits(1))
    dataset = Dataset(source, tmp_path / "out")
    dataset.measure()
    (row,) = dataset.settle().to_pylist()
    assert (row["problem"], row["faces"]) == ("", 1)
    assert picture_of(row, "image") is not None
    output = str(tmp_path / "out")
    picture = row | {"sample": "p.png", "repaired": "", "repaired_sha256": ""}
    done = BundlePictures(output, "image")({"path": "part.tar", "pictures": json.dumps([picture])})
    assert done == {"path": "part.tar", "undelivered": ""}
