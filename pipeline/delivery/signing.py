"""C2PA signatures of delivered pictures, made offline with the user's own certificate.

The one door of c2pa-python. Keys stay in this process: neither their path nor their content is written anywhere.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from pipeline import Refusal
from pipeline.delivery.media_types import signable
from pipeline.io import store
from pipeline.io.images import encode_png
from pipeline.io.xmp import COMPOSITE

Algorithm = Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
# No thumbnails: the picture itself is there, and in a WebP or GIF they would be many times its size. Nothing is
# fetched from a network.
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


class NotSigned(Refusal):
    """Certificate and key that nothing can be signed with, or no library to do it; the command exits with code 2."""


@dataclass(frozen=True)
class Claim:
    """What is signed of a picture."""

    title: str
    # x0, y0, x1, y1 of the faces that changed, pixels of the upright picture
    boxes: Sequence[Sequence[float]]
    # what was done, for people
    description: str
    # ISO 8601
    when: str
    version: str


@dataclass(frozen=True)
class Signer:
    """Signs with one certificate."""

    # PEM: the signer's certificate and those above it; its private key
    certificates: bytes = field(repr=False)
    key: bytes = field(repr=False)
    algorithm: Algorithm = "es256"

    @classmethod
    def of(cls, certificates: str, key: str, algorithm: Algorithm) -> "Signer":
        """The signer of these files, tried once. Raises NotSigned."""
        try:
            import c2pa  # noqa: F401
        except ImportError as error:
            raise NotSigned(
                "signing wants c2pa-python, which is not installed; install it with pip install '.[sign]'"
            ) from error
        read = {}
        for flag, path in (("--sign-cert", certificates), ("--sign-key", key)):
            try:
                read[flag] = store.read_bytes(path)
            except store.StoreError:
                # whose sentence would name the path
                raise NotSigned(f"{flag}: a file was wanted that can be read") from None
        signer = cls(read["--sign-cert"], read["--sign-key"], algorithm)
        picture = encode_png(np.zeros((8, 8, 3), np.uint8))
        try:
            signer.sign(picture, picture, Claim("trial", [], "", "2026-01-01T00:00:00Z", "0"))
        except ValueError:
            raise NotSigned(
                "--sign-cert and --sign-key: a PEM file with the signer's certificate and those above it, which "
                f"allows signing, and a PEM file with its private key of the type {algorithm} (--sign-alg) were "
                "wanted; nothing can be signed with these"
            ) from None
        return signer

    @property
    def digest(self) -> str:
        """Of the certificates, which are public, and the algorithm."""
        return hashlib.sha256(self.algorithm.encode() + self.certificates).hexdigest()

    def sign(self, data: bytes, source: bytes, claim: Claim) -> bytes:
        """The picture with a signed manifest; its pixels stay. source: the picture that came.

        Raises ValueError, a sentence without secrets.
        """
        import c2pa

        kind, came = signable(data), signable(source)
        if kind is None:
            raise ValueError("pictures of its kind can not be signed")
        signed = io.BytesIO()
        try:
            context = c2pa.Context.from_dict(_SETTINGS)
            info = c2pa.C2paSignerInfo(self.algorithm, self.certificates, self.key, None)
            builder = c2pa.Builder(manifest(claim), context)
            parent = json.dumps({"title": claim.title, "relationship": "parentOf", "label": "source"})
            builder.add_ingredient(parent, came or kind, io.BytesIO(source))
            builder.sign(c2pa.Signer.from_info(info), kind, io.BytesIO(data), signed)
        except (c2pa.C2paError, TypeError, ValueError) as error:
            raise ValueError(f"it can not be signed ({type(error).__name__.lstrip('_')})") from None
        return signed.getvalue()


def manifest(claim: Claim) -> dict[str, Any]:
    """The definition of a manifest, as C2PA's library takes it."""
    agent = {"name": "difface-pipeline", "version": claim.version}
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["source"]}}
    edited: dict[str, Any] = {
        "action": "c2pa.edited",
        "when": claim.when,
        "softwareAgent": agent,
        "digitalSourceType": COMPOSITE,
        "description": claim.description,
    }
    if claim.boxes:
        edited["changes"] = [_region(number, box) for number, box in enumerate(claim.boxes)]
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [opened, edited]}}
    return {"claim_generator_info": [agent], "title": claim.title, "assertions": [actions]}


def _region(number: int, box: Sequence[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    shape = {
        "type": "rectangle",
        "unit": "pixel",
        "origin": {"x": x0, "y": y0},
        "width": x1 - x0,
        "height": y1 - y0,
    }
    return {"region": [{"type": "spatial", "shape": shape}], "description": f"face {number}"}
