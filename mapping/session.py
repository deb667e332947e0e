"""A JSON-RPC session with an OVSDB server (RFC 7047, 4), kept up: connects, probes, backs off, reconnects.

Streams and the reconnect state machine are the `ovs` package's. Messages are cut and parsed here, because that
package's own JSON parser is written in Python and takes some twenty seconds of CPU for a hundred thousand rows.
"""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import ovs.reconnect
import ovs.timeval

from mapping import tls
from mapping.tls import Identity, Poller

Message = dict[str, Any]

_CHUNK: Final = 1 << 18
_NOT_BRACES: Final = bytes(set(range(256)) - set(b"{}"))
PROBE_MS: Final = 5000
"""How long a server may be silent before it is asked whether it is there, and again before it is given up."""
BUSY_PROBE_MS: Final = 60_000
"""The same while it prepares a large answer: for a million rows it is silent for over ten seconds."""
BACKOFF_MS: Final = 1000
"""Pause between two attempts to connect, the shortest that the `ovs` package knows: it makes less into this."""


class Splitter:
    """Cuts a stream of JSON objects, written one after the other with nothing between, into the objects.

    Braces outside strings are counted as the bytes come, so each byte is looked at once, however the stream is cut.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder = json.JSONDecoder()
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> list[Message]:
        """Add what was received, and return the objects that it completes.

        Raises:
            ValueError: what was received is not JSON objects; the stream is of no more use.
        """
        if not self._buffer and data.count(b"{") == data.count(b"}"):
            try:
                with _no_collection():
                    return self._objects(data.decode())
            except (ValueError, RecursionError):
                pass  # perhaps the end has not come, or braces are in strings: what is outside of these is counted
        self._buffer += data
        complete = 0
        for brace in self._structure(data).translate(None, _NOT_BRACES):
            self._depth += 1 if brace == ord("{") else -1
            complete += self._depth == 0
        if not self._buffer.startswith(b"{"):
            self._buffer = self._buffer.lstrip()
        if self._depth < 0 or (self._buffer and self._buffer[0] != ord("{")):
            raise ValueError("the server sent something that is not a JSON object")
        with _no_collection():
            return self._messages(complete) if complete else []

    def _objects(self, text: str) -> list[Message]:
        """What is written here, if it is whole objects and nothing between: most often it is, and need not be cut."""
        messages: list[Message] = []
        end = 0
        while end < len(text):
            if text[end] != "{":
                raise ValueError("no object begins here")
            message, end = self._decoder.raw_decode(text, end)
            messages.append(message)
        return messages

    def _messages(self, complete: int) -> list[Message]:
        # Bytes after the last complete object may end within a character: those are kept as they are.
        text = self._buffer.decode(errors="surrogateescape")
        messages: list[Message] = []
        end = 0
        for _ in range(complete):
            start = len(text) - len(text[end:].lstrip()) if text[end : end + 1].isspace() else end
            try:
                message, end = self._decoder.raw_decode(text, start)
            except RecursionError:
                raise ValueError("the server sent JSON that is nested too deeply") from None
            if not isinstance(message, dict):
                raise ValueError("the server sent JSON that is not an object")  # noqa: TRY004 - it is of bytes, not of ours
            messages.append(message)
        text[:end].encode()  # within the objects, what is not UTF-8 is an error
        self._buffer = bytearray(text[end:].encode(errors="surrogateescape"))
        return messages

    def _structure(self, data: bytes) -> bytes:
        """`data` without what stands in strings."""
        if b"\\" not in data and not self._escaped:
            parts = data.split(b'"')
            outside = b"".join(parts[int(self._in_string) :: 2])
            self._in_string ^= len(parts) % 2 == 0
            return outside
        outside_bytes = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = byte == ord("\\")
                self._in_string = byte != ord('"')
            elif byte == ord('"'):
                self._in_string = True
            else:
                outside_bytes.append(byte)
        return bytes(outside_bytes)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Parsing makes no cycles; to look for some among the objects of a large message takes longer than to make them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Session:
    """One connection at a time to one of `remotes` ("ssl:192.0.2.9:6640", "unix:/run/mapping.sock").

    With `ssl:` this program is who `identity` says, which is that of LOCKGATE_TLS unless given.

    Drive it with `run`, then block in a poller armed with `wait`. `generation` counts the connections made: when it
    has grown, whatever was asked before is lost and must be asked again.

    Raises:
        ValueError: a remote is written wrongly.
    """

    def __init__(self, remotes: Sequence[str], identity: Identity | None = None) -> None:
        self.generation = 0
        self.error = ""
        """Why there is no connection, in words; empty while there is one."""
        self._identity = identity or Identity.from_environment()
        self._remotes = [check_remote(remote) for remote in remotes]
        self._next = itertools.cycle(self._remotes)
        self._remote = self._remotes[0]
        self._failures = 0
        self._stream: Any = None
        self._connected = False
        self._heard = False
        """Whether the server has sent anything: with TLS 1.3 it may yet refuse us when we are connected."""
        self._splitter = Splitter()
        self._unsent = bytearray()
        self._ids = itertools.count(1)
        self._reconnect: Any = ovs.reconnect.Reconnect(ovs.timeval.msec())
        self._reconnect.set_name(self._remote)
        self._reconnect.set_quiet(True)
        self._reconnect.set_backoff(BACKOFF_MS, BACKOFF_MS)
        self._reconnect.enable(ovs.timeval.msec())

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected

    @property
    def remote(self) -> str:
        """The server that is connected, or being tried."""
        return self._remote

    @property
    def certificate(self) -> str:
        """The name in the certificate that this connection shows; empty if it shows none.

        Raises:
            MappingError: there should be one, and is none.
        """
        return self._identity.common_name if self._identity and self._remote.startswith("ssl:") else ""

    @property
    def unreachable(self) -> bool:
        """Whether every server has been tried in vain since there was a connection last. Trying goes on."""
        return self._failures >= len(self._remotes)

    def close(self) -> None:
        """Close the connection for good."""
        self._reconnect.disable(ovs.timeval.msec())
        self._close("closed")

    def drop(self, why: str) -> None:
        """Give this connection up, and make another after the back-off."""
        self._reconnect.disconnected(ovs.timeval.msec(), 0)
        self._close(why)

    def be_patient(self, *, patient: bool) -> None:
        """Say whether the server is to be given the time for a large answer."""
        self._reconnect.set_probe_interval(BUSY_PROBE_MS if patient else PROBE_MS)

    def request(self, method: str, params: list[Any]) -> int:
        """Send a request and return the id that its reply will carry. Without a connection it goes nowhere."""
        request_id = next(self._ids)
        self._send({"id": request_id, "method": method, "params": params})
        return request_id

    def run(self) -> list[Message]:
        """Go on with whatever can be done without waiting; return the messages received, echoes answered already."""
        self._finish_connecting()
        messages = self._receive() if self._connected else []
        if self._connected:
            self._stream.run()
            self._flush()
        action = self._reconnect.run(ovs.timeval.msec())
        if action == ovs.reconnect.CONNECT:
            self._connect()
        elif action == ovs.reconnect.DISCONNECT:
            self._failures += not self._connected
            self.drop("no answer")
        elif action == ovs.reconnect.PROBE:
            self._send({"id": "echo", "method": "echo", "params": []})
        return messages

    def wait(self, poller: Poller) -> None:
        """Arm `poller` to wake when `run` has something to do."""
        self._reconnect.wait(poller, ovs.timeval.msec())
        if self._stream is None:
            return
        self._stream.run_wait(poller)
        if not self._connected:
            self._stream.connect_wait(poller)
            return
        self._stream.recv_wait(poller)
        if self._unsent:
            self._stream.send_wait(poller)

    def block(self, timeout_ms: int) -> None:
        """Wait until `run` has something to do, at most `timeout_ms` milliseconds."""
        poller = Poller()
        self.wait(poller)
        poller.timer_wait(timeout_ms)
        poller.block()

    def _connect(self) -> None:
        self._remote = next(self._next)
        self._reconnect.set_name(self._remote)
        error, stream, why = tls.open_stream(self._remote, self._identity)
        if error:
            self._connect_failed(error, why)
            return
        self._stream, self._splitter = stream, Splitter()
        self._unsent.clear()
        self._reconnect.connecting(ovs.timeval.msec())

    def _finish_connecting(self) -> None:
        if self._stream is None or self._connected:
            return
        self._stream.run()
        error = self._stream.connect()
        if error == 0:
            self._connected, self._heard, self.error = True, False, ""
            if not isinstance(self._stream, tls.TlsStream):
                self._failures = 0
            self.generation += 1
            self._reconnect.connected(ovs.timeval.msec())
        elif error != errno.EAGAIN:
            self._connect_failed(error, self._why(error))

    def _connect_failed(self, error: int, why: str) -> None:
        self._failures += 1
        self._reconnect.connect_failed(ovs.timeval.msec(), error)
        self._close(why)

    def _why(self, error: int) -> str:
        """What has gone wrong with the stream, in words: TLS knows better than an error number says."""
        return getattr(self._stream, "why", "") or os.strerror(error)

    def _close(self, error: str) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._connected, self.error = None, False, error

    def _receive(self) -> list[Message]:
        messages: list[Message] = []
        # Bounded, so that a server that never stops sending does not keep its caller from everything else.
        for _ in range(64):
            if not self._connected:  # lost while an echo was answered
                break
            error, data = self._stream.recv(_CHUNK)
            if error == errno.EAGAIN:
                break
            if error or not data:
                self._failures += isinstance(self._stream, tls.TlsStream) and not self._heard
                self.drop(self._why(error) if error else "the server closed the connection")
                break
            self._reconnect.activity(ovs.timeval.msec())
            self._heard, self._failures = True, 0
            try:
                received = self._splitter.feed(data)
            except ValueError as problem:
                self.drop(str(problem))
                break
            messages += [message for message in received if not self._is_echo(message)]
        self._reconnect.receive_attempted(ovs.timeval.msec())
        return messages

    def _is_echo(self, message: Message) -> bool:
        if message.get("method") == "echo":
            self._send({"id": message.get("id"), "result": message.get("params"), "error": None})
            return True
        return bool(message.get("id") == "echo")

    def _send(self, message: Message) -> None:
        if self._connected:
            self._unsent += json.dumps(message, separators=(",", ":")).encode()
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            sent = self._stream.send(bytes(self._unsent[:_CHUNK]))
            if sent == -errno.EAGAIN:
                return
            if sent <= 0:
                self.drop(self._why(-sent))
                return
            del self._unsent[:sent]


def check_remote(remote: str) -> str:
    """The remote, its path made absolute: the `ovs` package takes relative ones from its own run directory."""
    kind, _, rest = remote.partition(":")
    if kind == "unix" and rest:
        return f"unix:{Path(rest).absolute()}"
    host, _, port = rest.rpartition(":")
    if kind in ("ssl", "tcp") and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        try:
            ip_address(host.removeprefix("[").removesuffix("]"))
        except ValueError:
            pass
        else:
            return remote
    raise ValueError(f"database {remote!r}: write ssl:IP:PORT, tcp:IP:PORT or unix:PATH, like ssl:198.51.100.1:6640")
