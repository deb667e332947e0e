"""Authorities and certificates of the control network: who signs decides what a certificate is good for.

There are four authorities, one for each role. A program trusts only those that it has to do with, so that a
certificate of another role does not even get through the handshake:

    role        who has it                          its holder
    member      mapping database: members, relays   serves, and is believed by everyone who connects to the database
    operator    people and their tools              may write mappings
    controller  controllers of many hosts           may report of any host; serves OpenFlow
    host        a host, or the controller on it     may report of itself; connects by OpenFlow

Open vSwitch reads no revocation lists. But OpenSSL checks the name constraints of the authority's own certificate
(RFC 5280, 4.2.1.10): so a certificate is revoked by excluding its subject, which holds its serial number, from what the
authority may sign, and giving everyone the authority's new certificate. Name and key of the authority stay, and so all
its other certificates are good.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from mapping import certificates
from mapping.certificates import ROLES, Authority
from mapping.errors import MappingError

DEFAULT_FOLDER: Final = Path("/var/lib/lockgate/pki")
DEFAULT_DAYS: Final = 365
"""For how long a certificate is good."""

_AUTHORITY_DAYS: Final = 3650
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,63}")

State = Literal["valid", "expired", "revoked", "superseded"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate that was issued. `superseded`: its authority has been replaced, and is trusted no more."""

    role: str
    name: str
    serial: str
    expires: datetime
    state: State


class Pki:
    """The authorities' keys and the certificates that they have issued, in a folder that only their keeper reads.

    Every method raises `MappingError` when the folder holds no authorities, or cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def init(self) -> None:
        """Make the four authorities. There being some is an error: what they have signed would be worth nothing."""
        if self._file(ROLES[0]).exists():
            raise MappingError(f"{self.folder} holds authorities already: use them, or name another folder with --pki")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MappingError(f"{error.filename}: {error.strerror}: name another folder with --pki") from None
        with self._locked():
            for role in ROLES:
                self._save(role, [_new(role)])

    def issue(self, role: str, name: str, out: Path, *, days: float = DEFAULT_DAYS, ago: float = 0) -> Entry:
        """Make a key and a certificate, and put them into the folder `out` with the certificates of all authorities.

        What is there already is replaced, each file at once. It is good from `ago` days ago, for `days` days.

        Raises:
            MappingError: the name is no name.
        """
        if not _NAME.fullmatch(name):
            raise MappingError(f"{name!r} is no name: use 1 to 63 letters, digits, `_`, `.`, `-`")
        begins = datetime.now(UTC) - timedelta(days=ago)
        with self._locked():
            issued = certificates.issue(role, name, self._read(role)[0], begins, begins + timedelta(days=days))
            serial = f"{issued.certificate.serial_number:x}"
            certificates.write(self.folder / role / f"{name}-{serial}.pem", certificates.pem(issued.certificate))
        self.write_trust(out)
        certificates.write(out / "key.pem", certificates.pem(issued.key), private=True)
        certificates.write(out / "cert.pem", certificates.pem(issued.certificate))
        return Entry(role, name, serial, issued.certificate.not_valid_after_utc, "valid")

    def write_trust(self, out: Path) -> None:
        """Put the certificates of all authorities into a folder, replacing what is there."""
        for role in ROLES:
            trusted = [authority.certificate for authority in self._read(role)]
            certificates.write(out / f"{role}.pem", certificates.pem(*trusted))

    def revoke(self, role: str, name: str) -> list[Entry]:
        """Revoke every certificate of this name; returns them. They are refused wherever the new trust files are.

        Raises:
            MappingError: there is none that is valid.
        """
        with self._locked():
            found = [each for each in self._issued(role) if each.name == name and each.state == "valid"]
            if not found:
                raise MappingError(f"no valid certificate of {role} {name}: `lockgate pki show` lists what there is")
            files = [self.folder / role / f"{name}-{each.serial}.pem" for each in found]
            subjects = [certificates.read(file)[0].subject for file in files]
            self._save(role, [certificates.exclude(authority, subjects) for authority in self._read(role)])
        return found

    def rotate(self, role: str, *, finish: bool) -> None:
        """Replace an authority: first beside the old one, and with `finish` the old one goes.

        In between, give everyone the new trust files, and then new certificates.

        Raises:
            MappingError: there is nothing to finish, or something that must be finished first.
        """
        with self._locked():
            newest, *older = self._read(role)
            if finish and not older:
                raise MappingError(f"{role} certificates have one authority only: begin a rotation without --finish")
            if older and not finish:
                raise MappingError(f"{role} certificates have a new authority already: end its rotation with --finish")
            self._save(role, [newest] if finish else [_new(role), newest])

    def show(self) -> list[Entry]:
        """Every certificate that was issued, by role and name."""
        return [each for role in ROLES for each in self._issued(role)]

    def _issued(self, role: str) -> list[Entry]:
        authorities, now = [each.certificate for each in self._read(role)], datetime.now(UTC)
        excluded = {name for authority in authorities for name in certificates.excluded_by(authority)}
        issuers = [authority.subject for authority in authorities]
        entries = []
        for file in sorted((self.folder / role).glob("*-*.pem")):
            certificate = certificates.read(file)[0]
            state: State = "valid"
            if certificate.subject in excluded:
                state = "revoked"
            elif certificate.not_valid_after_utc <= now:
                state = "expired"
            elif certificate.issuer not in issuers:
                state = "superseded"
            serial = f"{certificate.serial_number:x}"
            name = certificates.name_of(certificate)
            entries.append(Entry(role, name, serial, certificate.not_valid_after_utc, state))
        return entries

    def _file(self, role: str) -> Path:
        return self.folder / role / "authority.pem"

    def _read(self, role: str) -> list[Authority]:
        """The authority, and the one that it replaces, if that is still trusted."""
        if not self._file(role).exists():
            raise MappingError(f"{self.folder} holds no authorities: make them with `lockgate pki init`")
        return certificates.read_authorities(self._file(role))

    def _save(self, role: str, authorities: list[Authority]) -> None:
        certificates.write(self._file(role), certificates.pem(*authorities), private=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: two that issue or revoke at once would each lose what the other did."""
        try:
            handle = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise MappingError(f"{self.folder}: {error.strerror}: make it with `lockgate pki init`") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _new(role: str) -> Authority:
    now = datetime.now(UTC)
    return certificates.new_authority(role, now, now + timedelta(days=_AUTHORITY_DAYS))
