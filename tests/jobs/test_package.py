"""An output becomes a bag that an archive's own tools accept, once, however often that is interrupted."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bagit
import c2pa
import exiftool
import pyarrow.parquet as pq
import pytest
from certificates import Certificate, make_certificate
from finished_run import finish_run, picture
from lxml import etree
from photographs import encoded, portrait, read_folder, write_folder, write_tar

from jobs import package as job
from pipeline.delivery.bag import Bag
from pipeline.io import layout, store
from pipeline.records.verdicts import FORMAT

pytestmark = pytest.mark.usefixtures("without_ray")

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parents[1] / "delivery/premis.xsd"))
P = {"p": "http://www.loc.gov/premis/v3"}
SHADES = {"a.png": 40, "b.png": 70, "sub/c é.png": 100, "sub/d.png": 130, "e.png": 160}


def left_or_lighter(shade: int, number: int) -> tuple[int, Mapping[str, Any]]:
    """The face of the darkest picture is left."""
    if shade == SHADES["a.png"]:
        return shade, {"kept": "sharp", "left_for": "sharp", "treatment": "left"}
    return shade + 20, {"rung": "asked"}


@pytest.fixture
def source(tmp_path) -> Path:
    return write_folder(tmp_path / "in", {name: picture(shade) for name, shade in SHADES.items()})


@pytest.fixture
def output(source, tmp_path) -> Path:
    return finish_run(source, tmp_path / "out", left_or_lighter, unit_images=2)


def package(output: Path | str, bag: Path | str, *options: str) -> int:
    return job.main(["--output", str(output), "--bag", str(bag), *options])


def payload(bag: Path) -> dict[str, bytes]:
    return read_folder(bag / "data")


def validated(bag: Path) -> bagit.Bag:
    found = bagit.Bag(str(bag))
    found.validate()
    return found


def documents(bag: Path) -> list[Any]:
    found = [etree.parse(path).getroot() for path in sorted((bag / "data/premis").glob("*.xml"))]
    for root in found:
        SCHEMA.assertValid(root)
    return found


def markers(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((output / layout.DONE).rglob("*.json"))]


def test_the_bag_holds_what_was_delivered_under_the_digests_of_the_markers(output, tmp_path, capsys):
    assert package(output, tmp_path / "bag", "--organization", "City Archive") == 0
    found = validated(tmp_path / "bag")
    written = {o["path"]: o["sha256"] for m in markers(output) for o in m["outputs"]}
    delivered = {p: s for p, s in written.items() if not p.startswith(("review/", "faces/"))}
    assert {p.removeprefix("data/"): d["sha256"] for p, d in found.payload_entries().items()} == delivered
    assert all(data == (output / path).read_bytes() for path, data in payload(tmp_path / "bag").items())
    assert found.info["Source-Organization"] == "City Archive"
    assert "units    3 of 3" in capsys.readouterr().out


def test_premis_has_a_derivation_for_every_changed_picture_and_no_other(output, source, tmp_path):
    assert package(output, tmp_path / "bag", "--premis") == 0
    validated(tmp_path / "bag")
    roots = documents(tmp_path / "bag")
    assert len(roots) == 3
    events = [e for root in roots for e in root.findall("p:event", P)]
    assert len(events) == len(SHADES) - 1
    linked = {e.find("p:linkingObjectIdentifier/p:linkingObjectIdentifierValue", P).text for e in events}
    wanted = {n: hashlib.sha256((source / n).read_bytes()).hexdigest() for n in SHADES if n != "a.png"}
    assert linked == set(wanted.values())
    digests = dict(
        (
            o.find("p:objectIdentifier/p:objectIdentifierValue", P).text,
            o.findtext(".//p:messageDigest", None, P),
        )
        for root in roots
        for o in root.findall("p:object", P)
    )
    for path, digest in digests.items():
        if path.startswith("images/"):
            assert digest == hashlib.sha256((tmp_path / "bag/data" / path).read_bytes()).hexdigest()
    assert {f"images/{name}" for name in SHADES} <= digests.keys()


def test_the_same_command_again_copies_nothing(output, tmp_path, capsys, monkeypatch):
    assert package(output, tmp_path / "bag", "--premis") == 0
    before = read_folder(tmp_path / "bag")
    capsys.readouterr()
    monkeypatch.setattr(Bag, "_copy", lambda *_: pytest.fail("something was copied"))
    assert package(output, tmp_path / "bag", "--premis") == 0
    assert "0 written now" in capsys.readouterr().out
    assert read_folder(tmp_path / "bag") == before


@pytest.mark.parametrize("stops_at", range(0, 16, 3))
def test_an_interrupted_packaging_goes_on_and_ends_as_an_undisturbed_one(
    output, tmp_path, monkeypatch, stops_at
):
    assert package(output, tmp_path / "whole", "--premis") == 0
    writes = 0
    write = store.write_bytes

    def stopped(uri: str, data: bytes) -> None:
        nonlocal writes
        if uri.startswith(str(tmp_path / "bag")) and writes == stops_at:
            raise KeyboardInterrupt
        writes += uri.startswith(str(tmp_path / "bag"))
        write(uri, data)

    monkeypatch.setattr(store, "write_bytes", stopped)
    assert package(output, tmp_path / "bag", "--premis", "--workers", "1") == 130
    assert not (tmp_path / "bag/bagit.txt").exists()
    monkeypatch.setattr(store, "write_bytes", write)
    assert package(output, tmp_path / "bag", "--premis", "--workers", "1") == 0
    validated(tmp_path / "bag")
    assert read_folder(tmp_path / "bag") == read_folder(tmp_path / "whole")


def test_a_run_that_is_not_finished_is_refused_and_packaged_in_part_when_asked(output, tmp_path, capsys):
    (output / "_ledger/done/images-00000/0001.json").unlink()
    assert package(output, tmp_path / "bag") == 4
    assert "2 of 3 units" in capsys.readouterr().err and not (tmp_path / "bag").exists()
    assert package(output, tmp_path / "bag", "--partial") == 0
    found = validated(tmp_path / "bag")
    assert "2 of 3 units, the run is not finished" in found.info["External-Description"]
    assert len([p for p in payload(tmp_path / "bag") if p.startswith("images/")]) == 3


def test_the_rest_of_a_run_joins_the_bag_once_it_is_done(output, source, tmp_path):
    marker = output / "_ledger/done/images-00000/0001.json"
    kept = marker.read_bytes()
    marker.unlink()
    assert package(output, tmp_path / "bag", "--partial") == 0
    marker.write_bytes(kept)
    assert package(output, tmp_path / "bag") == 0
    assert "not finished" not in validated(tmp_path / "bag").info["External-Description"]
    assert {f"images/{name}" for name in SHADES} <= payload(tmp_path / "bag").keys()


def test_what_is_missing_or_altered_is_named_and_the_bag_stays_open(output, tmp_path, capsys):
    (output / "images/b.png").write_bytes(b"other")
    (output / "images/e.png").unlink()
    assert package(output, tmp_path / "bag") == 1
    said = capsys.readouterr()
    assert "b.png: " in said.out and "as its marker says" in said.out and "e.png" in said.out
    assert "the same command goes on" in said.err
    assert not (tmp_path / "bag/bagit.txt").exists()


def test_a_picture_that_changed_while_it_was_restored_is_no_derivation(source, tmp_path):
    first = True

    def changed(shade: int, number: int) -> tuple[int, Mapping[str, Any]]:
        nonlocal first
        if first:  # its unit is read; it is pasted later
            (source / "a.png").write_bytes(picture(41))
        first = False
        return shade + 20, {}

    output = finish_run(source, tmp_path / "out", changed, unit_images=9)
    assert package(output, tmp_path / "bag", "--premis", *signing(make_certificate(tmp_path / "c"))) == 0
    assert sum(len(root.findall("p:event", P)) for root in documents(tmp_path / "bag")) == 2 * (
        len(SHADES) - 1
    )


def test_a_dry_run_writes_nothing(output, tmp_path, capsys):
    assert package(output, tmp_path / "bag", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "images   5" in said and "nothing was written" in said
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_are_packaged_whole_and_their_pictures_described(tmp_path, kind, capsys):
    names = {name.replace("/", " "): picture(shade) for name, shade in SHADES.items()}
    if kind == "tar":
        write_tar(tmp_path / "in/a.tar", names.items())
    else:
        import pyarrow as pa

        (tmp_path / "in").mkdir()
        pq.write_table(pa.table({"image": list(names.values())}), tmp_path / "in/a.parquet")
    output = finish_run(tmp_path / "in", tmp_path / "out", left_or_lighter, kind=kind)
    assert package(output, tmp_path / "bag", "--premis") == 0
    validated(tmp_path / "bag")
    roots = documents(tmp_path / "bag")
    assert sum(len(root.findall("p:event", P)) for root in roots) == len(SHADES) - 1
    certificate = make_certificate(tmp_path / "certificate")
    options = ("--sign-cert", str(certificate.chain), "--sign-key", str(certificate.key))
    assert package(output, tmp_path / "signed", *options) == 2
    assert "holds shards" in capsys.readouterr().err


def test_from_s3_to_s3(s3, source, tmp_path):
    place = f"{s3.uri}/packaged"
    output = finish_run(source, tmp_path / "out", left_or_lighter, unit_images=2)
    for name, data in read_folder(output).items():
        store.write_bytes(store.join(place, "out", name), data)
    bag = store.join(place, "bag")
    assert package(store.join(place, "out"), bag, "--premis") == 0
    for entry in store.list_files(bag):
        store.write_bytes(str(tmp_path / "bag" / entry.path), store.read_bytes(entry.uri))
    validated(tmp_path / "bag")
    assert package(output, tmp_path / "here", "--premis") == 0
    assert payload(tmp_path / "here") == payload(tmp_path / "bag")


def test_places_that_cannot_be_are_refused(output, tmp_path, capsys):
    for bag in (output / "bag", tmp_path):
        with pytest.raises(SystemExit, match="2"):
            package(output, bag)
        assert "must not lie in each other" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        package(output, tmp_path / "bag", "--sign-key", "key.pem")
    assert package(tmp_path / "in", tmp_path / "bag") == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    assert package(output, tmp_path / "full") == 2
    assert "something else" in capsys.readouterr().err


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, restore) -> Path:
    """A run with labels, over real pictures of several kinds."""
    folder = tmp_path_factory.mktemp("labelled")
    pictures = {
        "a.jpg": encoded(portrait(), "JPEG", quality=90), "b.png": encoded(portrait(), "PNG"),
        "c.bmp": encoded(portrait(), "BMP"), "d.webp": encoded(portrait(), "WEBP", lossless=True),
    }  # fmt: skip
    write_folder(folder / "in", pictures)
    assert restore(folder / "in", folder / "out", "--unit-images", "4") == 0
    return folder / "out"


def signing(certificate: Certificate) -> tuple[str, ...]:
    return ("--sign-cert", str(certificate.chain), "--sign-key", str(certificate.key))


def test_signed_pictures_keep_their_label_and_pixels_and_the_run_stays_as_it_was(
    labelled, certificate, tmp_path, capsys
):
    before = read_folder(labelled)
    assert package(labelled, tmp_path / "bag", "--premis", *signing(certificate)) == 0
    assert "signed   3 now; 1 restored pictures of kinds that carry no signature" in capsys.readouterr().out
    validated(tmp_path / "bag")
    found = payload(tmp_path / "bag")
    for name, kind in (("a.jpg", "image/jpeg"), ("b.png", "image/png"), ("d.webp", "image/webp")):
        data = found[f"images/{name}"]
        with c2pa.Reader(kind, io.BytesIO(data)) as reader:
            said = json.loads(reader.json())
        assert said["validation_state"] == "Valid"
        active = said["manifests"][said["active_manifest"]]
        [actions] = [
            a["data"]["actions"] for a in active["assertions"] if a["label"].startswith("c2pa.actions")
        ]
        assert len(actions[1]["changes"]) == 1 and active["ingredients"][0]["relationship"] == "parentOf"
        tags = exiftool.read(tmp_path / name, data)
        assert tags["XMP-iptcExt:AISystemUsed"] == "DifFace, preset small-srcnn"
    assert found["images/c.bmp"] == before["images/c.bmp"] and "images/c.bmp.xmp" in found
    assert "report/index.html" in found
    [root] = documents(tmp_path / "bag")
    kinds = [e.findtext("p:eventType", None, P) for e in root.findall("p:event", P)]
    assert (kinds.count("derivation"), kinds.count("digital signature generation")) == (4, 3)
    assert read_folder(labelled) == before


def test_signed_pictures_are_not_signed_again_and_another_certificate_signs_anew(
    labelled, certificate, tmp_path, capsys
):
    assert package(labelled, tmp_path / "bag", *signing(certificate)) == 0
    before = payload(tmp_path / "bag")
    assert package(labelled, tmp_path / "bag", *signing(certificate)) == 0
    assert payload(tmp_path / "bag") == before
    assert package(labelled, tmp_path / "bag", *signing(make_certificate(tmp_path / "other"))) == 0
    after = payload(tmp_path / "bag")
    assert {n for n in after if after[n] != before[n]} == {"images/a.jpg", "images/b.png", "images/d.webp"}
    assert package(labelled, tmp_path / "bag") == 0  # and without a signature what was delivered
    assert payload(tmp_path / "bag")["images/a.jpg"] == (labelled / "images/a.jpg").read_bytes()
    validated(tmp_path / "bag")


def test_neither_path_nor_content_of_the_key_is_anywhere(labelled, certificate, tmp_path, capfd, caplog):
    assert package(labelled, tmp_path / "bag", "--premis", *signing(certificate)) == 0
    (tmp_path / "no key.pem").write_text("no key")
    wrong = ("--sign-cert", str(certificate.chain), "--sign-key", str(tmp_path / "no key.pem"))
    assert package(labelled, tmp_path / "other bag", "--premis", *wrong) == 2
    said = capfd.readouterr()
    texts = [said.out.encode(), said.err.encode(), caplog.text.encode()]
    every = [*texts, *read_folder(tmp_path / "bag").values(), *read_folder(labelled).values()]
    lines = certificate.key.read_bytes().splitlines()[1:-1]
    secrets = [*lines, certificate.key.name.encode(), b"no key.pem", b"PRIVATE KEY"]
    assert not [secret for secret in secrets for data in every if secret in data]
    assert not (tmp_path / "other bag").exists()


def test_a_source_that_has_changed_is_not_signed_for(labelled, certificate, tmp_path, capsys):
    source = labelled.parent / "in" / "b.png"
    kept, times = source.read_bytes(), source.stat()
    try:
        source.write_bytes(kept + b"\0")
        assert package(labelled, tmp_path / "bag", *signing(certificate)) == 1
        assert "b.png: the picture that was restored was wanted" in capsys.readouterr().out
    finally:
        source.write_bytes(kept)
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_people_have_said_since_is_carried_out_before_and_in_the_bag_after(
    labelled, restore, tmp_path, capsys
):
    output = tmp_path / "out"
    shutil.copytree(labelled, output)
    assert package(output, tmp_path / "bag", "--premis") == 0
    verdict = {"picture": "c.bmp", "face": 0, "verdict": "reject", "who": "Ada", "at": "2026-11-27T17:00:00Z"}
    (tmp_path / "v.json").write_text(json.dumps({"format": FORMAT, "verdicts": [verdict]}))
    arguments = ("--unit-images", "4", "--verdicts", str(tmp_path / "v.json"))
    assert restore(labelled.parent / "in", output, *arguments) == 0
    assert package(output, tmp_path / "bag", "--premis") == 0
    validated(tmp_path / "bag")
    found = payload(tmp_path / "bag")
    assert "images/c.bmp.xmp" not in found
    assert found["images/c.bmp"] == (labelled.parent / "in/c.bmp").read_bytes()
    [root] = documents(tmp_path / "bag")
    outcomes = [e.findtext(".//p:eventOutcome", None, P) for e in root.findall("p:event", P)]
    assert sorted(outcomes) == ["rejected", "success", "success", "success"]
    # verdicts that are kept in the ledger and not carried out
    kept = next((output / layout.VERDICTS).glob("*.json"))
    values = json.loads(kept.read_bytes())
    values["verdicts"].append(values["verdicts"][0] | {"at": "2026-11-28T17:00:00Z"})
    kept.write_text(json.dumps(values))
    assert package(output, tmp_path / "bag", "--premis") == 1
    assert "verdicts are not carried out" in capsys.readouterr().out
