"""Pictures that can not be written back are delivered as another kind, under a name of their own, everywhere."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pillow_heif
import pytest
from finished_run import image_records
from heic_files import heic_file
from lxml import etree
from photographs import encoded, mixed, portrait, read_folder, write_folder, write_tar
from PIL import Image, ImageCms

from jobs import package, review, verify
from pipeline.compare.crops import cut_faces
from pipeline.compare.runs import open_compared
from pipeline.io.images import decode_rgb
from pipeline.records.verdicts import FORMAT

pytestmark = pytest.mark.usefixtures("without_ray")

FACE = portrait()
P = {"p": "http://www.loc.gov/premis/v3"}
OPTIONS = ("--unit-images", "2", "--convert", "png")


def fax(picture: Image.Image) -> bytes:
    return encoded(picture.convert("1"), "TIFF", compression="group4", dpi=(300, 300))


def cielab(picture: Image.Image) -> bytes:
    lab = ImageCms.createProfile("LAB", 5000)
    srgb = ImageCms.createProfile("sRGB")
    return encoded(ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB"), "TIFF")


PICTURES = {
    "a.tif": cielab(FACE),
    "b.png": encoded(FACE, "PNG"),
    "c cat.tif": fax(Image.open(io.BytesIO(mixed()["cat.png"]))),
    "sub/d é.tif": cielab(portrait(104, 112)),
    "taken.tif": cielab(portrait(102, 111)),
    "taken.tif.png": encoded(portrait(98, 108), "PNG"),
}
CONVERTED = {"a.tif", "sub/d é.tif"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("convert") / "photos", PICTURES)


@pytest.fixture(scope="module")
def output(photos, restore) -> Path:
    assert restore(photos, photos.parent / "out", *OPTIONS) == 0
    return photos.parent / "out"


def test_a_converted_picture_has_a_name_of_its_own_and_no_other_picture_has(output):
    found, delivered = image_records(output), read_folder(output / "images")
    for name in CONVERTED:
        assert (found[name]["outcome"], found[name]["delivered"]) == ("restored", f"{name}.png")
        assert found[name]["recoded"] == "its CIELAB samples are delivered as RGB"
        assert found[name]["label"] == "xmp"
        assert decode_rgb(delivered[f"{name}.png"]).shape == decode_rgb(PICTURES[name]).shape
    assert {r["delivered"] for name, r in found.items() if name not in CONVERTED} == {None}
    assert set(delivered) == (PICTURES.keys() - CONVERTED) | {f"{name}.png" for name in CONVERTED}
    # without a face to restore it is what it was
    assert found["c cat.tif"]["outcome"] == "no_face"
    assert delivered["c cat.tif"] == PICTURES["c cat.tif"]


def test_no_picture_is_delivered_under_the_name_of_another(output):
    found, delivered = image_records(output), read_folder(output / "images")
    assert (found["taken.tif"]["outcome"], found["taken.tif"]["reason"]) == ("skipped", "name taken")
    assert delivered["taken.tif"] == PICTURES["taken.tif"]
    assert found["taken.tif.png"]["outcome"] == "restored"


def test_verify_finds_nothing_and_restores_converted_pictures_to_the_same_bytes(output, tmp_path):
    assert verify.main(["--output", str(output), "--sample", "9", "--json", str(tmp_path / "v.json")]) == 0
    sample = json.loads((tmp_path / "v.json").read_bytes())["sample"]["pictures"]
    assert {p["member"]: p["same"] for p in sample} == {
        name: "bits" for name in (*CONVERTED, "b.png", "taken.tif.png")
    }


def test_the_same_command_does_nothing_again_and_another_kind_is_another_run(output, photos, restore, capsys):
    before = {p: p.stat().st_mtime_ns for p in (output / "images").rglob("*.png")}
    assert restore(photos, output, *OPTIONS) == 0
    assert {p: p.stat().st_mtime_ns for p in (output / "images").rglob("*.png")} == before
    assert restore(photos, output, "--unit-images", "2", "--convert", "tiff") == 2
    assert "convert: png → tiff" in capsys.readouterr().err


def test_the_bag_has_the_new_names_and_its_metadata_both(output, tmp_path):
    bag = tmp_path / "bag"
    assert package.main(["--output", str(output), "--bag", str(bag), "--premis"]) == 0
    payload = read_folder(bag / "data")
    names = {name.removeprefix("images/") for name in payload if name.startswith("images/")}
    assert names == set(read_folder(output / "images"))
    documents = [etree.fromstring(data) for name, data in payload.items() if name.startswith("premis/")]
    objects = [o for d in documents for o in d.iterfind("p:object", P)]
    by_path = {o.findtext("p:objectIdentifier/p:objectIdentifierValue", namespaces=P): o for o in objects}
    own = by_path["images/a.tif.png"]
    assert own.findtext("p:originalName", namespaces=P) == "a.tif"
    assert own.findtext(".//p:formatName", namespaces=P) == "image/png"
    source = own.findtext(".//p:relatedObjectIdentifierValue", namespaces=P)
    assert source == hashlib.sha256(PICTURES["a.tif"]).hexdigest()
    assert by_path[source].findtext(".//p:formatName", namespaces=P) == "image/tiff"


@pytest.mark.slow
def test_review_and_comparison_find_what_was_converted(output, photos, restore, tmp_path):
    other = tmp_path / "other"
    assert restore(photos, other, *OPTIONS, "--seed", "3", "--review", "off") == 0
    pairs = {"file_a": 0, "row_a": 1, "file_b": 0, "row_b": 1}
    face = cut_faces(*(open_compared(str(run)) for run in (output, other)), [pairs])[0]
    assert face.member == "a.tif" and face.distance > 0
    assert review.main(["--output", str(other)]) == 0
    tiles = list((other / "review" / "made").rglob("*.jpg"))
    assert len(tiles) == len(list((output / "review" / "tiles").rglob("*.jpg")))


def test_verdicts_bring_the_original_back_under_its_own_name(photos, output, restore, tmp_path):
    again = tmp_path / "out"
    shutil.copytree(output, again)
    before = read_folder(again / "images")
    found = image_records(again)["a.tif"]
    verdict = {"sha256": found["sha256"], "picture": "a.tif", "face": 0, "verdict": "reject"}
    verdict |= {"who": "Ada", "at": "2026-11-27T17:00:00Z"}
    given = tmp_path / "verdicts.json"
    given.write_text(json.dumps({"format": FORMAT, "verdicts": [verdict]}))
    assert restore(photos, again, *OPTIONS, "--verdicts", str(given)) == 0
    after = read_folder(again / "images")
    assert after.pop("a.tif") == PICTURES["a.tif"]
    assert after == {name: data for name, data in before.items() if name != "a.tif.png"}
    assert image_records(again)["sub/d é.tif"]["delivered"] == "sub/d é.tif.png"
    assert verify.main(["--output", str(again)]) == 0


def test_members_of_a_tar_get_the_new_name_and_heic_comes_back(restore, tmp_path):
    pictures = {"x/p.tif": PICTURES["a.tif"], "x/q.heic": heic_file(FACE, tile=64)}
    source = write_tar(tmp_path / "in/s.tar", [*pictures.items(), ("x/q.txt", b"words")])
    output = tmp_path / "out"
    assert restore(source, output, "--unit-images", "2", "--convert", "tiff") == 0
    [shard] = (output / "shards").iterdir()
    with tarfile.open(shard) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
    assert set(found) == {"x/p.tif.tif", "x/q.heic", "x/q.txt"} and found["x/q.txt"] == b"words"
    image = Image.open(io.BytesIO(found["x/p.tif.tif"]))
    assert image.format == "TIFF" and image.size == FACE.size
    assert pillow_heif.open_heif(found["x/q.heic"]).size == FACE.size
    rows = image_records(output)
    assert {name: r["outcome"] for name, r in rows.items()} == dict.fromkeys(pictures, "restored")
    assert {name: r["delivered"] for name, r in rows.items()} == {"x/p.tif": "x/p.tif.tif", "x/q.heic": None}
    assert verify.main(["--output", str(output), "--sample", "2"]) == 0
