"""A certificate to sign with, and the authority that vouches for it, made anew for a test."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Certificate(NamedTuple):
    """Files in PEM."""

    # the signer's, then the authority's
    chain: Path
    key: Path
    # the authority's alone
    authority: Path


def make_certificate(folder: Path) -> Certificate:
    """A certificate of P-256 that C2PA accepts, below an authority of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    above, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"], False,
    )  # fmt: skip
    signs = x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage)
    vouches = x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage)
    authority = (
        _begun("authority", above)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(vouches, critical=True)
        .sign(above, hashes.SHA256())
    )
    signer = (
        _begun("signer", own)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    made = Certificate(folder / "chain.pem", folder / "a secret place.pem", folder / "authority.pem")
    made.chain.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in (signer, authority)))
    made.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    made.key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _begun(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now, key_id = datetime.now(UTC), x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(key_id, critical=False)
    )


def _named(name: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, "Archive"), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])
