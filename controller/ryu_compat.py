"""What Ryu 4.34 needs on a current Python, so that plain `ryu-manager` runs.

Three things of `ryu.lib.hub` are broken:

- `ryu-manager` always imports `ryu.app.wsgi`, which takes `ALREADY_HANDLED` from `eventlet.wsgi`. Eventlet dropped it
  in 0.30.3, and older releases do not run on Python 3.11.
- `StreamServer` pops its TLS arguments from a dict that all connections share, so that only the first one is served:
  every reconnect fails with NO_SHARED_CIPHER.
- It ends at the first connection that cannot be accepted, as when too many files are open.

`lockgate_ryu.pth`, which lies in site-packages, calls `install` at every start of Python in this environment. That
imports neither Ryu nor eventlet; it only waits for `ryu.lib.hub` and repairs it right after its import, before any
other module of Ryu has taken a name from it. Nothing else of Ryu is changed for Python's sake; what
`controller.replies` and `controller.received` change is for speed, and for faults of Ryu's on any Python.

Two more are for speed: without them a controller takes half as long again to start.

- Eventlet brings a resolver of names, a hundred modules. Nothing here is named but by its address: they stay away.
- `ryu-manager` has all made green but threads, imports Ryu, then has threads made green; eventlet then looks for locks
  in everything that was imported. All is made green at once, while there is little to look into.
"""

import os
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

TYPE_CHECKING = False  # importing typing would be most of the cost
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from logging import Logger
    from types import ModuleType
    from typing import Any

    Handle = Callable[[Any, Any], None]  # (connection, address)

HUB = "ryu.lib.hub"
HANDSHAKE, CERTIFICATE = 22, 11  # types of a TLS record and of a message in it
ACCEPT_INTERVAL = 0.5  # seconds before it is tried again to accept connections
CLAIM = 200  # characters that are logged of a certificate that is not believed
HANDSHAKE_TIMEOUT = 10.0  # seconds, as a silent client would otherwise hold its socket for ever


def install() -> None:
    """Repair `ryu.lib.hub` as soon as something imports it."""
    # Ryu, and the ovs package when it finds eventlet, import it: every command would begin with ten lines of advice.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")
    sys.meta_path.insert(0, _HubFinder())


class _HubFinder:
    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        if name != HUB:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _HubLoader(name, spec.origin)
        return spec


class _HubLoader(SourceFileLoader):
    def exec_module(self, module: "ModuleType") -> None:
        super().exec_module(module)
        _repair(module)


def _repair(hub: "Any") -> None:
    # Today's eventlet learns from a flag of its own, which its WebSocketWSGI sets, that a response is already out.
    hub.eventlet.wsgi.ALREADY_HANDLED = ()
    monkey_patch = hub.patch
    hub.patch = lambda **_: monkey_patch()

    from controller import kept_socket  # noqa: PLC0415 - not at every start of Python

    class StreamServer(hub.StreamServer):
        """Ryu's server, with one TLS context for all connections, and a socket that outlives this process."""

        def __init__(
            self,
            listen_info: "tuple[str, int]",
            handle: "Handle",
            backlog: None = None,
            spawn: str = "default",
            **tls: "Any",
        ) -> None:
            kept = kept_socket.taken_over(listen_info)
            if kept:
                self.server, self.handle = kept, handle
            else:
                super().__init__(listen_info, handle, backlog, spawn)
                kept_socket.keep(self.server)
            if tls:
                self.handle = _behind_tls(handle, hub.LOG, **tls)

        def serve_forever(self) -> None:
            """Ryu's ends at the first connection that cannot be accepted, and with it all hope of another."""
            while True:
                try:
                    connection, address = self.server.accept()
                except OSError as error:  # as when too many files are open: some will be closed
                    hub.LOG.error("no switch can connect: %s: it is tried again", error)  # noqa: TRY400
                    hub.sleep(ACCEPT_INTERVAL)
                    continue
                hub.spawn(self.handle, connection, address)

    hub.StreamServer = StreamServer


def _behind_tls(
    handle: "Handle", log: "Logger", *, keyfile: str, certfile: str, ca_certs: str | None = None, **_: "Any"
) -> "Handle":
    """A handler that shakes hands, with mutual authentication when there are `ca_certs`, before it calls `handle`.

    What else Ryu passes, a context and `cert_reqs`, says the same in a weaker way.
    """
    from eventlet.green import ssl  # noqa: PLC0415 - not at every start of Python

    files = [file for file in (keyfile, certfile, ca_certs) if file is not None]
    current: list[Any] = []

    def context() -> "Any":
        """For the files as they are now: certificates are renewed, and trust is taken back, while this runs."""
        written = [os.stat(file).st_mtime_ns for file in files]  # noqa: PTH116 - pathlib is not imported for this
        if current[1:] != written:
            try:
                current[:] = [_context(ssl, keyfile, certfile, ca_certs), *written]
            except OSError as error:  # an SSLError is one
                log.error("TLS goes on with the certificates that it had: %s: %s", ", ".join(files), error)  # noqa: TRY400
        return current[0]

    context()

    def shake_hands_and_handle(connection: "Any", address: "Any") -> None:
        connection.settimeout(HANDSHAKE_TIMEOUT)
        try:
            connection = context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            connection.do_handshake()
        except OSError as error:
            reason = getattr(error, "verify_message", "") or error
            log.warning("TLS handshake with %s failed%s: %s", address, _claimed(connection), reason)
            connection.close()
            return
        connection.settimeout(None)
        handle(connection, address)

    return shake_hands_and_handle


def _context(ssl: "Any", keyfile: str, certfile: str, ca_certs: str | None) -> "Any":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certfile, keyfile)
    if ca_certs is not None:
        context.load_verify_locations(ca_certs)
        context.verify_mode = ssl.CERT_REQUIRED
    # The one way to learn whose certificate it is that OpenSSL refuses. Eventlet makes ssl's own setter call itself.
    ssl._ssl._SSLContext._msg_callback.__set__(context, _note_certificate)  # noqa: SLF001
    return context


def _note_certificate(connection: "Any", direction: str, _: int, kind: int, what: int, message: bytes) -> None:
    """Keep the first certificate of a handshake's Certificate message (RFC 8446, 4.4.2; RFC 5246, 7.4.2)."""
    if direction == "read" and kind == HANDSHAKE and what == CERTIFICATE:
        start = message.find(b"\x30\x82")  # a certificate is a SEQUENCE, with a length of two bytes
        length = int.from_bytes(message[start + 2 : start + 4], "big")
        connection.certificate_claimed = message[start : start + 4 + length]


def _claimed(connection: "Any") -> str:
    """Whose certificate it says that it is, on one line. Nothing of that is proved: it may be made up to be logged."""
    certificate = getattr(connection, "certificate_claimed", b"")
    if not certificate:
        return ""
    try:
        from cryptography import x509  # noqa: PLC0415 - not at every start of Python

        subject = x509.load_der_x509_certificate(certificate).subject
    except Exception:  # noqa: BLE001 - the package has many of its own, like that of an unknown version
        return ", its certificate cannot be read"
    says = " ".join(str(part.value) for part in subject)
    return f", its certificate says {''.join(each if each.isprintable() else '?' for each in says)[:CLAIM]}"
