"""Restored pictures say that they are: in themselves, beside themselves, or, where that was not wanted, nowhere."""

import json
from pathlib import Path

import exiftool
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import image_records
from photographs import encoded, mixed, pixels, portrait, read_folder, write_folder, write_tar
from PIL import Image

from jobs import verify
from pipeline.io.delivered import tar_pictures
from pipeline.ledger.ledger import read_run
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.records.run_file import RunFile
from pipeline.records.verdicts import FORMAT

pytestmark = pytest.mark.usefixtures("without_ray")

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="box 7"/></rdf:RDF>'
    b"</x:xmpmeta>"
)
FACE = portrait()
GREY = FACE.convert("L")
PICTURES = {
    "a.png": encoded(FACE, "PNG"),
    "b.bmp": encoded(FACE, "BMP"),
    "c cat.png": mixed()["cat.png"],
    "d.jpg": encoded(FACE, "JPEG", quality=90),
    "e.tif": encoded(FACE, "TIFF"),
    "f.webp": encoded(FACE, "WEBP", lossless=True, xmp=XMP),
    "g.gif": encoded(FACE.quantize(64), "GIF"),
    "h broken xmp.webp": encoded(FACE, "WEBP", lossless=True, xmp=b"<x:xmpmeta"),
}
LABELLED = [name for name in PICTURES if name not in ("b.bmp", "c cat.png", "h broken xmp.webp")]
ASIDE = {"b.bmp.xmp", "h broken xmp.webp.xmp"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("label") / "photos", PICTURES)


@pytest.fixture(scope="module")
def output(photos, restore) -> Path:
    assert restore(photos, photos.parent / "out", "--unit-images", "4") == 0
    return photos.parent / "out"


@pytest.fixture(scope="module")
def unlabelled(photos, restore) -> Path:
    assert restore(photos, photos.parent / "plain", "--unit-images", "4", "--label", "none") == 0
    return photos.parent / "plain"


@pytest.mark.parametrize("name", LABELLED)
def test_a_restored_picture_says_so_to_another_program(output, photos, tmp_path, name):
    found = exiftool.read(tmp_path / name, (output / "images" / name).read_bytes())
    record = image_records(output)[name]
    assert record["label"] == "xmp"
    assert found["XMP-iptcExt:DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert found["XMP-iptcExt:AISystemUsed"] == "DifFace, preset small-srcnn"
    weights = read_run(str(output)).fingerprint["weights"]
    assert all(
        f"{role} {digest[:16]}" in found["XMP-iptcExt:AISystemVersionUsed"]
        for role, digest in weights.items()
    )
    [event] = found["XMP-xmpMM:History"]
    assert event["SoftwareAgent"].startswith("difface-pipeline, method ")
    assert "When" not in event
    said = f"preset small-srcnn; faces changed 1 (asked 1); parent sha256:{record['sha256']}"
    assert event["Parameters"].replace("chain 1", "asked 1") == said


def test_the_label_changes_no_pixel_and_no_other_picture(output, unlabelled):
    with_label, without = (read_folder(o / "images") for o in (output, unlabelled))
    assert with_label.keys() == without.keys() | ASIDE
    assert {n for n in without if with_label[n] != without[n]} == set(LABELLED)
    for name in LABELLED:
        assert (pixels(with_label[name]) == pixels(without[name])).all()
    assert with_label["c cat.png"] == PICTURES["c cat.png"]
    assert {r["label"] for r in image_records(unlabelled).values()} == {None}
    assert image_records(output)["c cat.png"]["label"] is None


def test_what_a_file_cannot_carry_lies_beside_it_and_is_part_of_the_output(output, tmp_path):
    found = image_records(output)
    assert found["b.bmp"]["label"].startswith("sidecar: files of its kind")
    assert found["h broken xmp.webp"]["label"].startswith("sidecar: its XMP is no XML")
    for name in ASIDE:
        said = exiftool.read(tmp_path / name, (output / "images" / name).read_bytes())
        assert said["XMP-iptcExt:DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
        assert found[name.removesuffix(".xmp")]["sha256"] in said["XMP-xmpMM:History"][0]["Parameters"]
    markers = [json.loads(m.read_bytes()) for m in (output / "_ledger/done").rglob("*.json")]
    written = {o["path"] for m in markers for o in m["outputs"]}
    assert {f"images/{name}" for name in ASIDE} <= written
    assert b"<x:xmpmeta" in (output / "images" / "h broken xmp.webp").read_bytes()


def test_what_a_picture_said_before_is_still_said(output, tmp_path):
    found = exiftool.read(tmp_path / "f.webp", (output / "images" / "f.webp").read_bytes())
    assert found["XMP-dc:Source"] == "box 7"


def test_labelled_pictures_are_verified_and_repeated_bit_for_bit(output, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert verify.main(["--output", str(output), "--sample", "99", "--json", str(report)]) == 0
    pictures = json.loads(report.read_bytes())["sample"]["pictures"]
    assert {p["member"]: p["same"] for p in pictures} == {n: "bits" for n in PICTURES if n != "c cat.png"}


def test_an_altered_sidecar_is_found(output, tmp_path, capsys):
    import shutil

    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    (copy / "images/b.bmp.xmp").write_bytes(b"other")
    assert verify.main(["--output", str(copy)]) == 1
    assert "images/b.bmp.xmp: expected" in capsys.readouterr().out


def test_two_runs_give_the_same_bytes_and_a_date_of_ones_own_gives_others(output, photos, restore, tmp_path):
    assert restore(photos, tmp_path / "again", "--unit-images", "3") == 0
    assert read_folder(tmp_path / "again" / "images") == read_folder(output / "images")
    assert restore(photos, tmp_path / "dated", "--label-date", "2026-11-27") == 0
    found = exiftool.read(tmp_path / "a.png", (tmp_path / "dated/images/a.png").read_bytes())
    assert found["XMP-xmpMM:History"][0]["When"] == "2026:11:27"
    assert verify.main(["--output", str(tmp_path / "dated"), "--sample", "2"]) == 0


def test_an_output_begun_by_an_earlier_version_goes_on_without_labels(
    unlabelled, photos, restore, tmp_path, capsys
):
    import shutil

    output = tmp_path / "earlier"
    shutil.copytree(unlabelled, output)
    run = read_run(str(output))
    assert "label" not in run.fingerprint  # as before there were labels
    repeat = run.repeat | {
        "config": {k: v for k, v in run.repeat["config"].items() if not k.startswith("label")}
    }
    (output / "_ledger/run.json").write_bytes(RunFile(**vars(run) | {"repeat": repeat}).to_json())
    marker = output / "_ledger/done/images-00000/0000.json"
    marker.unlink()
    (output / "images/a.png").unlink()
    assert restore(photos, output, "--unit-images", "4") == 0
    assert read_folder(output / "images") == read_folder(unlabelled / "images")
    assert verify.main(["--output", str(output), "--sample", "2"]) == 0
    assert restore(photos, output, "--unit-images", "4", "--label", "xmp") == 2
    assert "label: None → " in capsys.readouterr().err


def test_a_labelled_output_goes_on_labelled_and_never_without(output, photos, restore, capsys):
    before = read_folder(output / "images")
    (output / "_ledger/done/images-00000/0000.json").unlink()
    assert restore(photos, output, "--unit-images", "4") == 0
    assert read_folder(output / "images") == before
    assert restore(photos, output, "--unit-images", "4", "--label", "none") == 2
    assert "label: {" in capsys.readouterr().err
    assert fingerprint_digest(read_run(str(output)).fingerprint) == read_run(str(output)).digest


def test_pictures_of_shards_are_labelled_in_themselves_or_not_at_all(restore, tmp_path):
    names = {n.replace(" ", "_"): d for n, d in PICTURES.items()}
    tar = write_tar(tmp_path / "in" / "a.tar", names.items())
    assert restore(tar, tmp_path / "out", "--unit-images", "9") == 0
    found = image_records(tmp_path / "out")
    assert found["b.bmp"]["label"].startswith("none: files of its kind")
    assert found["a.png"]["label"] == "xmp"
    [shard] = (tmp_path / "out/shards").iterdir()
    with shard.open("rb") as source:
        delivered = dict(tar_pictures(source))
    assert b"compositeWithTrained" in delivered["a.png"]
    assert not [n for n in delivered if n.endswith(".xmp")]
    assert verify.main(["--output", str(tmp_path / "out"), "--sample", "3"]) == 0


def test_pictures_of_parquet_are_labelled(restore, tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": [PICTURES["a.png"], PICTURES["b.bmp"]]}), tmp_path / "in/a.parquet")
    assert restore(tmp_path / "in", tmp_path / "out", "--unit-images", "9") == 0
    [shard] = (tmp_path / "out/shards").iterdir()
    first, second = pq.read_table(shard).column("image").to_pylist()
    assert b"compositeWithTrained" in first and b"compositeWithTrained" not in second


def test_a_sidecar_stays_while_another_picture_of_its_unit_is_done_again(output, photos, restore, tmp_path):
    import shutil

    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    before = read_folder(copy / "images")
    verdict = {"picture": "a.png", "face": 0, "verdict": "reject", "who": "Ada", "at": "2026-11-27T17:00:00Z"}
    (tmp_path / "v.json").write_text(json.dumps({"format": FORMAT, "verdicts": [verdict]}))
    assert restore(photos, copy, "--unit-images", "4", "--verdicts", str(tmp_path / "v.json")) == 0
    after = read_folder(copy / "images")
    assert {n for n in after if after[n] != before[n]} == {"a.png"}
    assert after["a.png"] == PICTURES["a.png"] and image_records(copy)["a.png"]["label"] is None
    # and the sidecar of a picture that gets its original back goes
    verdict |= {"picture": "b.bmp"}
    (tmp_path / "v.json").write_text(json.dumps({"format": FORMAT, "verdicts": [verdict]}))
    assert restore(photos, copy, "--unit-images", "4", "--verdicts", str(tmp_path / "v.json")) == 0
    assert before.keys() - read_folder(copy / "images").keys() == {"b.bmp.xmp"}
    assert verify.main(["--output", str(copy)]) == 0


def test_a_name_that_leaves_no_room_for_a_sidecar_is_delivered_without(restore, tmp_path):
    name = "b" * 249 + ".bmp"
    photos = write_folder(tmp_path / "photos", {name: PICTURES["b.bmp"]})
    assert restore(photos, tmp_path / "out") == 0
    assert image_records(tmp_path / "out")[name]["label"].startswith("none: ")
    assert read_folder(tmp_path / "out/images").keys() == {name}
    assert verify.main(["--output", str(tmp_path / "out"), "--sample", "1"]) == 0


def test_grey_pictures_of_sixteen_bits_keep_their_depth(restore, tmp_path):
    deep = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
    photos = write_folder(
        tmp_path / "photos", {"a.png": encoded(deep, "PNG"), "b.tif": encoded(deep, "TIFF")}
    )
    assert restore(photos, tmp_path / "out") == 0
    for name in ("a.png", "b.tif"):
        data = (tmp_path / "out/images" / name).read_bytes()
        with Image.open(tmp_path / "out/images" / name) as image:
            assert image.mode.startswith("I")
        if image_records(tmp_path / "out")[name]["outcome"] == "restored":
            assert b"compositeWithTrained" in data


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--label-date", "tomorrow"), "must be a date"),
        (("--label", "none", "--label-date", "2026-01-01"), "leave it"),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_sentence(restore, photos, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit, match="2"):
        restore(photos, tmp_path / "out", *options)
    assert said in capsys.readouterr().err
