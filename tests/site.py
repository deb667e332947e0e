"""Certificates, and a mapping database that is served over TLS, for tests."""

from __future__ import annotations

import random
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from mapping import schema, service
from mapping.pki import Pki
from mapping.session import Message, Session
from mapping.tls import Identity
from topo.waiting import wait_until

FRONTS = ("operator", "controller", "host")
Operation = dict[str, Any]


class Site:
    """Everything in a folder: a PKI, a member with its fronts, and identities by name."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.pki = Pki(folder / "pki")
        self.pki.init()
        self.member = self.issue("member", "m1")
        self.remotes: dict[str, str] = {}
        """Role -> where its front is."""
        self.socket = f"unix:{folder}/db/mapping.sock"

    def issue(self, role: str, name: str, **times: float) -> Identity:
        """An identity of its own."""
        out = self.folder / f"{role}-{name}-{len(list(self.folder.iterdir()))}"
        self.pki.issue(role, name, out, **times)
        return Identity(out)

    def start(self) -> None:
        """Serve."""
        self.remotes = self.remotes or {role: f"ssl:{self.address}:{free_port(self.address)}" for role in FRONTS}
        fronts = {
            role: [f"p{remote.replace('ssl:' + self.address, 'ssl')}:{self.address}"]
            for role, remote in self.remotes.items()
        }
        (self.folder / "db").mkdir(exist_ok=True)
        service.start(self.folder / "db", [f"p{self.socket}"], fronts=fronts, identity=self.member)

    def stop(self) -> None:
        """End it."""
        service.stop(self.folder / "db")


def shake_hands(remote: str, identity: Identity, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    """Connect to anything that speaks TLS, whoever it is; OSError if it refuses the certificate, or the version."""
    _, host, port = remote.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(identity.file("cert"), identity.file("key"))
    connection = context.wrap_socket(socket.create_connection((host, int(port)), timeout=10))
    connection.settimeout(5)
    return connection


_RESERVED: list[socket.socket] = []


def free_port(address: str) -> int:
    """A port that nobody listens at, or is given by this, until this process ends.

    None of those from which the kernel takes one for whoever connects: such a port may be taken before a server that is
    being started listens there. And tests that run beside this one know by a socket of its name that a port is taken.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10_000, max(first, 20_000)), 1000):
        name, probe = socket.socket(socket.AF_UNIX), socket.socket()
        with probe, suppress(OSError):
            name.bind(f"\0lockgate-test-port-{port}")
            probe.bind((address, port))
            _RESERVED.append(name)
            return port
        name.close()
    raise AssertionError("no port is free")


def transact(
    remote: str, identity: Identity | None, *operations: Operation, database: str = schema.DATABASE
) -> list[dict[str, Any]]:
    """Send one transaction and return each operation's result; ConnectionError, and why, if the server refuses us."""
    message = ask(remote, identity, "transact", [database, *operations])
    assert not message.get("error"), message
    return [result or {} for result in message["result"]]


def ask(remote: str, identity: Identity | None, method: str, params: list[Any]) -> Message:
    """Send a request of any kind and return the reply; raises as `transact`."""
    session = Session([remote], identity)
    try:
        return _answer(session, method, params)
    finally:
        session.close()


def _answer(session: Session, method: str, params: list[Any]) -> Message:
    def connected() -> bool:
        session.run()
        if session.unreachable:
            raise ConnectionError(session.error)
        if not session.connected:
            session.block(100)
        return session.connected

    wait_until(connected, 20, "a connection")
    request = session.request(method, params)
    found: list[Message] = []

    def answered() -> bool:
        found.extend(message for message in session.run() if message.get("id") == request)
        if not found and not session.connected:
            raise ConnectionError(session.error)
        if not found:
            session.block(100)
        return bool(found)

    wait_until(answered, 20, "an answer")
    return found[0]
