"""A program that has a host's key and speaks OpenFlow like a switch, as far as it likes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from ryu.ofproto import ofproto_v1_5 as ofp

from mapping.tls import Identity
from tests.site import shake_hands

Answer = Callable[[int, int, bytes], bytes]
"""What is sent back to a message of this kind and id; its bytes from the header on are the third argument."""


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHI", ofp.OFP_VERSION, kind, 8 + len(body), xid) + body


def multipart(kind: int, xid: int, body: bytes = b"", *, more: bool = False) -> bytes:
    return message(ofp.OFPT_MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, more) + body)


def silent(*_: object) -> bytes:
    return b""


class Rogue:
    """It says hello, that it is this datapath, and that it has no ports, and answers echo; `answer` says all else."""

    def __init__(self, remote: str, identity: Identity, datapath: int, answer: Answer = silent) -> None:
        self._connection: socket.socket = shake_hands(remote, identity)
        self._datapath = datapath
        self._answer = answer
        self.ended = threading.Event()
        """The controller has closed the connection."""
        self._lock = threading.Lock()
        self.send(message(ofp.OFPT_HELLO, 1))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        with self._lock, suppress(OSError):
            self._connection.sendall(data)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()

    def _run(self) -> None:
        data = b""
        while True:
            try:
                received = self._connection.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                received = b""
            if not received:
                self.ended.set()
                return
            data += received
            while len(data) >= 8 and len(data) >= (length := struct.unpack_from("!H", data, 2)[0]):
                _, kind, _, xid = struct.unpack_from("!BBHI", data)
                self.send(self._reply(kind, xid, data[8:length]))
                data = data[length:]

    def _reply(self, kind: int, xid: int, body: bytes) -> bytes:
        if kind == ofp.OFPT_ECHO_REQUEST:
            return message(ofp.OFPT_ECHO_REPLY, xid, body)
        if kind == ofp.OFPT_FEATURES_REQUEST:
            return message(ofp.OFPT_FEATURES_REPLY, xid, struct.pack("!QIBB2xII", self._datapath, 0, 254, 0, 0, 0))
        if kind == ofp.OFPT_MULTIPART_REQUEST and body[:2] == struct.pack("!H", ofp.OFPMP_PORT_DESC):
            return multipart(ofp.OFPMP_PORT_DESC, xid)
        return self._answer(kind, xid, body)
