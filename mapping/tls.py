"""Who this program is on the control network, and TLS connections to the mapping database that say so.

The folder that LOCKGATE_TLS names is what `lockgate pki issue` made: key.pem, cert.pem, and for each role the
certificates of its authority. Every connection reads it anew, so what is replaced there counts from the next one on.
"""

from __future__ import annotations

import errno
import os
import ssl
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self, TypeAlias, cast

from mapping import certificates
from mapping.errors import MappingError

with ExitStack() as _after:
    # The ovs package imports eventlet where that is installed, as it has to know whether it runs in a program of that.
    # Only ryu-manager is one, and has it by now. For a command it is nearly half of the time that it takes to start.
    if "eventlet" not in sys.modules:
        sys.modules["eventlet"] = cast("ModuleType", None)
        _after.callback(sys.modules.pop, "eventlet")
    import ovs.poller
    import ovs.stream

Poller: TypeAlias = ovs.poller.Poller

_CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Identity:
    """A folder with a certificate, its key, and whom to trust."""

    folder: Path

    @classmethod
    def from_environment(cls) -> Self | None:
        """What LOCKGATE_TLS names, if it is set."""
        folder = os.environ.get("LOCKGATE_TLS")
        return cls(Path(folder).absolute()) if folder else None

    def file(self, what: str) -> Path:
        """The path of "key", "cert", or of a role's authority, like "member"."""
        return self.folder / f"{what}.pem"

    @property
    def name(self) -> str:
        """Role and name of the certificate, for people: "host host-a".

        Raises:
            MappingError: there is none.
        """
        certificate = certificates.read(self.file("cert"))[0]
        return f"{certificates.role_of(certificate)} {certificates.name_of(certificate)}"

    @property
    def common_name(self) -> str:
        """The name alone, by which OVSDB knows it.

        Raises:
            MappingError: there is none.
        """
        return certificates.name_of(certificates.read(self.file("cert"))[0])

    def check(self) -> None:
        """Raise `MappingError` if something is missing in the folder, or cannot be used."""
        _ = self.name
        self.client()

    def client(self) -> ssl.SSLContext:
        """For connections to the mapping database: only its members are believed.

        Raises:
            MappingError: the folder does not hold what it should.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # members stand for one another, and are known by their authority
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(self.file("member"))
            context.load_cert_chain(self.file("cert"), self.file("key"))
        except OSError as error:  # an SSLError is one
            mend = "make it with `lockgate pki issue`, and name it in LOCKGATE_TLS"
            raise MappingError(f"{self.folder}: no certificate that can be used ({error.strerror}): {mend}") from None
        return context


class TlsStream:
    """TLS above a TCP stream of the `ovs` package, used as that one is. `why` says what went wrong, in words.

    The package has a TLS stream itself. It takes its files from globals, hides why a handshake failed, spins while it
    waits for one, and under Ryu it would be eventlet's.
    """

    def __init__(self, below: Any, identity: Identity) -> None:  # noqa: ANN401 - the package has no types
        self.why = ""
        self._below = below
        self._identity = identity
        self._received, self._unsent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = identity.client().wrap_bio(self._received, self._unsent)
        self._pending = b""
        self._begun = self._shaken = False

    def connect(self) -> int:
        """0 when connected, EAGAIN when not yet, or what is wrong."""
        if self._shaken:
            return 0
        if error := int(self._below.connect()):
            return error
        self._begun = True
        error, _ = self._try(self._tls.do_handshake)
        self._shaken = error == 0
        return error

    def recv(self, size: int) -> tuple[int, bytes]:
        """(0, data), where no data is the end; or (what is wrong, b"")."""
        error, data = self._try(lambda: self._tls.read(size))
        return error, data or b""

    def send(self, data: bytes) -> int:
        """How many bytes were taken, or what is wrong, negative."""
        self.run()
        if self._pending:
            return -errno.EAGAIN
        error, sent = self._try(lambda: self._tls.write(data))
        return -error if error else int(sent)

    def run(self) -> None:
        """Send what waits to be sent."""
        self._pending += self._unsent.read()
        while self._pending:
            sent = self._below.send(self._pending[:_CHUNK])
            if sent <= 0:
                return
            self._pending = self._pending[sent:]

    def run_wait(self, poller: Poller) -> None:
        """Arm the poller for `run`."""
        if self._pending:
            self._below.send_wait(poller)

    def connect_wait(self, poller: Poller) -> None:
        """Arm the poller for `connect`."""
        if self._below.connect() == errno.EAGAIN:
            self._below.connect_wait(poller)
        elif self._begun:
            self.recv_wait(poller)
        else:
            poller.immediate_wake()  # it is for us to speak first

    def recv_wait(self, poller: Poller) -> None:
        """Arm the poller for `recv`."""
        self._below.recv_wait(poller)

    def send_wait(self, poller: Poller) -> None:
        """Arm the poller for `send`."""
        self._below.send_wait(poller)

    def close(self) -> None:
        """Close the connection, and say so: the other end would complain of one that just ends."""
        if self._shaken:
            with suppress(ssl.SSLError):
                self._tls.unwrap()  # it would wait for an answer, which nobody needs
            self.run()
        self._below.close()

    def _try(self, do: Any) -> tuple[int, Any]:  # noqa: ANN401 - what `do` returns
        """Do something of TLS, with as much of what has been received as it takes."""
        while True:
            try:
                done = do()
            except ssl.SSLWantReadError:
                self.run()
                error, data = self._below.recv(_CHUNK)
                if error:
                    return error, None
                if data:
                    self._received.write(data)
                else:
                    self._received.write_eof()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return (0, b"") if self._shaken else (errno.ECONNRESET, None)
            except ssl.SSLError as problem:
                self.run()  # the other end is told why
                self.why = self._explain(problem)
                return errno.EPROTO, None
            else:
                self.run()
                return 0, done

    def _explain(self, problem: ssl.SSLError) -> str:
        reason = str(getattr(problem, "verify_message", "") or problem.reason or problem).lower().replace("_", " ")
        if isinstance(problem, ssl.SSLCertVerificationError):
            return f"its certificate is no good: {reason}"
        if "alert" in reason:
            mend = "look with `lockgate pki show`, and whether this place is for that role"
            return f"it refuses the certificate of {self._identity.name}: {reason}: {mend}"
        return reason


def open_stream(remote: str, identity: Identity | None) -> tuple[int, Any, str]:
    """Begin to connect to a database: (0, stream, "") or (what is wrong, None, the same in words)."""
    kind, _, place = remote.partition(":")
    if kind != "ssl":
        error, stream = ovs.stream.Stream.open(remote)
        return error, stream, os.strerror(error) if error else ""
    if identity is None:
        return errno.EPROTO, None, "set LOCKGATE_TLS to a folder that `lockgate pki issue` made"
    error, below = ovs.stream.Stream.open(f"tcp:{place}")
    if error:
        return error, None, os.strerror(error)
    try:
        return 0, TlsStream(below, identity), ""
    except MappingError as problem:
        below.close()
        return errno.EPROTO, None, str(problem)
