"""A bag is filled file by file, goes on where it stopped, and is one only when all of it is there."""

import hashlib
from pathlib import Path

import bagit
import pytest

from pipeline.delivery import bag as module
from pipeline.delivery.bag import Altered, Bag, File, NoBag, Receipt, payload_path
from pipeline.io import store

INFO = {"Source-Organization": "Städtisches Archiv", "External-Identifier": "run"}


@pytest.fixture
def bag(tmp_path) -> Bag:
    made = Bag(str(tmp_path / "bag"), "run")
    made.claim()
    return made


def source(folder: Path, name: str, data: bytes) -> tuple[str, str, str, int]:
    """An object of an output, as `copy` takes it."""
    (folder / name).write_bytes(data)
    return str(folder / name), f"images/{name}", hashlib.sha256(data).hexdigest(), len(data)


def receipt(unit: str, *files: File) -> Receipt:
    return Receipt(unit, "listed", "", files)


def validated(bag: Bag) -> bagit.Bag:
    made = bagit.Bag(bag.uri)
    made.validate()
    return made


def test_a_finished_bag_is_valid_and_says_what_it_is(bag, tmp_path):
    first = bag.copy(*source(tmp_path, "a.png", b"one"))
    second = bag.write("premis/u.xml", b"<a/>")
    bag.write_receipt(receipt("u", first, second), None)
    assert not (tmp_path / "bag/bagit.txt").exists()
    assert bag.finish(["u"], INFO, "2026-11-27", True) == (2, 7)
    found = validated(bag)
    assert found.version_info == (1, 0) and found.encoding == "UTF-8"
    assert found.info["Payload-Oxum"] == "7.2" and found.info["Bagging-Date"] == "2026-11-27"
    assert found.info["Source-Organization"] == "Städtisches Archiv"
    assert found.payload_entries()["data/images/a.png"] == {"sha256": first.sha256}
    assert set(found.entries) >= {"receipts/u.json", "receipts/bag.json", "bagit.txt", "bag-info.txt"}


@pytest.mark.parametrize(
    "name", ["a b.png", "é写.png", "100%.png", "%25.png", "a%0Ab.png", "caf\udce9.png", "a\nb.png"]
)
def test_every_name_of_a_file_is_one_that_a_validator_finds(bag, tmp_path, name):
    source_uri, _, sha256, size = source(tmp_path, "plain", b"data")
    bag.write_receipt(receipt("u", bag.copy(source_uri, f"images/{name}", sha256, size)), None)
    bag.finish(["u"], INFO, "2026-11-27", True)
    validated(bag)


def test_names_that_need_no_escape_stay():
    assert payload_path("images/a b/100% é.png") == "images/a b/100% é.png"
    assert payload_path("a%0a\r") == r"a\x250a\x0d"


def test_what_is_not_what_its_marker_says_is_refused(bag, tmp_path):
    uri, path, sha256, size = source(tmp_path, "a.png", b"one")
    for wrong in ((sha256, 4), ("0" * 64, 3)):
        with pytest.raises(Altered, match="as its marker says"):
            bag.copy(uri, path, *wrong)
    with pytest.raises(store.StoreError):
        bag.copy(str(tmp_path / "gone"), path, sha256, size)
    assert not (tmp_path / "bag/data").exists()


def test_large_files_are_copied_in_pieces_and_compared(bag, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(module, "PIECE", 300)
    data = bytes(range(256)) * 10
    bag.copy(*source(tmp_path, "a.tif", data))
    assert (tmp_path / "bag/data/images/a.tif").read_bytes() == data
    with pytest.raises(Altered):
        bag.copy(str(tmp_path / "a.tif"), "images/b.tif", "0" * 64, len(data))
    assert not (tmp_path / "bag/data/images/b.tif").exists()


def test_a_file_that_is_there_whole_is_not_copied_again(bag, tmp_path):
    wanted = source(tmp_path, "a.png", b"one")
    copied = bag.copy(*wanted)
    Path(wanted[0]).unlink()
    bag.claim()  # as the next start does
    assert bag.copy(*wanted) == copied
    (tmp_path / "bag/data/images/a.png").write_bytes(b"eno")  # of the same size
    with pytest.raises(store.StoreError):
        bag.copy(*wanted)


def test_a_bag_of_another_run_and_a_place_with_other_files_are_refused(bag, tmp_path):
    with pytest.raises(NoBag, match="another run"):
        Bag(bag.uri, "other").claim()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(NoBag, match="something else"):
        Bag(str(tmp_path / "full"), "run").claim()
    Bag(bag.uri, "run").claim()
    (tmp_path / "bag/receipts/bag.json").write_text("{")
    with pytest.raises(NoBag, match="another run"):
        Bag(bag.uri, "run").claim()


def test_files_that_nobody_delivered_are_named(bag, tmp_path):
    bag.write_receipt(receipt("u", bag.copy(*source(tmp_path, "a.png", b"one"))), None)
    (tmp_path / "bag/data/notes.txt").write_text("mine")
    with pytest.raises(NoBag, match=r"1 files in .*notes.txt is the first"):
        bag.finish(["u"], INFO, "2026-11-27", True)
    assert not (tmp_path / "bag/bagit.txt").exists()


def test_what_only_the_receipt_before_has_goes(bag, tmp_path):
    one, two = (bag.copy(*source(tmp_path, name, b"one")) for name in ("a.png", "b.png"))
    before = receipt("u", one, two)
    bag.write_receipt(before, None)
    bag.write_receipt(receipt("u", one), before)
    assert [p.name for p in (tmp_path / "bag/data/images").iterdir()] == ["a.png"]
    assert bag.receipt("u") == receipt("u", one)


def test_a_receipt_counts_while_it_is_intact_and_its_files_are_there(bag, tmp_path):
    made = receipt("u", bag.copy(*source(tmp_path, "a.png", b"one")))
    bag.write_receipt(made, None)
    assert bag.receipt("u") == made and not bag.keeps(made)

    def next_start() -> Bag:
        begun = Bag(bag.uri, bag.run)
        begun.claim()
        return begun

    assert next_start().keeps(made)
    (tmp_path / "bag/data/images/a.png").write_bytes(b"cut"[:2])
    assert not next_start().keeps(made)
    (tmp_path / "bag/data/images/a.png").unlink()
    assert not next_start().keeps(made)
    file = tmp_path / "bag/receipts/u.json"
    file.write_bytes(file.read_bytes().replace(b'"size": 3', b'"size": 4'))
    assert bag.receipt("u") is None and bag.receipt("v") is None
    with pytest.raises(NoBag, match="receipt of u is gone"):
        bag.finish(["u"], INFO, "2026-11-27", True)


def test_a_bag_to_which_nothing_came_keeps_its_date_and_other_info_is_written(bag, tmp_path):
    bag.write_receipt(receipt("u", bag.copy(*source(tmp_path, "a.png", b"one"))), None)
    bag.finish(["u"], INFO, "2026-11-27", True)
    bag.finish(["u"], INFO, "2027-01-01", False)
    assert validated(bag).info["Bagging-Date"] == "2026-11-27"
    bag.finish(["u"], INFO | {"Source-Organization": "Other"}, "2027-01-01", False)
    assert validated(bag).info["Bagging-Date"] == "2027-01-01"


def test_a_bag_that_is_written_to_is_none_until_it_is_finished(bag, tmp_path):
    bag.write_receipt(receipt("u", bag.copy(*source(tmp_path, "a.png", b"one"))), None)
    bag.finish(["u"], INFO, "2026-11-27", True)
    bag.open()
    with pytest.raises(bagit.BagError):
        bagit.Bag(bag.uri)
    bag.finish(["u"], INFO, "2026-11-27", False)
    validated(bag)
