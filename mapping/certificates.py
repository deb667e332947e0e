"""X.509 certificates of ours: what they say, how they are signed, and their files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mapping.errors import MappingError

ROLES: Final = ("member", "operator", "controller", "host")

_USES: Final = {
    # Who only ever connects must not be believed when it poses as a server.
    "member": (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    "operator": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "controller": (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    "host": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}
_KEY_USES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_CLOCKS_DIFFER: Final = timedelta(hours=1)


class Authority(NamedTuple):
    """What signs: its certificate, and the key to that."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Issued(NamedTuple):
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_authority(role: str, begins: datetime, ends: datetime) -> Authority:
    """An authority for certificates of this role."""
    key, serial = ec.generate_private_key(ec.SECP256R1()), x509.random_serial_number()
    # Two authorities of one name could not be told apart: the serial number is in it, as everywhere.
    subject = _subject(role, f"{role} authority", serial)
    return Authority(_authority(subject, key, serial, (begins - _CLOCKS_DIFFER, ends), []), key)


def exclude(authority: Authority, subjects: Sequence[x509.Name]) -> Authority:
    """The same authority, for all that it has signed, but for certificates of these subjects."""
    old, key = authority
    names = [*excluded_by(old), *subjects]
    times = (old.not_valid_before_utc, old.not_valid_after_utc)
    return Authority(_authority(old.subject, key, x509.random_serial_number(), times, names), key)


def issue(role: str, name: str, authority: Authority, begins: datetime, ends: datetime) -> Issued:
    """A certificate of this role and name; it does not outlive its authority."""
    key, serial = ec.generate_private_key(ec.SECP256R1()), x509.random_serial_number()
    times = (begins - _CLOCKS_DIFFER, min(ends, authority.certificate.not_valid_after_utc))
    certificate = (
        _builder(_subject(role, name, serial), authority.certificate.subject, key, serial, times)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USES[role]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(certificate, key)


def excluded_by(authority: x509.Certificate) -> list[x509.Name]:
    """The subjects that this authority's certificate takes back."""
    try:
        constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    return [each.value for each in constraints.excluded_subtrees or () if isinstance(each, x509.DirectoryName)]


def role_of(certificate: x509.Certificate) -> str:
    """The role that it names; who signed it is what proves it."""
    return _attribute(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)


def name_of(certificate: x509.Certificate) -> str:
    """Whose it is: a host's name, for one of a host. Empty if it names nobody."""
    return _attribute(certificate, NameOID.COMMON_NAME)


def pem(*objects: Authority | Issued | x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    """As text, for a file."""
    parts = []
    for each in objects:
        if isinstance(each, x509.Certificate):
            parts.append(each.public_bytes(serialization.Encoding.PEM))
        elif isinstance(each, ec.EllipticCurvePrivateKey):
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            parts.append(each.private_bytes(*form))
        else:
            parts.append(pem(*each))
    return b"".join(parts)


def read(file: Path) -> list[x509.Certificate]:
    """The certificates in a file.

    Raises:
        MappingError: it cannot be read, or is something else.
    """
    try:
        return x509.load_pem_x509_certificates(_content(file))
    except ValueError:
        raise MappingError(f"{file} holds no certificate: make it anew with `lockgate pki`") from None


def read_authorities(file: Path) -> list[Authority]:
    """What `pem` made of authorities. Raises as `read`."""
    keys = [b"-----BEGIN PRIVATE" + part for part in _content(file).split(b"-----BEGIN PRIVATE")[1:]]
    found = []
    for certificate, text in zip(read(file), keys, strict=True):
        key = serialization.load_pem_private_key(text, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - nobody else writes this file
        found.append(Authority(certificate, key))
    return found


def write(file: Path, content: bytes, *, private: bool = False) -> None:
    """Replace a file at once, whole, so that nobody ever reads half of it. It is its folder's owner's.

    Raises:
        MappingError: it cannot be written.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o644), "wb") as out:
            out.write(content)
            out.flush()
            if os.geteuid() == 0:
                # What root renews in the folder of a service that runs as another user, that service has to read.
                os.fchown(out.fileno(), (owner := file.parent.stat()).st_uid, owner.st_gid)
            os.fsync(out.fileno())
        new.replace(file)
    except OSError as error:
        raise MappingError(f"{file}: {error.strerror}: choose a folder that you may write to, with room") from None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise MappingError(f"{file}: {error.strerror}: make it with `lockgate pki`, or name another folder") from None


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _subject(role: str, name: str, serial: int) -> x509.Name:
    # The number makes that revoking one certificate leaves the next of the same name good. OVSDB's roles go by the
    # common name alone.
    pairs = (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        (NameOID.COMMON_NAME, name),
        (NameOID.SERIAL_NUMBER, f"{serial:x}"),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _authority(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    times: tuple[datetime, datetime],
    excluded: Sequence[x509.Name],
) -> x509.Certificate:
    builder = (
        _builder(subject, subject, key, serial, times)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{use: use == "key_cert_sign" for use in _KEY_USES}), critical=True)
    )
    if excluded:
        constraints = x509.NameConstraints(None, [x509.DirectoryName(name) for name in excluded])
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    times: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(times[0])
        .not_valid_after(times[1])
    )
