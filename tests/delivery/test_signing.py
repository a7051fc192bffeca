"""C2PA signatures: made offline, read by C2PA's own reader, pixels unchanged, and no word of the key anywhere."""

import builtins
import io
import json
import socket
from typing import Any

import c2pa
import numpy as np
import pytest
from certificates import Certificate, make_certificate
from PIL import Image

from pipeline.delivery.signing import Claim, NotSigned, Signer

NOISE = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
CLAIM = Claim("a picture", [[1, 2, 11.5, 20]], "face 0 by diffusion", "2026-11-27T10:00:00+00:00", "0.1.0")
KINDS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def signer(certificate) -> Signer:
    return Signer.of(str(certificate.chain), str(certificate.key), "es256")


def saved(kind: str, picture: np.ndarray = NOISE) -> bytes:
    body = io.BytesIO()
    Image.fromarray(picture).save(body, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return body.getvalue()


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def manifests(data: bytes, kind: str) -> dict[str, Any]:
    with c2pa.Reader(kind, io.BytesIO(data)) as reader:
        return dict(json.loads(reader.json()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_picture_says_what_was_done_from_what_and_where(kind, signer, monkeypatch):
    def refused(*_: object) -> None:
        raise AssertionError("signing went to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    came = saved(kind, 255 - NOISE)
    signed = signer.sign(saved(kind), came, CLAIM)
    assert (decoded(signed) == decoded(saved(kind))).all()
    assert len(signed) < len(saved(kind)) + 20_000  # no thumbnails
    found = manifests(signed, KINDS[kind])
    assert found["validation_state"] == "Valid"
    active = found["manifests"][found["active_manifest"]]
    [ingredient] = active["ingredients"]
    assert ingredient["relationship"] == "parentOf"
    [actions] = [a["data"]["actions"] for a in active["assertions"] if a["label"].startswith("c2pa.actions")]
    opened, edited = actions
    assert (opened["action"], edited["action"]) == ("c2pa.opened", "c2pa.edited")
    assert edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert edited["softwareAgent"] == {"name": "difface-pipeline", "version": "0.1.0"}
    [change] = edited["changes"]
    shape = {
        "type": "rectangle",
        "unit": "pixel",
        "origin": {"x": 1.0, "y": 2.0},
        "width": 10.5,
        "height": 18.0,
    }
    assert change["region"][0]["shape"] == shape
    assert active["signature_info"]["issuer"] == "Archive"


def test_a_pixel_that_changes_afterwards_breaks_the_signature(signer):
    signed = bytearray(signer.sign(saved("TIFF"), saved("TIFF"), CLAIM))
    place = signed.index(NOISE.tobytes()[:30])
    signed[place] ^= 1
    assert manifests(bytes(signed), "image/tiff")["validation_state"] == "Invalid"


def test_kinds_without_signatures_are_refused(signer):
    with pytest.raises(ValueError, match="of its kind can not be signed"):
        signer.sign(saved("BMP"), saved("BMP"), CLAIM)


def wrong_pairs(certificate: Certificate, folder) -> dict[str, tuple[str, str, str]]:
    other = make_certificate(folder / "other")
    (folder / "text").write_text("no PEM")
    return {
        "another key": (str(certificate.chain), str(other.key), "es256"),
        "the authority alone": (str(certificate.authority), str(certificate.key), "es256"),
        "no PEM": (str(folder / "text"), str(folder / "text"), "es256"),
        "another type": (str(certificate.chain), str(certificate.key), "ps256"),
        "files that are not there": (str(certificate.chain), str(folder / "gone"), "es256"),
    }


@pytest.mark.parametrize(
    "name", ["another key", "the authority alone", "no PEM", "another type", "files that are not there"]
)
def test_certificates_and_keys_that_do_not_sign_are_refused_without_naming_them(certificate, tmp_path, name):
    chain, key, algorithm = wrong_pairs(certificate, tmp_path)[name]
    with pytest.raises(NotSigned, match="--sign-key") as caught:
        Signer.of(chain, key, algorithm)
    said = str(caught.value)
    assert key not in said and chain not in said and "BEGIN" not in said
    assert caught.value.__cause__ is None


def test_where_the_library_is_missing_one_sentence_says_what_to_install(certificate, monkeypatch):
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name == "c2pa":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NotSigned, match=r"pip install '\.\[sign\]'"):
        Signer.of(str(certificate.chain), str(certificate.key), "es256")


def test_a_signer_does_not_show_its_key(signer, certificate):
    line = certificate.key.read_text().splitlines()[1]
    assert line not in repr(signer) and line not in signer.digest
